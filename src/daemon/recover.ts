/** Publishes, or drops, a session that was left behind, without mounting it. One-shot: no beats, no control socket. */
import { IntegrityError, IsrfsError, LeaseHeldError } from '../base/errors.js'
import { commitSession } from '../commit/commit.js'
import { SharePool } from '../fetch/share-pool.js'
import { copiedNotice, openClient } from '../session/client.js'
import { removeSession } from '../session/identity.js'
import { Session } from '../session/session.js'
import type { GenerationReference } from '../share/lease.js'
import { type Claim, claimVm, lockSession, sessionDirectoryOf } from './claim.js'
import { hostName, leaseHolder } from './host.js'
import type { Outcome, Progress } from './messages.js'
import { asNotPublished } from './settle.js'
import { closePool } from './share-threads.js'

export interface RecoverRequest {
  readonly vmPath: string
  readonly clientDirectory: string
  readonly notice: (text: string) => void
  readonly onProgress: (progress: Progress) => void
}

/** Publishes what was left behind. undefined: there was nothing. Rejects with NotPublishedError, the session untouched. */
export async function recoverSession(request: RecoverRequest): Promise<Outcome | undefined> {
  const { vmPath, clientDirectory, notice } = request
  return withVm(request, async (pool, vmId, clientId) => {
    const mountpoint = '(isrfs recover)'
    const claim = await claimVm({ pool, vmPath, vmId, clientId, clientDirectory, mountpoint, notice })
    try {
      return await publish(request, pool, claim, clientId)
    } finally {
      claim.lock.release()
    }
  })
}

async function publish(
  request: RecoverRequest,
  pool: SharePool,
  claim: Claim,
  clientId: string
): Promise<Outcome | undefined> {
  const { leftOver: session, newest, held } = claim
  const giveBack = (generation: GenerationReference): Promise<void> =>
    pool.run('releaseLease', { held, generation }, { what: 'giving the lease back' })
  if (session === undefined) {
    await giveBack({ number: newest.number, digest: newest.digest })
    return undefined
  }
  try {
    const { published, changedBytes, sentBytes } = await commitSession({
      vmPath: request.vmPath,
      session,
      base: newest,
      held,
      cache: undefined,
      client: { id: clientId, host: hostName() },
      verify: false,
      onProgress: request.onProgress
    })
    session.destroy()
    const result = published ?? newest
    await giveBack({ number: result.number, digest: result.digest })
    if (published === undefined) return { kind: 'unchanged', generation: newest.number }
    return { kind: 'published', generation: published.number, changedBytes, sentBytes, verified: false }
  } catch (error) {
    if (Session.inspect(claim.sessionDirectory) === undefined) throw error // published; only the lease is left
    await session.close().catch(() => undefined)
    throw asNotPublished(error, request.vmPath)
  }
}

/** Drops what was left behind. undefined: there was nothing; else when the dropped session was made. */
export async function discardSession(request: RecoverRequest): Promise<string | undefined> {
  return withVm(request, async (pool, vmId, clientId) => {
    const directory = sessionDirectoryOf(request.clientDirectory, vmId)
    const lock = await lockSession(directory, request.vmPath)
    try {
      const created = createdOf(directory)
      removeSession(directory)
      await giveBackOwnLease(request, pool, clientId)
      return created
    } finally {
      lock.release()
    }
  })
}

/** A damaged session can be dropped too. */
function createdOf(directory: string): string | undefined {
  try {
    return Session.inspect(directory)?.createdIso
  } catch (error) {
    if (error instanceof IntegrityError) return 'unknown'
    throw error
  }
}

/** The dropped session may have been the reason why this client still holds the lease. */
async function giveBackOwnLease({ notice }: RecoverRequest, pool: SharePool, clientId: string): Promise<void> {
  try {
    const held = await pool.run(
      'acquireLease',
      { holder: leaseHolder(clientId, '(isrfs recover)') },
      { what: 'the lease' }
    )
    await pool.run('releaseLease', { held, generation: held.generation }, { what: 'giving the lease back' })
  } catch (error) {
    if (error instanceof LeaseHeldError) return // somebody else has it
    if (error instanceof IsrfsError) notice(`the lease could not be given back: ${error.message}`)
    else throw error
  }
}

async function withVm<Result>(
  { vmPath, clientDirectory, notice }: RecoverRequest,
  use: (pool: SharePool, vmId: string, clientId: string) => Promise<Result>
): Promise<Result> {
  const client = openClient(clientDirectory)
  if (client.wasCopied) notice(copiedNotice(clientDirectory))
  const pool = new SharePool(vmPath, { threads: 1 })
  try {
    const { vm } = await pool.run('openVm', {}, { what: `opening ${vmPath}` })
    return await use(pool, vm, client.id)
  } finally {
    await closePool(pool)
  }
}
