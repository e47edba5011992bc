/**
 * The cache: this client's copies of blocks of generations, disposable at any moment.
 *
 * Invariants:
 * 1. A guest never writes here: bytes come from decoded, verified blocks only.
 * 2. `present` is set for a block only when its bytes were verified in this mount: just fetched, or read from the
 *    region file and compared with the digest that the current map names. A footer is only a claim.
 * 3. One process owns a slot directory (a lock), so nobody else writes into its regions.
 * 4. Evicting is unlink, for which nobody waits but who asks for space; what the LRU has dropped has no state left in memory.
 * 5. Nobody but this user may write to the slot directory, those above it that are made here, or a region file: what was
 *    verified stays what it was. A region file of somebody else is removed.
 * 6. Others may read present blocks from the region files (share()) until they are told, before something of that changes.
 * 7. Threads write blocks that are not present into region files, between beginLanding and endLanding (landing.ts). Nothing else
 *    is written at that place meanwhile.
 * Only the thread that serves FUSE calls this; every method is one synchronous step, but for flush and close.
 */
import fs from 'node:fs'
import path from 'node:path'
import { LRUCache } from 'lru-cache'
import { anyBit, clearBit, getBit, setBit } from '../base/bits.js'
import { closeQuietly } from '../base/close-quietly.js'
import { DIGEST_BYTES } from '../base/digest.js'
import { errnoOf, FailedError, messageOf } from '../base/errors.js'
import { DirectoryLock } from '../base/file-lock.js'
import { isOwnFile, makeOwnDirectory } from '../base/own-directory.js'
import { removeFileLater } from '../base/remove-later.js'
import { BLOCK_BYTES, BLOCKS_PER_REGION, type InodeId, REGION_BYTES, toInodeId } from '../base/units.js'
import { closeGate, createGate, hasWriters, type Landing } from './landing.js'
import { digestAt, emptyDigests, readFooter, writeBlock, writeFooter } from './region-file.js'

const SLOTS_MAX = 16
const DESCRIPTORS_MAX = 256
const CLAIMS_MAX = 1024
const FLUSH_INTERVAL_MS = 3000
const WRITERS_WAIT_MS_MAX = 10_000
const NO_DIGEST = Buffer.alloc(DIGEST_BYTES)
export const CACHE_BYTES_MIN = 64 * 1024 * 1024

export interface CachedRegion {
  /** verified in this mount */
  readonly present: Uint32Array
  /** all-zero blocks by the current map; undefined until the map page was looked at */
  zero: Uint32Array | undefined
  /** fetched ahead of any reader, and not read yet; undefined: none */
  ahead: Uint32Array | undefined
  /** fetched because an earlier resume had read it, whether it was read in this one or not; undefined: none */
  foretold: Uint32Array | undefined
  /** named by the footer that the mount found; undefined until somebody asked (kept()) */
  kept: Uint32Array | undefined
  /** blocks of which the file has nothing yet, because this mount has made it; undefined: nobody knows */
  holes: Uint32Array | undefined
  /** bytes on disk, about */
  diskBytes: number
}

/** A block that a thread has written. */
export interface Landed {
  readonly digest: Buffer
  /** that it has taken in the file */
  readonly diskBytes: number
  /** nobody has compared it with its digest: a later mount may find it, after it has */
  readonly isClaim?: boolean
}

export interface CacheOptions {
  /** directory of this VM's cache; slots are made below it */
  readonly directory: string
  readonly bytesMax: number
  readonly onWarning: (message: string) => void
}

/** Before blocks of a region do not count any more, or its file goes: returns when nobody else reads it. */
export type OnRegionLost = (inode: InodeId, index: number) => void

export class Cache {
  /** the slot that this process owns */
  readonly directory: string
  evictedBytes = 0
  /** how often blocks that were here have gone */
  losses = 0
  /** what it may take on the disk */
  readonly bytesMax: number
  readonly #lock: DirectoryLock
  readonly #onWarning: (message: string) => void
  readonly #regions: LRUCache<string, CachedRegion>
  readonly #descriptors: LRUCache<string, number>
  readonly #claims = new LRUCache<string, Buffer>({ max: CLAIMS_MAX })
  /** regions with data that no footer names yet: key -> all digests of the region */
  readonly #unflushed = new Map<string, Buffer>()
  readonly #timer: NodeJS.Timeout
  readonly #gate = createGate()
  /** by region: blocks that threads are writing */
  readonly #landings = new Map<string, Map<number, { counts: boolean }>>()
  /** map objects that are being written */
  readonly #keeping = new Set<Promise<void>>()
  #flushing: Promise<void> = Promise.resolve()
  #onRegionLost: OnRegionLost = () => undefined
  #full = false
  /** somebody waits for the space of what is evicted */
  #makesRoom = false
  #closed = false

