/**
 * The session's region files: descriptors, reads and writes of pages, and which of them have bytes that are not on
 * the disk yet. A write error that the disk reports late stays with its file: no later fsync may succeed.
 */
import fs from 'node:fs'
import path from 'node:path'
import { LRUCache } from 'lru-cache'
import { closeQuietly } from '../base/close-quietly.js'
import { errnoOf, PosixError } from '../base/errors.js'
import { removeFileLater } from '../base/remove-later.js'
import { type InodeId, PAGE_BYTES, PAGES_PER_REGION, REGION_BYTES, ROOT_INODE } from '../base/units.js'
import { type Disk, diskError, lostOnDisk, writeFully } from './disk.js'
import { syncDirectoryLater } from './durable-file.js'
import { SharedRun } from './shared-run.js'
import type { RegionSharing } from './sharing.js'

const DESCRIPTORS_MAX = 512

/** pages of one file that are listed one by one until they are durable */
const LISTED_PAGES_MAX = 64

const NO_PAGES: ReadonlySet<number> = new Set()

export class Regions {
  readonly directory: string
  readonly #disk: Disk
  readonly #onLost: (inode: InodeId, why: string) => void
  readonly #neededBytes: (inode: InodeId, region: number) => number
  readonly #descriptors: LRUCache<string, number>
  /** regions with bytes that are not known to be on the disk here (the journal may have them) */
  readonly #unsynced = new Map<InodeId, Set<number>>()
  /** pages of the file with bytes that are durable nowhere; 'many': any of its unsynced regions */
  readonly #undurable = new Map<InodeId, Set<number> | 'many'>()
  readonly #syncs = new Map<InodeId, SharedRun>()
  readonly #failed = new Map<InodeId, PosixError>()
  /** files that were removed while their inode stays, and not made anew */
  readonly #removed = new Set<string>()
  #namesChanged = false
  readonly #names = new SharedRun(() => this.#syncNames())
  unsyncedBytes = 0
  #sharing: RegionSharing | undefined

