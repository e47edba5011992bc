/**
 * Claims a VM for writing, for a mount or for `isrfs recover`:
 *
 *     session lock (one process of this client) -> lease (one client) -> newest generation -> session left behind
 *
 * Invariants:
 * 1. The lease is taken before the listing is read; what is resumed is never older than the lease says.
 * 2. A session that was left behind is dropped only when its generation is on the share, and continued only on exactly
 *    the generation that it is based on, or on a checkpoint of its own. Anything else stops here, exit 5, with the session
 *    untouched.
 * 3. A failed claim gives the lease back, unless a session with changes needs it to be published.
 */
import fs from 'node:fs'
import path from 'node:path'
import { DirectoryLock } from '../base/file-lock.js'
import {
  IntegrityError,
  IsrfsError,
  LeaseHeldError,
  messageOf,
  NotPublishedError,
  FailedError
} from '../base/errors.js'
import { isSame } from '../commit/succession.js'
import type { SharePool } from '../fetch/share-pool.js'
import type { PublishedGeneration } from '../format/generations.js'
import { baseImageOf } from '../image/base-image.js'
import { IDENTITY_FILE, LOCK_FILE, removeSession } from '../session/identity.js'
import { Session, type SessionIdentity } from '../session/session.js'
import type { HeldLease } from '../share/lease.js'
import { askAllStatus } from './control-client.js'
import { leaseHolder } from './host.js'
import { keepCopy } from './keep-manifest.js'
import { rememberNewest } from './seen-generation.js'

const LISTING_WAIT_MS = 30_000
const LISTING_RETRY_MS = 1000

export interface ClaimRequest {
  readonly pool: SharePool
  readonly vmPath: string
  readonly vmId: string
  readonly clientId: string
  readonly clientDirectory: string
  /** named in the lease */
  readonly mountpoint: string
  readonly notice: (text: string) => void
  /** resume a generation older than one that this client has seen (a share restored from a backup) */
  readonly acceptRollback: boolean
}

/** What was left behind cannot become the next generation: somebody else has made one. `isrfs recover` makes it a branch. */
export class SessionConflictError extends NotPublishedError {}

export interface Claim {
  readonly lock: DirectoryLock
  readonly sessionDirectory: string
  readonly held: HeldLease
  readonly newest: PublishedGeneration
  /** what a session is based on: the newest generation, or, of one that has published checkpoints, an older one */
  readonly base: PublishedGeneration
  /** opened and replayed; undefined when nothing was left behind */
  readonly leftOver: Session | undefined
}

export function sessionDirectoryOf(clientDirectory: string, vmId: string): string {
  return path.join(clientDirectory, 'sessions', vmId)
}

export async function claimVm(request: ClaimRequest): Promise<Claim> {
  const sessionDirectory = sessionDirectoryOf(request.clientDirectory, request.vmId)
  const lock = await lockSession(sessionDirectory, request.vmPath)
  try {
    const holder = leaseHolder(request.clientId, request.mountpoint)
    const held = await request.pool.run('acquireLease', { holder }, { what: 'taking the lease' })
    if (held.takenBack !== undefined) {
      request.notice(`this client still held the lease (number ${String(held.takenBack)}); it was taken back`)
    }
    return await continueWith(request, sessionDirectory, lock, held)
  } catch (error) {
    lock.release()
    throw error
  }
}

/** Takes the lock of the VM's session, or LeaseHeldError when a process of this client has it. */
export async function lockSession(sessionDirectory: string, vmPath: string): Promise<DirectoryLock> {
  fs.mkdirSync(sessionDirectory, { recursive: true, mode: 0o700 })
  const lock = DirectoryLock.tryAcquire(path.join(sessionDirectory, LOCK_FILE))
  if (lock !== undefined) return lock
  const user = (await askAllStatus()).find((status) => status.vm === vmPath && status.lease !== 'none')
  if (user?.state === 'committing') {
    throw new LeaseHeldError(
      `the last mount of ${vmPath} (on ${user.mountpoint}) is still being published by process ${String(user.pid)}`,
      {
        hint: `wait for it: isrfs status shows how far it is`
      }
    )
  }
  const where =
    user === undefined
      ? 'already in use for writing'
      : `already mounted on ${user.mountpoint} (process ${String(user.pid)})`
  throw new LeaseHeldError(`${vmPath} is ${where} by this client`, {
    hint: 'isrfs status shows all mounts; a second mount can be --read-only'
  })
}

