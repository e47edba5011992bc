/** Publishes, or drops, a session that was left behind, without mounting it. One-shot: no control socket. */
import path from 'node:path'
import { IsrfsError, LeaseHeldError, messageOf } from '../base/errors.js'
import { sweepRemoved } from '../base/remove-later.js'
import { commitSession } from '../commit/commit.js'
import { SharePool } from '../fetch/share-pool.js'
import { copiedNotice, openClient } from '../session/client.js'
import { removeSession } from '../session/identity.js'
import { Session } from '../session/session.js'
import { adoptSession } from './adopt.js'
import {
  type Claim,
  claimVm,
  dropIfPublished,
  lockSession,
  openLeftOver,
  SessionConflictError,
  sessionDirectoryOf
} from './claim.js'
import { onClientDisk } from './client-disk.js'
import { describeSession, type Dropped } from './discard-left-over.js'
import { findVm } from './find-vm.js'
import { hostName, leaseHolder } from './host.js'
import { noLog } from './log.js'
import { findBase, overSalvagedBase } from './lost-base.js'
import type { Outcome, Progress } from './messages.js'
import { LeaseRight } from './right.js'
import { WentBackError } from './seen-generation.js'
import { asNotPublished } from './settle.js'
import { closePool } from './share-threads.js'

export interface RecoverRequest {
  readonly vmPath: string
  readonly clientDirectory: string
  /** where blocks of a base may be that the share has lost; below the client directory unless given */
  readonly cacheDirectory?: string
  /** publish although writes, or parts of the base, were lost */
  readonly acceptLoss?: boolean
  /** publish on a share that shows less than this client has seen, which may be a wrong one */
  readonly acceptRollback?: boolean
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
      const isWentBack = error instanceof WentBackError
      const isLost = error instanceof SessionConflictError || error instanceof LeaseHeldError || isWentBack
      if (!isLost || (isWentBack && request.acceptRollback !== true)) throw error
      const outcome = await publishBranch(request, pool, vmId, clientId, error)
      if (isWentBack) await giveBackOwnLease(request, pool, clientId) // the claim has taken it, and kept it for the session
      return outcome
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
    const acceptLoss = request.acceptLoss === true
    const { cacheDirectory = path.join(clientDirectory, 'cache') } = request
    const onStep = (): void => onProgress({ phase: 'maps', doneBytes: 0, totalBytes: 0, sentBytes: 0 })
    const vm = { pool, vmPath, vmId, clientDirectory, cacheDirectory, acceptLoss, notice, onStep }
    const { base: found, isLost: isBaseLost } = await findBase(vm, directory, identity)
    let base = found
    let session = openLeftOver(directory, base, vmPath)
    try {
      if (isBaseLost) ({ session, base } = await overSalvagedBase(vm, directory, session, base))
      const client = { id: clientId, host: hostName() }
      const why = refusal instanceof WentBackError ? { whyNotHeld: refusal.message } : {}
      const how = { verify: false, acceptLoss, isBaseLost, ...why, onProgress }
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
  // an upload may take an hour: whoever thinks of breaking the lease has to see that its holder lives
  const right = new LeaseRight(pool, noLog(), held)
  try {
    if (session === undefined) {
      await pool.run('removeSessionPins', { client: clientId }).catch(() => undefined)
      await right.giveBack({ number: newest.number, digest: newest.digest })
      return undefined
    }
    return await publishSession(
      request,
      pool,
      { session, base, held, right, sessionDirectory: claim.sessionDirectory },
      clientId
    )
  } finally {
    right.stop()
  }
}

async function publishSession(
  request: RecoverRequest,
  pool: SharePool,
  claimed: Pick<Claim, 'base' | 'held' | 'sessionDirectory'> & {
    readonly session: Session
    readonly right: LeaseRight
  },
  clientId: string
): Promise<Outcome | undefined> {
  const { session, base, held, right } = claimed
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
    await right.giveBack({ number: head.number, digest: head.digest })
    if (published === undefined) return { kind: 'unchanged', generation: head.number }
    return { kind: 'published', generation: published.number, changedBytes, sentBytes, verified: false }
  } catch (error) {
    if (Session.inspect(claimed.sessionDirectory) === undefined) throw error // published; only the lease is left
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

/** Drops what was left behind, after `tell` was told what that is. undefined: there was nothing. */
export async function discardSession(
  request: RecoverRequest,
  tell: (dropped: Dropped) => void
): Promise<Dropped | undefined> {
  return withVm(request, async (pool, vmId, clientId) => {
    const { vmPath, clientDirectory } = request
    const directory = sessionDirectoryOf(clientDirectory, vmId)
    const lock = await lockSession(directory, vmPath)
    try {
      const dropped = await describeSession({ pool, vmPath, vmId, clientDirectory }, directory)
      if (dropped !== undefined) tell(dropped)
      removeSession(directory)
      await pool.run('removeSessionPins', { client: clientId }).catch(() => undefined)
      await giveBackOwnLease(request, pool, clientId)
      return dropped
    } finally {
      lock.release()
    }
  })
}

/** The session that is gone may have been the reason why this client still holds the lease. */
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
      const vmId = await findVm(pool, { vmPath, clientDirectory })
      sweepRemoved(sessionDirectoryOf(clientDirectory, vmId))
      return await use(pool, vmId, client.id)
    } finally {
      await closePool(pool)
    }
  })
}
