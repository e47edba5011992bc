/** Everything that one mount owns below the file system: opened in the order in which it can fail, closed backwards. */
import { randomBytes } from 'node:crypto'
import path from 'node:path'
import { IntegrityError } from '../base/errors.js'
import { sweepRemoved } from '../base/remove-later.js'
import { Cache } from '../cache/cache.js'
import { noteOrigin } from '../cache/origin.js'
import { SharePool } from '../fetch/share-pool.js'
import { MOUNT_THREADS } from '../fetch/share-threads.js'
import type { PublishedBranch, PublishedGeneration } from '../format/generations.js'
import { baseImageOf } from '../image/base-image.js'
import { type Client, copiedNotice, openClient } from '../session/client.js'
import { Session } from '../session/session.js'
import type { GenerationReference, HeldLease } from '../share/lease.js'
import { claimVm } from './claim.js'
import { onClientDisk } from './client-disk.js'
import { findVm } from './find-vm.js'
import { leaseHolder } from './host.js'
import { keepCopy } from './keep-manifest.js'
import { type Log, quietly } from './log.js'
import { mayPublish, type MountRequest } from './request.js'
import { LeaseRight, PinRight, type Right } from './right.js'
import { noticeIfOlder, rememberNewest } from './seen-generation.js'
import { createPrivateDirectory } from './private-session.js'
import { closePool } from './share-threads.js'
import { withinMs } from './within.js'

/** names of directories below the client directory, and below the cache */
const VM_ID = /^[0-9a-f]{32}$/
const CACHE_SLOT = /^\d+$/
const RELEASE_MS_MAX = 15_000

export interface OpenedVm {
  readonly pool: SharePool
  readonly client: Client
  /** the generation that is shown, and that the session is based on; it may have published checkpoints since */
  readonly base: PublishedGeneration
  readonly session: Session
  readonly cache: Cache
  readonly right: Right
  /** undefined when this mount never publishes */
  readonly held: HeldLease | undefined
  /** Lets go of what is local. The session is closed or destroyed before. */
  release(): Promise<void>
}

export interface Opening {
  readonly request: MountRequest
  readonly log: Log
  readonly notice: (text: string) => void
  /** throws when the start was given up meanwhile */
  readonly checkpoint: () => void
}

/** Rejects with an IsrfsError; what this client's own disk refuses is FailedError. */
export function openVm(opening: Opening): Promise<OpenedVm> {
  return onClientDisk(opening.request.clientDirectory, () => open(opening))
}

async function open(opening: Opening): Promise<OpenedVm> {
  const { request, notice } = opening
  const client = openClient(request.clientDirectory)
  if (client.wasCopied) notice(copiedNotice(request.clientDirectory))
  sweepRemoved(path.join(request.clientDirectory, 'sessions'), VM_ID)
  sweepRemoved(path.join(request.clientDirectory, 'private'))
  sweepRemoved(request.cacheDirectory, VM_ID, CACHE_SLOT)
  const pool = new SharePool(request.vmPath, { threads: MOUNT_THREADS })
  try {
    const vm = await findVm(pool, request)
    opening.checkpoint()
    const claimed = mayPublish(request)
      ? await openForWriting(opening, pool, client, vm)
      : await openPrivately(opening, pool, client, vm)
    try {
      opening.checkpoint()
      const cache = openCache(opening, vm)
      const release = async (): Promise<void> => {
        await cache.close().finally(() => claimed.unlock())
        await closePool(pool)
      }
      return { ...claimed, pool, client, cache, release }
    } catch (error) {
      await abandon(claimed)
      claimed.unlock()
      throw error
    }
  } catch (error) {
    await closePool(pool)
    throw error
  }
}

/** A mount that will not be: leaves the share and this client as they were, but keeps a session with changes. */
export async function abandon({ session, right, base }: Pick<OpenedVm, 'base' | 'session' | 'right'>): Promise<void> {
  if (!session.isUntouched && !session.identity.discard) {
    right.stop()
    await session.close()
    return
  }
  const newest = newestOf({ session, base })
  session.destroy()
  await withinMs(right.giveBack(newest), RELEASE_MS_MAX).catch(() => false)
}

/** The newest generation that this mount knows of: its base, or a checkpoint that its session has published. */
export function newestOf({ session, base }: Pick<OpenedVm, 'session' | 'base'>): GenerationReference {
  const { checkpoint } = session
  if (checkpoint === undefined) return { number: base.number, digest: base.digest }
  return { number: checkpoint.generation, digest: checkpoint.digest }
}

