/**
 * Space on the client's disk for what the session is about to be given. The cache makes way first; then changes that are
 * cold go to the share before the suspend (commit/early-upload.ts).
 *
 *     free >= low water     nothing to do
 *     below low water       evict, then upload in the background
 *     below the headroom    creating, extending and opening for writing are refused with ENOSPC
 *     below the reserve     writes that the kernel has accepted are held: the rest is for the journal, which has to
 *                           record what was uploaded
 */
import fs from 'node:fs'
import { messageOf, PosixError } from '../base/errors.js'
import type { Cache } from '../cache/cache.js'
import type { EarlyUpload } from '../commit/early-upload.js'

export const HEADROOM_BYTES_DEFAULT = 64 * 1024 * 1024
const LOW_WATER_HEADROOMS = 1.5
const ENOUGH_HEADROOMS = 2
const RESERVE_HEADROOMS = 1 / 8
/** the file system is asked again after that many headrooms were written */
const LOOK_AGAIN_HEADROOMS = 1 / 16

export class Space {
  readonly #directory: string
  readonly #cache: Cache
  readonly #headroomBytes: number
  /** evicting makes space for the session only when both lie on one disk */
  readonly #oneDisk: boolean
  #upload: EarlyUpload | undefined
  #writtenSinceLook = Infinity
  #isBelowReserve = false

  constructor(sessionDirectory: string, cache: Cache, headroomBytes = HEADROOM_BYTES_DEFAULT) {
    this.#directory = sessionDirectory
    this.#cache = cache
    this.#headroomBytes = headroomBytes
    this.#oneDisk = isOneDisk(sessionDirectory, cache.directory)
  }

  /** From now on cold changes may go to the share when evicting is not enough. */
  useUpload(upload: EarlyUpload): void {
    this.#upload = upload
  }

  /** Whether there is enough for an upload to stop. */
  isEnough(): boolean {
    return this.freeBytes() >= this.#headroomBytes * ENOUGH_HEADROOMS
  }

  /** of the disk that has the session: the cache may have one of its own (--cache-dir) and is disposable */
  freeBytes(): number {
    return this.#ask().freeBytes
  }

  /** What a program may still use, and the size of the disk. */
  statistics(): { totalBytes: number; freeBytes: number } {
    const { totalBytes, freeBytes } = this.#ask()
    const usableBytes = Math.max(0, freeBytes - this.#headroomBytes) + this.#evictableBytes()
    return { totalBytes, freeBytes: Math.min(usableBytes, totalBytes) }
  }

  /** Throws ENOSPC when the file system should not grow by that much now. */
  require(bytes: number): void {
    const wanted = bytes + this.#headroomBytes
    let free = this.freeBytes()
    if (free < wanted && free + this.#evictableBytes() >= wanted) {
      this.#cache.evict(wanted - free)
      free = this.freeBytes()
    }
    if (free >= wanted) return
    void this.#upload?.makeSpace()
    throw new PosixError('ENOSPC', 'the disk of the client directory is full')
  }

  /** Before each write of an accepted page: false when it has to be held. */
  mayWrite(bytes: number): boolean {
    this.#writtenSinceLook += bytes
    if (this.#writtenSinceLook < this.#headroomBytes * LOOK_AGAIN_HEADROOMS && !this.#isBelowReserve) return true
    try {
      this.#look()
    } catch {
      this.#isBelowReserve = false // the write itself will say what the disk says
    }
    return !this.#isBelowReserve
  }

  /** The disk has refused a write. */
  makeRoom(bytes: number): void {
    if (this.#oneDisk) this.#cache.evict(bytes)
    void this.#upload?.makeSpace()
  }

  #look(): void {
    this.#writtenSinceLook = 0
    const free = this.freeBytes()
    this.#isBelowReserve = false
    const missing = this.#headroomBytes * LOW_WATER_HEADROOMS - free
    if (missing <= 0) return
    if (this.#evictableBytes() > 0) this.#cache.evict(missing)
    if (this.freeBytes() >= this.#headroomBytes * LOW_WATER_HEADROOMS) return
    void this.#upload?.makeSpace()
    const canUpload = this.#upload !== undefined && !this.#upload.isExhausted
    this.#isBelowReserve = canUpload && this.freeBytes() < this.#headroomBytes * RESERVE_HEADROOMS
  }

  #ask(): { totalBytes: number; freeBytes: number } {
    try {
      const { blocks, bavail, bsize } = fs.statfsSync(this.#directory)
      return { totalBytes: blocks * bsize, freeBytes: bavail * bsize }
    } catch (error) {
      throw new PosixError('EIO', `the space of ${this.#directory} cannot be asked for: ${messageOf(error)}`, {
        cause: error
      })
    }
  }

  #evictableBytes(): number {
    return this.#oneDisk ? this.#cache.bytes : 0
  }
}

/** A disk that cannot even say so is taken for another one: then nothing is evicted for the session's sake. */
function isOneDisk(first: string, second: string): boolean {
  try {
    return fs.statSync(first).dev === fs.statSync(second).dev
  } catch {
    return false
  }
}
