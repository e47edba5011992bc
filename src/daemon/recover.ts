/** Publishes, or drops, a session that was left behind, without mounting it. One-shot: no beats, no control socket. */
import { IntegrityError, IsrfsError, LeaseHeldError, messageOf } from '../base/errors.js'
import { commitSession } from '../commit/commit.js'
import { SharePool } from '../fetch/share-pool.js'
import { copiedNotice, openClient } from '../session/client.js'
import { removeSession } from '../session/identity.js'
import { Session } from '../session/session.js'
import type { GenerationReference } from '../share/lease.js'
import { adoptSession } from './adopt.js'
import {
  type Claim,
  claimVm,
  dropIfPublished,
  lockSession,
  openLeftOver,
  readBase,
  SessionConflictError,
  sessionDirectoryOf
} from './claim.js'
import { onClientDisk } from './client-disk.js'
import { findVm } from './find-vm.js'
import { hostName, leaseHolder } from './host.js'
import type { Outcome, Progress } from './messages.js'
import { asNotPublished } from './settle.js'
import { closePool } from './share-threads.js'

export interface RecoverRequest {
  readonly vmPath: string
  readonly clientDirectory: string
  /** publish although writes were lost */
  readonly acceptLoss?: boolean
  /** a session that was set aside with a copied client directory */
  readonly from?: string | undefined
  readonly notice: (text: string) => void
  readonly onProgress: (progress: Progress) => void
}

/** Publishes what was left behind. undefined: there was nothing. Rejects with NotPublishedError, the session untouched. */
export async function recoverSession(request: RecoverRequest): Promise<Outcome | undefined> {
  const { vmPath, clientDirectory, notice } = request
  return withVm(request, async (pool, vmId, clientId) => {
    const { from } = request
    if (from !== undefined) await adoptSession({ pool, vmPath, vmId, clientId, clientDirectory, from })
    const mountpoint = '(isrfs recover)'
    const asked = { pool, vmPath, vmId, clientId, clientDirectory, mountpoint, notice, acceptRollback: false }
    let claim: Claim
    try {
      claim = await claimVm(asked)
    } catch (error) {
      const isLost = error instanceof SessionConflictError || error instanceof LeaseHeldError
      if (!isLost) throw error
      return await publishBranch(request, pool, vmId, clientId, error)
    }
    try {
      return await publish(request, pool, claim, clientId)
    } finally {
      claim.lock.release()
    }
  })
}

/**
 * What was left behind cannot become the next generation, because somebody else makes or has made it: it becomes a
 * branch, for which no lease is needed. Throws `refusal` when there is no session; undefined: it had been published, and
 * a crash has only kept it from being removed.
 */
async function publishBranch(
  request: RecoverRequest,
  pool: SharePool,
  vmId: string,
  clientId: string,
  refusal: Error
): Promise<Outcome | undefined> {
  const { vmPath, clientDirectory, onProgress, notice } = request
  const directory = sessionDirectoryOf(clientDirectory, vmId)
  const lock = await lockSession(directory, vmPath)
  try {
    const identity = Session.inspect(directory)
    if (identity === undefined) throw refusal
    if (await dropIfPublished({ pool, notice }, directory, identity)) {
      await pool.run('removeSessionPins', { client: clientId }).catch(() => undefined)
      return undefined
    }
    const base = await readBase({ pool, vmPath }, directory, identity)
    const session = openLeftOver(directory, base, vmPath)
    try {
      const client = { id: clientId, host: hostName() }
      const how = { verify: false, acceptLoss: request.acceptLoss === true, onProgress }
      const options = { vmPath, session, base, held: undefined, cache: undefined, client, ...how }
      const { branch, head, changedBytes, sentBytes } = await commitSession(options)
      dropPublished(session, notice)
      await pool.run('removeSessionPins', { client: clientId }).catch(() => undefined)
      if (branch === undefined) return { kind: 'unchanged', generation: head.number }
      return { kind: 'branch', branch: branch.published.name, why: branch.why, changedBytes, sentBytes }
    } catch (error) {
      await session.close().catch(() => undefined)
      throw asNotPublished(error, vmPath)
    }
  } finally {
    lock.release()
  }
}

async function publish(
  request: RecoverRequest,
  pool: SharePool,
  claim: Claim,
  clientId: string
): Promise<Outcome | undefined> {
  const { leftOver: session, newest, base, held } = claim
  const giveBack = (generation: GenerationReference): Promise<void> =>
    pool.run('releaseLease', { held, generation }, { what: 'giving the lease back' })
  if (session === undefined) {
    await pool.run('removeSessionPins', { client: clientId }).catch(() => undefined)
    await giveBack({ number: newest.number, digest: newest.digest })
    return undefined
  }
  try {
    const { published, branch, head, changedBytes, sentBytes } = await commitSession({
      vmPath: request.vmPath,
      session,
      base,
      held,
      cache: undefined,
      client: { id: clientId, host: hostName() },
      verify: false,
      acceptLoss: request.acceptLoss === true,
      onProgress: request.onProgress
    })
    dropPublished(session, request.notice)
    if (branch !== undefined) {
      return { kind: 'branch', branch: branch.published.name, why: branch.why, changedBytes, sentBytes }
    }
    await pool.run('removeSessionPins', { client: clientId }).catch(() => undefined)
    await giveBack({ number: head.number, digest: head.digest })
    if (published === undefined) return { kind: 'unchanged', generation: head.number }
    return { kind: 'published', generation: published.number, changedBytes, sentBytes, verified: false }
  } catch (error) {
    if (Session.inspect(claim.sessionDirectory) === undefined) throw error // published; only the lease is left
    await session.close().catch(() => undefined)
    throw asNotPublished(error, request.vmPath)
  }
}

/** Its work is durable on the share: a failure to clean up is told and is none. */
function dropPublished(session: Session, notice: (text: string) => void): void {
  try {
    session.destroy()
  } catch (error) {
    notice(`the session could not be cleaned up (the next mount does it): ${messageOf(error)}`)
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
      await pool.run('removeSessionPins', { client: clientId }).catch(() => undefined)
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
export async function giveBackOwnLease({ notice }: RecoverRequest, pool: SharePool, clientId: string): Promise<void> {
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

export async function withVm<Result>(
  { vmPath, clientDirectory, notice }: RecoverRequest,
  use: (pool: SharePool, vmId: string, clientId: string) => Promise<Result>
): Promise<Result> {
  return onClientDisk(clientDirectory, async () => {
    const client = openClient(clientDirectory)
    if (client.wasCopied) notice(copiedNotice(clientDirectory))
    const pool = new SharePool(vmPath, { threads: 1 })
    try {
      return await use(pool, await findVm(pool, { vmPath, clientDirectory }), client.id)
    } finally {
      await closePool(pool)
    }
  })
}