  static open(options: CacheOptions): Cache {
    const own = { option: '--cache-dir' }
    fs.mkdirSync(path.dirname(options.directory), { recursive: true, mode: 0o700 })
    makeOwnDirectory(options.directory, own)
    for (let slot = 0; slot < SLOTS_MAX; slot++) {
      const directory = path.join(options.directory, String(slot))
      makeOwnDirectory(directory, own)
      makeOwnDirectory(path.join(directory, 'maps'), own)
      const lock = DirectoryLock.tryAcquire(path.join(directory, 'lock'))
      if (lock !== undefined) return new Cache(directory, lock, options)
    }
    throw new FailedError(`all ${String(SLOTS_MAX)} caches below ${options.directory} are in use by other mounts`, {
      hint: 'unmount one of them, or use another --cache-dir'
    })
  }

  private constructor(directory: string, lock: DirectoryLock, options: CacheOptions) {
    this.directory = directory
    this.#lock = lock
    this.#onWarning = options.onWarning
    this.bytesMax = Math.max(options.bytesMax, CACHE_BYTES_MIN)
    this.#regions = new LRUCache({
      maxSize: this.bytesMax,
      sizeCalculation: (region) => Math.max(1, region.diskBytes),
      dispose: (region, key, reason) => {
        if (reason === 'evict') this.#drop(key, region)
      }
    })
    this.#descriptors = new LRUCache({
      max: DESCRIPTORS_MAX,
      dispose: (fd) => {
        closeQuietly(fd)
      }
    })
    this.#timer = setInterval(() => void this.flush(), FLUSH_INTERVAL_MS)
    this.#timer.unref()
    void this.#scan()
  }

  /** Bytes of cached blocks on disk. */
  get bytes(): number {
    return this.#regions.calculatedSize
  }

  /** The region's state, created empty when it was not touched yet. Marks it as used. */
  region(inode: InodeId, index: number): CachedRegion {
    const key = regionKey(inode, index)
    let region = this.#regions.get(key)
    if (region === undefined) {
      region = emptyRegion(1)
      this.#regions.set(key, region)
    }
    return region
  }

  /** The region's state when it has one; it does not count as used. */
  knownRegion(inode: InodeId, index: number): CachedRegion | undefined {
    return this.#regions.peek(regionKey(inode, index))
  }

  /**
   * Blocks that an earlier mount has left in the region file. For people who look: these count for readers only when they were
   * verified.
   */
  kept(inode: InodeId, index: number, region: CachedRegion): Uint32Array {
    if (region.kept !== undefined) return region.kept
    const kept = new Uint32Array(BLOCKS_PER_REGION / 32)
    const digests = region.diskBytes > 1 ? this.#readFooter(regionKey(inode, index)) : emptyDigests()
    for (let block = 0; block < BLOCKS_PER_REGION; block++) {
      if (digestAt(digests, block).some((byte) => byte !== 0)) setBit(kept, block)
    }
    region.kept = kept
    return kept
  }

  /** Somebody has read the region's present blocks otherwise. */
  markUsed(inode: InodeId, index: number): void {
    this.#regions.get(regionKey(inode, index))
  }

  /** From now on others may read present blocks from the region files; they are told before that is not right any more. */
  share(onRegionLost: OnRegionLost): void {
    this.#onRegionLost = onRegionLost
  }

  pathOf(inode: InodeId, index: number): string {
    return path.join(this.directory, regionKey(inode, index))
  }

  /** Whether the region file says that it holds this version of the block. A claim, to be verified by who reads it. */
  claims(inode: InodeId, index: number, blockInRegion: number, digest: Buffer): boolean {
    const key = regionKey(inode, index)
    let digests = this.#unflushed.get(key) ?? this.#claims.get(key)
    if (digests === undefined) {
      digests = this.#readFooter(key)
      this.#claims.set(key, digests)
    }
    return digestAt(digests, blockInRegion).equals(digest)
  }

  /**
   * Reads bytes of present blocks; the caller has checked the bits in this same step. False when the region file
   * does not have them any more (somebody removed or cut it): the region is forgotten and has to be fetched again.
   */
  read(inode: InodeId, index: number, into: Uint8Array, offsetInRegion: number): boolean {
    const key = regionKey(inode, index)
    try {
      const fd = this.#descriptor(key, false)
      let done = 0
      while (fd !== undefined && done < into.length) {
        const count = fs.readSync(fd, into, done, into.length - done, offsetInRegion + done)
        if (count === 0) break
        done += count
      }
      if (done === into.length) return true
    } catch (error) {
      this.#onWarning(`cannot read the cache: ${messageOf(error)}`)
    }
    this.#forgetRegion(key)
    return false
  }

  /** The block's bytes in the region file were compared with their digest: they count from now on. */
  confirm(inode: InodeId, index: number, blockInRegion: number, plain: Uint8Array, digest: Buffer): void {
    if (this.#spoilLanding(inode, index, blockInRegion)) return
    if (this.claims(inode, index, blockInRegion, digest)) setBit(this.region(inode, index).present, blockInRegion)
    else this.place(inode, index, blockInRegion, plain, digest) // evicted while it was being read
  }

  /** Keeps a verified block, unless the disk is full, or a thread is writing it. */
  place(inode: InodeId, index: number, blockInRegion: number, plain: Uint8Array, digest: Buffer): void {
    if (this.#full || this.#closed) return
    const region = this.region(inode, index)
    if (getBit(region.present, blockInRegion) || this.#spoilLanding(inode, index, blockInRegion)) return
    const key = regionKey(inode, index)
    try {
      const fd = this.#openWhole(key, region)
      const digests = this.#unflushed.get(key) ?? Buffer.from(this.#claims.get(key) ?? readFooter(fd))
      const isHole = region.holes !== undefined && getBit(region.holes, blockInRegion)
      if (region.holes !== undefined) clearBit(region.holes, blockInRegion) // before a write that may fail in the middle
      region.diskBytes += writeBlock(fd, plain, blockInRegion * BLOCK_BYTES, isHole)
      digest.copy(digests, blockInRegion * digest.length)
      this.#unflushed.set(key, digests)
    } catch (error) {
      this.#diskTrouble(error)
      return
    }
    setBit(region.present, blockInRegion)
    this.#weigh(key, region)
  }

  /** The region takes more than before. */
  #weigh(key: string, region: CachedRegion): void {
    this.#regions.delete(key) // the same value set again would keep its old size
    this.#regions.set(key, region) // may evict others
  }

  /** Where a thread may write the block when it has verified it. Undefined: not now; the owner places its bytes. */
  beginLanding(inode: InodeId, index: number, blockInRegion: number): Landing | undefined {
    if (this.#full || this.#closed) return undefined
    const region = this.region(inode, index)
    const key = regionKey(inode, index)
    const landings = this.#landings.get(key) ?? new Map<number, { counts: boolean }>()
    if (getBit(region.present, blockInRegion) || landings.has(blockInRegion)) return undefined
    let ino: number
    try {
      ino = fs.fstatSync(this.#openWhole(key, region)).ino
    } catch (error) {
      this.#diskTrouble(error)
      return undefined
    }
    landings.set(blockInRegion, { counts: true })
    this.#landings.set(key, landings)
    const isHole = region.holes !== undefined && getBit(region.holes, blockInRegion)
    return { file: path.join(this.directory, key), ino, offset: blockInRegion * BLOCK_BYTES, isHole, gate: this.#gate }
  }

  /** No thread writes the block any more. Undefined: it has not written it, or a version that is not wanted. */
  endLanding(inode: InodeId, index: number, blockInRegion: number, landed: Landed | undefined): void {
    const key = regionKey(inode, index)
    const landings = this.#landings.get(key)
    const counts = landings?.get(blockInRegion)?.counts === true
    landings?.delete(blockInRegion)
    if (landings?.size === 0) this.#landings.delete(key)
    const region = this.#regions.get(key)
    if (region === undefined || this.#closed) return
    if (region.holes !== undefined) clearBit(region.holes, blockInRegion) // also of a file that was made meanwhile
    if (!counts || landed === undefined) {
      this.#name(key, blockInRegion, NO_DIGEST)
      return
    }
    this.#name(key, blockInRegion, landed.digest)
    region.diskBytes += landed.diskBytes
    if (landed.isClaim !== true) setBit(region.present, blockInRegion)
    this.#weigh(key, region)
  }

  /** What the region's footer will say of the block. */
  #name(key: string, blockInRegion: number, digest: Buffer): void {
    const digests = this.#unflushed.get(key) ?? Buffer.from(this.#claims.get(key) ?? this.#readFooter(key))
    if (digestAt(digests, blockInRegion).equals(digest)) return
    digest.copy(digests, blockInRegion * digest.length)
    this.#unflushed.set(key, digests)
  }

  /** True when a thread is writing the block: what it writes does not count any more. */
  #spoilLanding(inode: InodeId, index: number, blockInRegion: number): boolean {
    const landing = this.#landings.get(regionKey(inode, index))?.get(blockInRegion)
    if (landing === undefined) return false
    landing.counts = false
    return true
  }

  /** The block's bytes are not what a reader would want any more. */
  forget(inode: InodeId, index: number, blockInRegion: number): void {
    this.#onRegionLost(inode, index)
    this.#spoilLanding(inode, index, blockInRegion)
    this.losses++
    clearBit(this.region(inode, index).present, blockInRegion)
  }

  /** Frees at least `bytes`, before it returns, by evicting the regions that were used least recently. Returns what was freed. */
  evict(bytes: number): number {
    const before = this.evictedBytes
    this.#makesRoom = true
    try {
      while (this.evictedBytes - before < bytes && this.#regions.size > 0) this.#regions.pop()
    } finally {
      this.#makesRoom = false
    }
    return this.evictedBytes - before
  }

  /** File of a map object by its digest. */
  mapPath(digest: string): string {
    return path.join(this.directory, 'maps', digest)
  }

  /** Keeps a verified map object for later mounts; failing is harmless. */
  async keepMap(digest: string, bytes: Uint8Array): Promise<void> {
    if (this.#full || this.#closed) return
    const keeping = this.#keepMap(digest, bytes).finally(() => this.#keeping.delete(keeping))
    this.#keeping.add(keeping)
    await keeping
  }

  async #keepMap(digest: string, bytes: Uint8Array): Promise<void> {
    const file = this.mapPath(digest)
    try {
      await fs.promises.writeFile(`${file}.new`, bytes, { mode: 0o600 })
      await fs.promises.rename(`${file}.new`, file)
    } catch (error) {
      this.#diskTrouble(error)
    }
  }

  /** Writes the footers of all regions whose data is not named by one yet; map objects that are being written come along. */
  flush(): Promise<void> {
    this.#flushing = this.#flushing
      .then(() => this.#flushAll())
      .then(() => Promise.all(this.#keeping))
      .then(() => undefined)
    return this.#flushing
  }

  async close(): Promise<void> {
    clearInterval(this.#timer)
    await this.flush()
    this.#closed = true
    this.#descriptors.clear()
    closeGate(this.#gate)
    const end = Date.now() + WRITERS_WAIT_MS_MAX
    while (hasWriters(this.#gate) && Date.now() < end) await new Promise((resolve) => setTimeout(resolve, 1))
    if (!hasWriters(this.#gate)) this.#lock.release() // otherwise the kernel does, with this process
  }

  async #flushAll(): Promise<void> {
    this.#full = false // space may be there again
    for (const key of [...this.#unflushed.keys()]) {
      const digests = this.#unflushed.get(key)
      if (digests === undefined) continue
      const named = Buffer.from(digests) // blocks placed while the data is being synced wait for the next round
      let handle: fs.promises.FileHandle | undefined
      try {
        handle = await fs.promises.open(path.join(this.directory, key), 'r+')
        await handle.datasync().catch((error: unknown) => {
          this.#forgetRegion(key) // what the disk has dropped may read as zeros from now on
          throw error
        })
        if ((await handle.stat()).size < REGION_BYTES) {
          this.#forgetRegion(key) // somebody has cut it: behind a footer its end would read as zeros
          continue
        }
        writeFooter(handle.fd, named)
        if (this.#unflushed.get(key)?.equals(named) === true) {
          this.#unflushed.delete(key)
          this.#claims.set(key, named)
        }
      } catch (error) {
        if (errnoOf(error) !== 'ENOENT') this.#diskTrouble(error) // evicted meanwhile: nothing to name
      } finally {
        await handle?.close().catch((error: unknown) => this.#diskTrouble(error))
      }
    }
  }

  #descriptor(key: string, create: boolean): number | undefined {
    const known = this.#descriptors.get(key)
    if (known !== undefined) return known
    const { O_RDWR, O_NOFOLLOW, O_NONBLOCK, O_CREAT } = fs.constants
    const file = path.join(this.directory, key)
    try {
      const fd = fs.openSync(file, O_RDWR | O_NOFOLLOW | O_NONBLOCK | (create ? O_CREAT : 0), 0o600)
      if (!isOwnFile(fd)) {
        closeQuietly(fd)
        fs.unlinkSync(file)
        return create ? this.#descriptor(key, true) : undefined
      }
      this.#descriptors.set(key, fd)
      return fd
    } catch (error) {
      if (!create && errnoOf(error) === 'ENOENT') return undefined
      throw error
    }
  }

  /** The region's file with all that is present in it; a new one where it has gone, or was cut. */
  #openWhole(key: string, region: CachedRegion): number {
    const known = this.#descriptor(key, false)
    return known === undefined || isCut(known, region, this.#landings.has(key)) ? this.#createFile(key, region) : known
  }

  /** An empty file holds nothing: what the region had went with a file that somebody has removed. */
  #createFile(key: string, region: CachedRegion): number {
    this.#lose(key)
    if (anyBit(region.present)) this.losses++
    region.present.fill(0)
    region.holes = undefined
    this.#claims.delete(key)
    this.#unflushed.delete(key)
    const fd = this.#descriptor(key, true)
    if (fd === undefined) throw new FailedError(`${path.join(this.directory, key)} could not be created`)
    if (fs.fstatSync(fd).size > 0) return fd
    fs.ftruncateSync(fd, REGION_BYTES) // sparse
    region.holes = new Uint32Array(BLOCKS_PER_REGION / 32).fill(0xffffffff)
    return fd
  }

  /** A footer that cannot be read claims nothing: the share has the blocks. */
  #readFooter(key: string): Buffer {
    try {
      const fd = this.#descriptor(key, false)
      return fd === undefined ? emptyDigests() : readFooter(fd)
    } catch (error) {
      this.#onWarning(`cannot read the cache: ${messageOf(error)}`)
      return emptyDigests()
    }
  }

  #lose(key: string): void {
    for (const landing of this.#landings.get(key)?.values() ?? []) landing.counts = false
    const [inode = '', index = ''] = key.split('-')
    this.#onRegionLost(toInodeId(Number(inode)), Number(index))
  }

  /** Its blocks are not what they were verified to be. */
  #forgetRegion(key: string): void {
    const region = this.#regions.get(key)
    this.#regions.delete(key)
    if (region !== undefined) this.#drop(key, region)
  }

  #drop(key: string, region: CachedRegion): void {
    this.#lose(key)
    this.losses++
    this.#descriptors.delete(key)
    this.#claims.delete(key)
    this.#unflushed.delete(key)
    if (region.diskBytes > 1) this.evictedBytes += region.diskBytes
    const file = path.join(this.directory, key)
    try {
      if (this.#makesRoom) fs.rmSync(file, { force: true })
      else removeFileLater(file)
    } catch (error) {
      this.#onWarning(`cannot evict from the cache: ${messageOf(error)}`)
    }
  }

  #diskTrouble(error: unknown): void {
    if (!this.#full) this.#onWarning(`blocks are not cached for now: ${messageOf(error)}`)
    this.#full = true
  }

  /** Learns in the background what earlier mounts left, so that the limit counts it. The mount does not wait. */
  async #scan(): Promise<void> {
    try {
      for await (const entry of await fs.promises.opendir(this.directory)) {
        if (this.#closed) return
        if (!/^\d+-\d+$/.test(entry.name) || this.#regions.has(entry.name)) continue
        const { blocks } = await fs.promises.stat(path.join(this.directory, entry.name))
        if (this.#regions.has(entry.name)) continue
        this.#regions.set(entry.name, emptyRegion(blocks * 512))
      }
    } catch (error) {
      if (errnoOf(error) !== 'ENOENT') this.#onWarning(`cannot list the cache: ${messageOf(error)}`)
    }
  }
}

/**
 * Whether somebody has cut the region's file below a block that is present, or may be soon: a block that is placed after it would
 * leave a hole there.
 */
function isCut(descriptor: number, { present }: CachedRegion, isBeingWritten: boolean): boolean {
  if (isBeingWritten) return fs.fstatSync(descriptor).size < REGION_BYTES
  let block = BLOCKS_PER_REGION - 1
  while (block >= 0 && !getBit(present, block)) block--
  return block >= 0 && fs.fstatSync(descriptor).size < (block + 1) * BLOCK_BYTES
}

function emptyRegion(diskBytes: number): CachedRegion {
  const present = new Uint32Array(BLOCKS_PER_REGION / 32)
  return {
    present,
    zero: undefined,
    ahead: undefined,
    foretold: undefined,
    kept: undefined,
    holes: undefined,
    diskBytes
  }
}

function regionKey(inode: InodeId, index: number): string {
  return `${String(inode)}-${String(index)}`
}