interface Claimed extends Pick<OpenedVm, 'base' | 'session' | 'right' | 'held'> {
  unlock(): void
}

async function openForWriting(
  { request, log, notice }: Opening,
  pool: SharePool,
  client: Client,
  vmId: string
): Promise<Claimed> {
  const { vmPath, clientDirectory, mountpoint, acceptRollback } = request
  const clientId = client.id
  const claim = await claimVm({ pool, vmPath, vmId, clientId, clientDirectory, mountpoint, notice, acceptRollback })
  const { held, newest, base, sessionDirectory, lock } = claim
  try {
    const session =
      claim.leftOver ?? newSession(sessionDirectory, { vmPath, vmId, client: client.id, base, held, discard: false })
    return { base, session, held, right: new LeaseRight(pool, log, held), unlock: () => lock.release() }
  } catch (error) {
    // A full disk, say. Nothing was changed: nobody else has to wait for this client.
    const generation = { number: newest.number, digest: newest.digest }
    const released = pool.run('releaseLease', { held, generation }, { what: 'giving the lease back' })
    await withinMs(released, RELEASE_MS_MAX).catch(() => false)
    lock.release()
    throw error
  }
}

async function openPrivately(
  { request, log, notice }: Opening,
  pool: SharePool,
  client: Client,
  vmId: string
): Promise<Claimed> {
  const { generation, branch } = request
  const readBranch = (name: string): Promise<PublishedBranch> =>
    pool.run('branch', { name }, { what: `reading branch ${name}` })
  const readGeneration = (number: number): Promise<PublishedGeneration> =>
    pool.run('generation', { number }, { what: `reading generation ${String(number)}` })
  const base =
    branch !== null
      ? await readBranch(branch)
      : generation === null
        ? await pool.run('newest', {}, { what: 'reading the newest generation' })
        : await readGeneration(generation)
  if (branch === null && generation === null) {
    const { vmPath, clientDirectory, acceptRollback } = request
    const check = { pool, vmPath, vmId, clientDirectory, acceptRollback }
    // a VM runs on a --discard mount, and would believe what it shows
    await (request.discard ? rememberNewest(check, base) : noticeIfOlder(check, base, notice))
  }
  const directory = createPrivateDirectory(request.clientDirectory)
  const session = newSession(directory.path, {
    vmPath: request.vmPath,
    vmId,
    client: client.id,
    base,
    held: undefined,
    discard: true
  })
  const holder = leaseHolder(client.id, request.mountpoint)
  const right = await PinRight.create(pool, log, holder, base.number)
  try {
    // a prune that saw no pin yet may have buried it meanwhile
    await (branch === null ? readGeneration(base.number) : readBranch(branch))
    const { clientDirectory } = request
    await keepCopy({ pool, clientDirectory, vmId }, base) // a branch comes with its name
  } catch (error) {
    await abandon({ base, session, right })
    directory.remove()
    throw error
  }
  return { base, session, held: undefined, right, unlock: () => directory.remove() }
}

interface NewSession {
  readonly vmPath: string
  readonly vmId: string
  readonly client: string
  readonly base: PublishedGeneration
  readonly held: HeldLease | undefined
  readonly discard: boolean
}

function newSession(directory: string, { vmPath, vmId, client, base, held, discard }: NewSession): Session {
  if (base.manifest.vm !== vmId) {
    throw new IntegrityError(`generation ${String(base.number)} belongs to VM ${base.manifest.vm}, not to this one`, {
      hint: 'directories of two VMs on the share were mixed up: restore them from a backup'
    })
  }
  const identity = {
    sessionId: randomBytes(16).toString('hex'),
    vmId,
    client,
    baseGeneration: base.number,
    baseDigest: base.digest,
    createdIso: new Date().toISOString(),
    leaseNumber: held?.number ?? null,
    discard,
    vmPath
  }
  return Session.create(directory, identity, baseImageOf(base.manifest))
}

function openCache({ request, log }: Opening, vmId: string): Cache {
  const quiet = quietly(log)
  const cache = Cache.open({
    directory: path.join(request.cacheDirectory, vmId),
    bytesMax: request.cacheBytesMax,
    onWarning: (message) => quiet.warn(message)
  })
  noteOrigin(cache.directory, request.vmPath)
  return cache
}