async function continueWith(
  request: ClaimRequest,
  sessionDirectory: string,
  lock: DirectoryLock,
  held: HeldLease
): Promise<Claim> {
  try {
    const newest = await findNewest(request, held)
    await rememberNewest(request, newest)
    await keepCopy(request, newest)
    const { leftOver, base } = await findLeftOver(request, sessionDirectory, newest)
    if (base.digest !== newest.digest) await keepCopy(request, base)
    return { lock, sessionDirectory, held, newest, base, leftOver }
  } catch (error) {
    const hasSession = fs.existsSync(path.join(sessionDirectory, IDENTITY_FILE))
    if (!hasSession || error instanceof NotPublishedError) {
      await request.pool.run('releaseLease', { held, generation: held.generation }).catch(() => undefined)
    }
    throw error
  }
}

/** Invariant 1. A directory listing may lag behind on NFS, so what the lease names is waited for. */
async function findNewest({ pool, vmPath, notice }: ClaimRequest, held: HeldLease): Promise<PublishedGeneration> {
  const deadline = Date.now() + LISTING_WAIT_MS
  for (let attempt = 0; ; attempt++) {
    const newest = await pool.run('newest', {}, { what: 'reading the newest generation' })
    const promised = held.generation
    if (promised === null || newest.number > promised.number) return newest
    if (newest.number === promised.number) {
      if (newest.digest === promised.digest) return newest
      throw new IntegrityError(`generation ${String(newest.number)} of ${vmPath} is not the one that was published`, {
        hint: `the share was changed behind isrfs, perhaps restored from a backup; mount it --read-only to look at it. When it is what you want: isrfs rollback ${vmPath} ${String(newest.number)} --accept-rollback`
      })
    }
    if (Date.now() > deadline) {
      throw new FailedError(
        `generation ${String(promised.number)} of ${vmPath} was published, but only ${String(newest.number)} can be seen`,
        {
          hint: `the share lags behind, has lost it, or was restored from a backup; try again. A client that has mounted it may have a copy of its manifest: there, isrfs check ${vmPath} --repair puts it back. Or mount --read-only to look at what is there. When generation ${String(promised.number)} is gone for good, make another one the newest: isrfs rollback ${vmPath} ${String(newest.number)} --accept-rollback`
        }
      )
    }
    if (attempt === 0) notice(`waiting for generation ${String(promised.number)} to become visible on the share`)
    await new Promise((resolve) => setTimeout(resolve, LISTING_RETRY_MS))
  }
}

/** Invariant 2. */
async function findLeftOver(
  { pool, vmPath, notice }: ClaimRequest,
  directory: string,
  newest: PublishedGeneration
): Promise<Pick<Claim, 'leftOver' | 'base'>> {
  const none = { leftOver: undefined, base: newest }
  const identity = Session.inspect(directory)
  if (identity === undefined) return none
  if (await dropIfPublished({ pool, notice }, directory, identity)) return none
  const checkpoint = Session.ownGenerationsOf(directory).find((own) => isSame(own, newest))
  if (identity.baseDigest !== newest.digest && checkpoint === undefined) {
    if (await isUnchanged({ pool, vmPath }, directory, identity)) return none
    throw new SessionConflictError(
      `a session from ${identity.createdIso} was left behind in ${directory}; it is based on generation ${String(identity.baseGeneration)} of ${vmPath}, but ${whyNotNewest(identity, newest)}`,
      {
        hint: `both cannot be the next generation. isrfs recover ${vmPath} keeps the session as a branch of the VM (isrfs rollback makes that the newest one); isrfs recover ${vmPath} --discard drops it`
      }
    )
  }
  const base = checkpoint === undefined ? newest : await readBase({ pool, vmPath }, directory, identity)
  const session = openLeftOver(directory, base, vmPath)
  if (checkpoint !== undefined) session.confirmCheckpoint(checkpoint)
  notice(
    `found the session that was left behind on ${identity.createdIso}; going on with it${describeRecovery(session)}`
  )
  return { leftOver: session, base }
}

