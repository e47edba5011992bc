/**
 * The lease of an import that makes a VM's next generation: taken before the newest generation is read, renewed while
 * the import runs, given back at its end. A mount of the same client is somebody else here: its lease is not taken.
 */
import os from 'node:os'
import { FailedError, LeaseHeldError } from '../base/errors.js'
import type { PublishedGeneration } from '../format/generations.js'
import { currentBootId } from '../session/boot.js'
import {
  acquireLease,
  describeHolder,
  type GenerationReference,
  type HeldLease,
  type LeaseHolder,
  readLease
} from '../share/lease.js'
import type { Share } from '../share/share.js'
import { startOfProcess } from './import-owner.js'

/** what a lease says instead of a mountpoint */
export const IMPORT_MOUNTPOINT = '(import)'

export interface ImportClient {
  /** random id of the client directory */
  readonly id: string
  readonly host: string
}

export function acquireImportLease(share: Share, client: ImportClient): HeldLease {
  const current = readLease(share)
  if (current !== undefined && current.released === undefined && current.lease.holder.client === client.id) {
    const { holder } = current.lease
    if (holder.mountpoint !== IMPORT_MOUNTPOINT) {
      throw new LeaseHeldError(`this client has ${share.root} itself: ${describeHolder(current)}`, {
        hint: `unmount it first (isrfs unmount ${holder.mountpoint}), or, when its session was left behind: isrfs recover ${share.root}`
      })
    }
    if (holder.boot === currentBootId() && holder.pid !== process.pid && startOfProcess(holder.pid) !== undefined) {
      throw new LeaseHeldError(`another import to ${share.root} is running: ${describeHolder(current)}`, {
        hint: 'wait for it, or stop it'
      })
    }
  }
  return acquireLease(share, importHolder(client))
}

/** The generation that the lease promises has to be found; an older one must not be built upon. */
export function checkPromised(share: Share, held: HeldLease, newest: PublishedGeneration): void {
  if (held.generation === null || isPromiseKept(held, { number: newest.number, reference: newest })) return
  throw promiseBroken(share, held.generation, newest.number, {
    hint: `wait until the share shows it (NFS clients can lag for up to a minute) and repeat. When it is gone, because the share was restored from a backup, make another one the newest: isrfs rollback ${share.root} <n> --accept-rollback`
  })
}

/** Whether the newest generation is the one that the lease promises, or a later one. */
export function isPromiseKept(
  { generation: promised }: Pick<HeldLease, 'generation'>,
  newest: { readonly number: number; readonly reference: Pick<GenerationReference, 'digest'> | undefined }
): boolean {
  if (promised === null || newest.number > promised.number) return true
  return newest.number === promised.number && newest.reference?.digest === promised.digest
}

export function promiseBroken(
  share: Share,
  promised: GenerationReference,
  newest: number,
  details: { readonly hint: string }
): FailedError {
  const what =
    promised.number === newest
      ? `generation ${String(newest)} is another one here`
      : `the newest one that is seen here is ${String(newest)}`
  return new FailedError(`the lease of ${share.root} names generation ${String(promised.number)}, but ${what}`, details)
}

export function referenceTo(generation: PublishedGeneration): GenerationReference {
  return { number: generation.number, digest: generation.digest }
}

export function importHolder(client: ImportClient): LeaseHolder {
  return {
    client: client.id,
    host: client.host,
    user: userName(),
    pid: process.pid,
    boot: currentBootId(),
    mountpoint: IMPORT_MOUNTPOINT
  }
}

function userName(): string {
  try {
    return os.userInfo().username
  } catch {
    return String(process.getuid?.() ?? '') // a user id without a name
  }
}