  /**
   * `onLost` hears of each file of which the disk has dropped bytes that it had taken; `neededBytes` tells up to where a
   * region file has bytes that count.
   */
  constructor(
    directory: string,
    disk: Disk,
    onLost: (inode: InodeId, why: string) => void,
    neededBytes: (inode: InodeId, region: number) => number
  ) {
    this.#onLost = onLost
    this.#neededBytes = neededBytes
    this.directory = directory
    this.#disk = disk
    this.#descriptors = new LRUCache({
      max: DESCRIPTORS_MAX,
      dispose: (descriptor) => {
        closeQuietly(descriptor) // late write errors come from the fdatasync of the sync
      }
    })
  }

  share(sharing: RegionSharing): void {
    this.#sharing = sharing
  }

  /**
   * Whether others may write to valid pages of the region: the next sync of the file goes to the region files, and to this
   * one, whatever they do; `listedMax` pages would travel in the journal. From then on no page of the file will.
   */
  maySharedWrite(inode: InodeId, region: number, listedMax: number): boolean {
    if (this.#failed.has(inode) || this.#unsynced.get(inode)?.has(region) !== true) return false
    const pages = this.#undurable.get(inode)
    if (pages === undefined || (pages !== 'many' && pages.size <= listedMax)) return false
    this.#undurable.set(inode, 'many')
    return true
  }

  pathOf(inode: InodeId, region: number): string {
    return path.join(this.directory, keyOf(inode, region))
  }

  /** The region file may have bytes that are not on the disk, and its name may not be there either. */
  distrust(inode: InodeId, region: number): void {
    if (!fs.existsSync(this.pathOf(inode, region))) return // it had holes only, or reading it will say what is wrong
    this.#mark(inode, region)
    this.#undurable.set(inode, 'many')
    this.#namesChanged = true
  }

  write(inode: InodeId, region: number, bytes: Uint8Array, offset: number, length: number, position: number): void {
    this.#mark(inode, region)
    this.#list(inode, region * PAGES_PER_REGION + position / PAGE_BYTES, length / PAGE_BYTES)
    this.unsyncedBytes += length
    try {
      writeFully(this.#disk, this.#descriptor(inode, region, true), bytes, offset, length, position)
    } catch (error) {
      throw diskError(error, 'cannot write to the session')
    }
  }

  read(inode: InodeId, region: number, into: Uint8Array, position: number): void {
    try {
      const descriptor = this.#descriptor(inode, region, false)
      let done = 0
      while (done < into.length) {
        const count = fs.readSync(descriptor, into, done, into.length - done, position + done)
        if (count === 0) throw new PosixError('EIO', `the session's ${this.pathOf(inode, region)} is too short`)
        done += count
      }
    } catch (error) {
      throw diskError(error, 'cannot read the session')
    }
  }

  /**
   * Pages of the file whose bytes are durable nowhere, or undefined when they are too many to list, when nobody knows, or
   * when a sync that is under way may fail for earlier ones.
   */
  undurablePages(inode: InodeId): ReadonlySet<number> | undefined {
    if (this.#failed.has(inode) || this.#syncs.get(inode)?.isRunning === true) return undefined
    const pages = this.#undurable.get(inode)
    if (pages === undefined) return NO_PAGES
    return pages === 'many' ? undefined : pages
  }

  /** The journal has the bytes of all its undurable pages, or will fail for good. */
  noteJournaled(inode: InodeId): void {
    this.#undurable.delete(inode)
    this.#noteDurable()
  }

  /** Makes everything durable that was written to the file before the call. */
  async sync(inode: InodeId): Promise<void> {
    let run = this.#syncs.get(inode)
    if (run === undefined) this.#syncs.set(inode, (run = new SharedRun(() => this.#syncInode(inode))))
    await run.run()
  }

  async syncAll(): Promise<void> {
    for (const inode of new Set([...this.#unsynced.keys(), ...this.#syncs.keys()])) await this.sync(inode)
    await this.#names.run()
  }

  /** A write error of this file that nobody may forget. */
  fail(inode: InodeId, error: PosixError): void {
    this.#failed.set(inode, error)
    this.#onLost(inode, error.message)
  }

  /** Forgets a removed file's pending work; its bytes are removed by the caller once that is durable. */
  drop(inode: InodeId): void {
    this.#unsynced.delete(inode)
    this.#undurable.delete(inode)
    this.#syncs.delete(inode)
    this.#failed.delete(inode)
    for (const key of [...this.#descriptors.keys()])
      if (key.startsWith(`${String(inode)}-`)) this.#descriptors.delete(key)
  }

  /** Removes a region's file: the caller knows that no page of it counts any more, after a crash neither. */
  remove(inode: InodeId, region: number): void {
    const key = keyOf(inode, region)
    this.#removed.add(key)
    this.#unsynced.get(inode)?.delete(region)
    this.#descriptors.delete(key)
    try {
      removeFileLater(this.pathOf(inode, region), path.dirname(this.directory))
    } catch {
      // it takes space until the session ends
    }
  }

  #mark(inode: InodeId, region: number): void {
    const regions = this.#unsynced.get(inode)
    if (regions === undefined) this.#unsynced.set(inode, new Set([region]))
    else regions.add(region)
  }

  /** Positions in pages, fractions included. */
  #list(inode: InodeId, position: number, length: number): void {
    const known = this.#undurable.get(inode)
    if (known === 'many') return
    const pages = known ?? new Set()
    const end = position + length
    if (known === undefined) this.#undurable.set(inode, pages)
    if (pages.size + length > LISTED_PAGES_MAX) this.#undurable.set(inode, 'many')
    else for (let page = Math.floor(position); page < end; page++) pages.add(page)
  }

  #noteDurable(): void {
    if (this.#undurable.size === 0) this.unsyncedBytes = 0
  }

  close(): void {
    this.#descriptors.clear()
  }

  async #syncInode(inode: InodeId): Promise<void> {
    this.#sharing?.endWrites(inode) // what comes from now on is a later sync's
    const regions = this.#unsynced.get(inode)
    this.#unsynced.delete(inode)
    this.#undurable.delete(inode)
    for (const region of regions ?? []) {
      let handle: fs.promises.FileHandle | undefined
      try {
        handle = await fs.promises.open(this.pathOf(inode, region), 'r+')
        await this.#disk.datasync(handle.fd)
      } catch (error) {
        if (!this.#syncs.has(inode)) return // dropped meanwhile: the file is gone on purpose
        if (errnoOf(error) === 'ENOENT' && this.#removed.has(keyOf(inode, region))) continue
        this.fail(inode, lostOnDisk(error, 'bytes of this file could not be made durable'))
      } finally {
        await handle?.close()
      }
    }
    await this.#names.run()
    this.#noteDurable()
    const failed = this.#failed.get(inode)
    if (failed !== undefined) throw failed
  }

  async #syncNames(): Promise<void> {
    if (!this.#namesChanged) return
    this.#namesChanged = false
    try {
      await syncDirectoryLater(this.directory)
    } catch (error) {
      this.#namesChanged = true
      const failure = lostOnDisk(error, 'names of files with changed bytes could not be made durable')
      this.#onLost(ROOT_INODE, failure.message)
      throw failure
    }
  }

  /**
   * A valid page without a file is lost, and a new or a longer file would show zeros in its place: reading makes no file,
   * and writing makes none, and lengthens none, that has pages which count.
   */
  #descriptor(inode: InodeId, region: number, create: boolean): number {
    const key = keyOf(inode, region)
    const known = this.#descriptors.get(key)
    if (known !== undefined) return known
    const file = this.pathOf(inode, region)
    const flags = fs.constants.O_RDWR | fs.constants.O_NOFOLLOW
    const isNew = create && this.#neededBytes(inode, region) === 0 && !fs.existsSync(file)
    const descriptor = fs.openSync(file, isNew ? flags | fs.constants.O_CREAT : flags, 0o600)
    try {
      if (isNew) {
        this.#removed.delete(key)
        this.#namesChanged = true
        fs.ftruncateSync(descriptor, REGION_BYTES) // sparse
      } else if (create && fs.fstatSync(descriptor).size < this.#neededBytes(inode, region)) {
        throw new PosixError('EIO', `the session's ${file} is too short`)
      }
    } catch (error) {
      closeQuietly(descriptor)
      throw error
    }
    this.#descriptors.set(key, descriptor)
    return descriptor
  }
}

function keyOf(inode: InodeId, region: number): string {
  return `${String(inode)}-${String(region)}`
}
