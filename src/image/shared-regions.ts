/**
 * What the owner publishes for request threads (base/region-table.ts): of the regions that were read lately, which pages lie
 * in which file, with descriptors of its own. The threads answer READs of such pages without the owner.
 *
 * Invariants:
 * 1. A page is published as changed only while it is valid in the session, as cached only while the layers below the session
 *    have it in the cache (image/layers.ts), and only when it lies wholly below the file's size.
 * 2. Session and cache say before something of that ends; the entry is paused then, and filled anew or emptied.
 * 3. Only blocks that somebody has read are published, so the owner hears of the first read of what was fetched ahead.
 * 4. Threads may write only to pages of regions that the session allows it for, each time after a write of its own there, and
 *    only with the writeback cache: without it the tree keeps the times of writes.
 * 5. Bounded: a fixed number of regions, two descriptors each. A region that is in the way of another one is dropped when
 *    threads have read less of it lately.
 * Everything here is one synchronous step of the owner.
 */
import fs from 'node:fs'
import { getBit } from '../base/bits.js'
import { closeQuietly } from '../base/close-quietly.js'
import { createCounters } from '../base/thread-counters.js'
import {
  allowWrites,
  clearEntry,
  createTable,
  endWrites,
  findEntry,
  firstEntry,
  highWord,
  look,
  lowWord,
  nameEntry,
  pagesBelow,
  pauseEntry,
  resumeEntry,
  setDescriptors,
  setPages
} from '../base/region-table.js'
import { BLOCK_BYTES, BLOCKS_PER_REGION, type InodeId, PAGE_BYTES, REGION_BYTES, toInodeId } from '../base/units.js'
import type { Cache, CachedRegion } from '../cache/cache.js'
import type { Inode, RegionPages } from '../session/namespace-types.js'
import type { Session } from '../session/session.js'
import type { RegionSharing } from '../session/sharing.js'

/** 16 GiB of regions, 1.1 MiB of memory */
const REGIONS_MAX = 1024
/** left to the rest of the daemon, of the descriptors that the process may have */
const OTHER_DESCRIPTORS = 1536
const LOOK_INTERVAL_MS = 1000
const ALL_BLOCKS = [0, BLOCKS_PER_REGION - 1] as const

export interface SharedRegionsOptions {
  readonly session: Session
  readonly cache: Pick<Cache, 'share' | 'knownRegion' | 'markUsed' | 'pathOf'>
  /** whether threads may write as well */
  readonly mayWrite: boolean
  /** a multiple of 4; undefined: as many as the process's descriptors allow */
  readonly regionsMax?: number
}

export class SharedRegions implements RegionSharing {
  /** for the threads */
  readonly table: Int32Array
  /** for the threads: what they have answered */
  readonly counters = createCounters()
  readonly #session: Session
  readonly #cache: SharedRegionsOptions['cache']
  readonly #mayWrite: boolean
  /** entries that threads may write to */
  readonly #writable = new Set<number>()
  readonly #timer: NodeJS.Timeout
  /** of each entry, its hits when they were looked at last */
  readonly #seenHits: Int32Array
  /** the region that wanted a place in a full set last: it gets one when it wants it again */
  readonly #wanted: Float64Array
  #stopped = false

  constructor({ session, cache, mayWrite, regionsMax = regionsThatFit() }: SharedRegionsOptions) {
    this.#session = session
    this.#cache = cache
    this.#mayWrite = mayWrite
    this.table = createTable(regionsMax)
    this.#seenHits = new Int32Array(regionsMax)
    this.#wanted = new Float64Array(regionsMax / look.ways)
    session.share(this)
    cache.share((inode, region) => this.withdraw(inode, region, region + 1))
    this.#timer = setInterval(() => this.noteUse(), LOOK_INTERVAL_MS)
    this.#timer.unref()
  }

  /** Bytes offset..offset+length of the file were read: threads may read them from now on. */
  offer(inode: Inode, offset: number, length: number): void {
    this.#publish(inode, offset, offset + length)
  }

  /** The block is not what it was known as. */
  review(inode: Inode, block: number): void {
    const region = Math.floor(block / BLOCKS_PER_REGION)
    const entry = this.#find(inode.id, region)
    if (entry >= 0) this.#fillOpen(entry, inode, region, block % BLOCKS_PER_REGION, block % BLOCKS_PER_REGION)
  }

  pause(inode: InodeId, from: number, to: number): void {
    for (let region = from; region < to; region++) {
      const entry = this.#find(inode, region)
      if (entry >= 0) pauseEntry(this.table, entry)
    }
  }