function whyNotNewest({ baseGeneration }: SessionIdentity, { number, manifest }: PublishedGeneration): string {
  if (number > baseGeneration) return `${manifest.client.host} has published generation ${String(number)} since`
  return number === baseGeneration
    ? 'that generation is another one now: the share was restored from a backup or changed behind isrfs'
    : `the newest one is ${String(number)} now: the share was restored from a backup or changed behind isrfs`
}

/** The generation that a session is based on, wherever it stands in the history. Throws IntegrityError when it is another one. */
export async function readBase(
  { pool, vmPath }: Pick<ClaimRequest, 'pool' | 'vmPath'>,
  directory: string,
  { baseGeneration: number, baseDigest }: SessionIdentity
): Promise<PublishedGeneration> {
  const what = 'reading the base of the session'
  if ((await pool.run('digestOf', { number }, { what })) === undefined) {
    throw new IntegrityError(`the share has lost generation ${String(number)}, on which the session is based`, {
      hint: `nothing was changed, keep ${directory}; this client has kept a copy of its manifest: isrfs check ${vmPath} --repair puts it back`
    })
  }
  const base = await pool.run('generation', { number }, { what })
  if (base.digest === baseDigest) return base
  throw new IntegrityError(`the session is based on another generation ${String(base.number)} than the share shows`, {
    hint: `the share was restored from a backup or changed behind isrfs; nothing was changed, keep ${directory}`
  })
}

/** Whether the share has everything of this session already, as a generation or a branch: then it is removed. */
export async function dropIfPublished(
  { pool, notice }: Pick<ClaimRequest, 'pool' | 'notice'>,
  directory: string,
  { sessionId, baseGeneration: above }: SessionIdentity
): Promise<boolean> {
  const published = Session.publishedAs(directory)
  const found =
    published === undefined
      ? (await pool.run('findSession', { sessionId, above }, { what: 'looking for the session' }))?.name
      : (published.branch ?? String(published.generation))
  if (found === undefined) return false
  notice(`the session that was left behind had been published as generation ${found}; it was cleaned up`)
  removeSession(directory)
  return true
}

/** A session in which nothing was changed stands in nobody's way: it is removed. */
async function isUnchanged(
  vm: Pick<ClaimRequest, 'pool' | 'vmPath'>,
  directory: string,
  identity: SessionIdentity
): Promise<boolean> {
  const base = await readBase(vm, directory, identity).catch(() => undefined)
  if (base === undefined) return false
  const session = openLeftOver(directory, base)
  if (!session.isUntouched) {
    await session.close()
    return false
  }
  session.destroy()
  return true
}

export function openLeftOver(directory: string, newest: PublishedGeneration, vmPath?: string): Session {
  try {
    return Session.open(directory, baseImageOf(newest.manifest), vmPath === undefined ? {} : { vmPath })
  } catch (error) {
    if (error instanceof IsrfsError) throw error
    throw new FailedError(`the session in ${directory} cannot be opened: ${messageOf(error)}`, { cause: error })
  }
}

function describeRecovery({ recovered }: Session): string {
  if (recovered === undefined) return ''
  const { records, cutBytes, droppedPages } = recovered
  const torn = cutBytes > 0 ? `, ${cutBytes} bytes of a torn tail cut` : ''
  const dropped = droppedPages > 0 ? `, ${droppedPages} pages that were never synced are old again` : ''
  return ` (${records} changes${torn}${dropped})`
}
