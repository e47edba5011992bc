/**
 * The system calls that carry a session's bytes, behind one small interface: tests put a failing disk in its place.
 * Everything else (opening, renaming, listing) goes to node:fs directly.
 */
import fs from 'node:fs'
import { errnoOf, messageOf, PosixError } from '../base/errors.js'

export interface Disk {
  /** pwrite: the count may be short */
  write(descriptor: number, bytes: Uint8Array, offset: number, length: number, position: number): number
  /** fdatasync outside the main thread */
  datasync(descriptor: number): Promise<void>
  /** the same in the main thread; without it everything is done outside (quick-sync.ts) */
  datasyncAtOnce?(descriptor: number): void
}

export const realDisk: Disk = {
  write: (descriptor, bytes, offset, length, position) => fs.writeSync(descriptor, bytes, offset, length, position),
  datasync: (descriptor) =>
    new Promise((resolve, reject) => {
      fs.fdatasync(descriptor, (error) => {
        if (error === null) resolve()
        else reject(error)
      })
    }),
  datasyncAtOnce: (descriptor) => {
    fs.fdatasyncSync(descriptor)
  }
}

/** Writes all of `length` bytes or throws; what lies on the disk after a failure is undefined in that range only. */
export function writeFully(
  disk: Disk,
  descriptor: number,
  bytes: Uint8Array,
  offset: number,
  length: number,
  position: number
): void {
  let done = 0
  while (done < length) {
    const count = disk.write(descriptor, bytes, offset + done, length - done, position + done)
    if (count <= 0) throw new PosixError('EIO', 'a write to the session made no progress')
    done += count
  }
}

/** Full disks are ENOSPC, everything else that a local disk can answer is EIO: the two errors a guest understands. */
export function diskError(error: unknown, what: string): PosixError {
  const errno = errnoOf(error)
  const full = errno === 'ENOSPC' || errno === 'EDQUOT'
  return new PosixError(full ? 'ENOSPC' : 'EIO', `${what}: ${messageOf(error)}`, { cause: error })
}

/**
 * The disk has dropped bytes that it had taken. EIO whatever it said: bytes that are gone do not come back when there is
 * space again, and the next fdatasync may succeed.
 */
export function lostOnDisk(error: unknown, what: string): PosixError {
  return new PosixError('EIO', `${what}: ${messageOf(error)}`, { cause: error })
}