  resume(inode: Inode, start: number, end: number): void {
    for (let region = Math.floor(start / REGION_BYTES); region * REGION_BYTES < end; region++) {
      const maySharedWrite = this.#mayWrite && !this.#stopped && this.#session.maySharedWrite(inode.id, region)
      const known = this.#find(inode.id, region)
      const entry = known < 0 && maySharedWrite ? this.#place(inode.id, region) : known
      if (entry < 0) continue
      const [first, last] = known < 0 ? ALL_BLOCKS : blocksOf(region, start, end)
      if (!this.#fill(entry, inode, region, first, last)) continue
      if (maySharedWrite) this.#allowWrites(entry)
      resumeEntry(this.table, entry)
    }
  }

  endWrites(inode?: InodeId, region?: number): void {
    for (const entry of this.#writable) {
      if (inode !== undefined && look.inode(this.table, entry) !== inode) continue
      if (region !== undefined && look.region(this.table, entry) !== region) continue
      const wasOpen = look.isOpen(this.table, entry) // else somebody further out has paused it, and goes on with it
      pauseEntry(this.table, entry)
      this.#endWrites(entry)
      if (wasOpen) resumeEntry(this.table, entry)
    }
  }

  /** Since their writes ended last, about. */
  get writtenBytes(): number {
    let pages = 0
    for (const entry of this.#writable) pages += look.writtenPages(this.table, entry)
    return pages * PAGE_BYTES
  }

  withdraw(inode: InodeId, from: number, to: number): void {
    if (to - from === 1) {
      const entry = this.#find(inode, from)
      if (entry >= 0) this.#empty(entry)
      return
    }
    for (const entry of this.#entries()) {
      const region = look.region(this.table, entry)
      if (look.inode(this.table, entry) === inode && region >= from && region < to) this.#empty(entry)
    }
  }

  withdrawAll(): void {
    for (const entry of this.#entries()) this.#empty(entry)
  }

  /** No thread reads any more, or nobody may. */
  stop(): void {
    this.#stopped = true
    clearInterval(this.#timer)
    this.withdrawAll()
  }

  /** Regions that threads have read count as used by the cache. */
  noteUse(): void {
    for (const entry of this.#entries()) {
      const hits = look.hits(this.table, entry)
      const index = entry / look.entryWords
      if (hits === this.#seenHits[index]) continue
      this.#seenHits[index] = hits
      this.#cache.markUsed(toInodeId(look.inode(this.table, entry)), look.region(this.table, entry))
    }
  }

  #publish(inode: Inode, start: number, end: number): void {
    if (this.#stopped) return
    for (let region = Math.floor(start / REGION_BYTES); region * REGION_BYTES < end; region++) {
      const known = this.#find(inode.id, region)
      const [first, last] = known < 0 ? ALL_BLOCKS : blocksOf(region, start, end)
      const entry = known < 0 ? this.#place(inode.id, region) : known
      if (entry >= 0) this.#fillOpen(entry, inode, region, first, last)
    }
  }

  /** An entry for a region that has none; -1 when others are in the way that are read more. */
  #place(inode: InodeId, region: number): number {
    const first = this.#firstOf(inode, region)
    let coldest = first
    let fewest = Infinity
    for (let way = 0; way < look.ways; way++) {
      const entry = first + way * look.entryWords
      const isFree = look.isFree(this.table, entry)
      const hits = isFree ? -1 : (look.hits(this.table, entry) - (this.#seenHits[entry / look.entryWords] ?? 0)) >>> 0
      if (hits < fewest) [coldest, fewest] = [entry, hits]
    }
    if (fewest >= 0) {
      const set = first / look.entryWords / look.ways
      const key = inode * 2 ** 20 + region
      if (this.#wanted[set] !== key) {
        this.#wanted[set] = key
        return -1
      }
      this.#empty(coldest)
    }
    pauseEntry(this.table, coldest)
    nameEntry(this.table, coldest, lowWord(inode), highWord(inode), region)
    this.#seenHits[coldest / look.entryWords] = 0
    return coldest
  }

  #fillOpen(entry: number, inode: Inode, region: number, first: number, last: number): void {
    if (this.#fill(entry, inode, region, first, last)) resumeEntry(this.table, entry)
  }

  /**
   * Makes blocks first..last of an entry what they are now; pauses it when they are different. False when the region's files
   * cannot be opened: then there is no entry any more.
   */
  #fill(entry: number, inode: Inode, region: number, first: number, last: number): boolean {
    const { table } = this
    const pages = inode.regions.get(region)
    const cachedRegion = this.#cache.knownRegion(inode.id, region)
    let isPaused = false
    for (let block = first; block <= last; block++) {
      const changed = changedPages(inode, region, block, pages)
      const cached = cachedPages(inode, region, block, pages, cachedRegion)
      if (look.cached(table, entry, block) === cached && look.changed(table, entry, block) === changed) continue
      if (!isPaused) pauseEntry(table, entry)
      isPaused = true
      if (!this.#openFiles(entry, inode.id, region, cached !== 0, changed !== 0)) {
        this.#empty(entry)
        return false
      }
      setPages(table, entry, block, cached, changed)
    }
    return true
  }

  #allowWrites(entry: number): void {
    if (look.changedDescriptor(this.table, entry) < 0) return
    allowWrites(this.table, entry)
    this.#writable.add(entry)
  }

  /** The entry is paused. */
  #endWrites(entry: number): void {
    this.#writable.delete(entry)
    const inode = toInodeId(look.inode(this.table, entry))
    const region = look.region(this.table, entry)
    const bytes = look.writtenPages(this.table, entry) * PAGE_BYTES
    const blocks = endWrites(this.table, entry)
    if (blocks.length > 0) this.#session.noteSharedWrites(inode, region, blocks, bytes)
  }

  #openFiles(entry: number, inode: InodeId, region: number, needsCached: boolean, needsChanged: boolean): boolean {
    let cached = look.cachedDescriptor(this.table, entry)
    let changed = look.changedDescriptor(this.table, entry)
    try {
      if (needsCached && cached < 0) cached = openFile(this.#cache.pathOf(inode, region), false)
      if (needsChanged && changed < 0) changed = openFile(this.#session.regionPath(inode, region), this.#mayWrite)
      return true
    } catch {
      return false // the owner finds out what is the matter when it reads there
    } finally {
      setDescriptors(this.table, entry, cached, changed)
    }
  }

  #empty(entry: number): void {
    pauseEntry(this.table, entry)
    this.#endWrites(entry)
    for (const descriptor of [look.cachedDescriptor(this.table, entry), look.changedDescriptor(this.table, entry)]) {
      if (descriptor >= 0) closeQuietly(descriptor)
    }
    setDescriptors(this.table, entry, -1, -1)
    clearEntry(this.table, entry)
  }

  #find(inode: InodeId, region: number): number {
    return findEntry(this.table, lowWord(inode), highWord(inode), region)
  }

  #firstOf(inode: InodeId, region: number): number {
    return firstEntry(this.table, lowWord(inode), highWord(inode), region)
  }

  *#entries(): Generator<number> {
    for (let entry = 0; entry < this.table.length; entry += look.entryWords) {
      if (!look.isFree(this.table, entry)) yield entry
    }
  }
}

/** Blocks of a region that have bytes of start..end. */
function blocksOf(region: number, start: number, end: number): readonly [first: number, last: number] {
  const first = Math.floor((start - region * REGION_BYTES) / BLOCK_BYTES)
  const last = Math.floor((end - 1 - region * REGION_BYTES) / BLOCK_BYTES)
  return [Math.max(0, first), Math.min(BLOCKS_PER_REGION - 1, last)]
}

/** Pages of a block that the session has, below the end of the file. */
function changedPages(inode: Inode, region: number, block: number, pages: RegionPages | undefined): number {
  return (pages?.valid[block] ?? 0) & pagesBelow(inode.sizeBytes - region * REGION_BYTES, block)
}

/** Pages of a block that come from the cache: present, read before, and nothing lies above them. */
function cachedPages(
  inode: Inode,
  region: number,
  block: number,
  pages: RegionPages | undefined,
  cached: CachedRegion | undefined
): number {
  if (cached === undefined || !getBit(cached.present, block)) return 0
  if (cached.ahead !== undefined && getBit(cached.ahead, block)) return 0
  const uploaded = inode.uploaded.get(region * BLOCKS_PER_REGION + block)
  if (uploaded === undefined ? inode.base?.map == null : uploaded.place === undefined) return 0
  const start = region * REGION_BYTES
  const lowerEnd = uploaded === undefined ? inode.baseLimitBytes - start : block * BLOCK_BYTES + uploaded.limitBytes
  const above = (pages?.valid[block] ?? 0) | (pages?.punched?.[block] ?? 0)
  return pagesBelow(Math.min(inode.sizeBytes - start, lowerEnd), block) & ~above
}

function openFile(file: string, forWriting: boolean): number {
  const { O_RDONLY, O_RDWR, O_NOFOLLOW } = fs.constants
  return fs.openSync(file, (forWriting ? O_RDWR : O_RDONLY) | O_NOFOLLOW)
}

/** As many as the process's descriptors allow; a multiple of the ways, and one set at least. */
function regionsThatFit(): number {
  const limits = fs.readFileSync('/proc/self/limits', 'utf8')
  const descriptors = Number(/^Max open files\s+(\d+)/m.exec(limits)?.[1] ?? Infinity)
  const regions = Math.floor((descriptors - OTHER_DESCRIPTORS) / 2 / look.ways) * look.ways
  return Math.min(REGIONS_MAX, Math.max(look.ways, regions))
}
