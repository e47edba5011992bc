/**
 * Blocks that are fetched before anybody asks for them: readahead of sequential readers, the profile of an earlier
 * resume, memory images, all of it (warm). Keeps count of what was fetched for nothing.
 *
 * Invariants:
 * 1. What is fetched ahead goes into the cache and nowhere else; a failure is nobody's: whoever reads the block sees it.
 * 2. `ahead` of a cached region marks blocks that were fetched ahead and that nobody has read yet.
 */
import { anyBit, clearBit, getBit, setBit } from '../base/bits.js'
import { BLOCK_BYTES, BLOCKS_PER_REGION, type InodeId } from '../base/units.js'
import type { Cache, CachedRegion } from '../cache/cache.js'
import type { BlockRequest, Fetcher } from '../fetch/fetcher.js'
import type { Inode } from '../session/namespace-types.js'
import { FirstTouches } from './first-touches.js'
import { Readahead } from './readahead.js'

/** Who wants blocks ahead of their readers, with the priorities of fetch/share-pool.ts. */
export type AheadPriority = 'readahead' | 'tables' | 'profile' | 'stream' | 'warm'

export interface AheadCounters {
  fetchedBlocks: number
  /** of these, those that somebody has read since */
  usedBlocks: number
}

/** What became of blocks that were wanted ahead. */
export interface Brought {
  /** blocks that have bytes: not holes, not all zero */
  readonly dataBlocks: number
  /** of these, those that the cache does not hold now, and why the last of them was not fetched */
  readonly absentBlocks: number
  readonly failure: unknown
}

export interface FetchAheadParts {
  readonly cache: Cache
  readonly fetcher: Fetcher
  /** places of blocks; those that are zero are left out */
  readonly requests: (
    inode: Inode,
    blocks: readonly number[],
    priority: AheadPriority
  ) => Promise<readonly BlockRequest[]>
  /** a block was fetched ahead: its first reader has to be heard of */
  readonly onMarked: (inode: Inode, block: number) => void
}

export class FetchAhead {
  readonly touches = new FirstTouches()
  readonly counters: Readonly<Record<AheadPriority, AheadCounters>> = {
    readahead: { fetchedBlocks: 0, usedBlocks: 0 },
    tables: { fetchedBlocks: 0, usedBlocks: 0 },
    profile: { fetchedBlocks: 0, usedBlocks: 0 },
    stream: { fetchedBlocks: 0, usedBlocks: 0 },
    warm: { fetchedBlocks: 0, usedBlocks: 0 }
  }
  readonly #parts: FetchAheadParts
  readonly #readahead = new Readahead()
  /** for what a block was fetched that has not been read yet; bounded, and those of warm are not in it */
  readonly #fetchedFor = new Map<string, AheadPriority>()

  constructor(parts: FetchAheadParts) {
    this.#parts = parts
  }

  totals(): AheadCounters {
    const total = { fetchedBlocks: 0, usedBlocks: 0 }
    for (const { fetchedBlocks, usedBlocks } of Object.values(this.counters)) {
      total.fetchedBlocks += fetchedBlocks
      total.usedBlocks += usedBlocks
    }
    return total
  }

  /** Somebody waits for these blocks, which were absent. Reads on when that looks sequential. */
  noteMiss(inode: Inode, blocks: readonly number[]): void {
    for (const block of blocks) this.touches.add(inode.id, block)
    const first = blocks[0] ?? 0
    const last = blocks.at(-1) ?? 0
    const count = this.#readahead.afterMiss(inode.id, first, last)
    if (count === 0) return
    this.#readFurther(inode, last + 1, count)
  }

  /** Blocks first..last of the region are read from the cache. Called for regions with `ahead` only. */
  noteRead(inode: Inode, regionIndex: number, region: CachedRegion, first: number, last: number): void {
    const { ahead } = region
    if (ahead === undefined) return
    for (let index = first; index <= last; index++) {
      if (!getBit(ahead, index)) continue
      clearBit(ahead, index)
      const block = regionIndex * BLOCKS_PER_REGION + index
      const key = keyOf(inode.id, block)
      this.counters[this.#fetchedFor.get(key) ?? 'warm'].usedBlocks++
      this.#fetchedFor.delete(key)
      this.touches.add(inode.id, block)
    }
    if (!anyBit(ahead)) region.ahead = undefined
    const further = this.#readahead.afterHit(inode.id, regionIndex * BLOCKS_PER_REGION + last)
    if (further !== undefined) this.#readFurther(inode, further.first, further.count)
  }

  #readFurther(inode: Inode, first: number, count: number): void {
    const end = Math.min(Math.ceil(inode.baseLimitBytes / BLOCK_BYTES), first + count)
    const blocks: number[] = []
    for (let block = first; block < end; block++) blocks.push(block)
    if (blocks.length > 0) void this.bring(inode, blocks, 'readahead')
  }

  /** Fetches those of the blocks that are not here, and settles when all have come or failed. Never rejects. */
  async bring(inode: Inode, blocks: readonly number[], priority: AheadPriority): Promise<Brought> {
    const wanted = blocks.filter((block) => !this.#isPresent(inode.id, block))
    const presentBlocks = blocks.length - wanted.length
    let failure: unknown
    let found: readonly BlockRequest[]
    try {
      found = await this.#parts.requests(inode, wanted, priority)
    } catch (error) {
      return { dataBlocks: blocks.length, absentBlocks: wanted.length, failure: error }
    }
    const requests = found.filter(({ block }) => !this.#isPresent(inode.id, block)) // some may have come meanwhile
    const fetched = this.#parts.fetcher.fetch(requests, priority, priority)
    await Promise.all(
      requests.map(async ({ block }, index) => {
        try {
          await fetched[index]
          this.#noteFetched(inode, block, priority)
        } catch (error) {
          failure = error
        }
      })
    )
    const absentBlocks = requests.filter(({ block }) => !this.#isPresent(inode.id, block)).length
    return { dataBlocks: presentBlocks + found.length, absentBlocks, failure }
  }

  /** A block that somebody waited for meanwhile was no fetch ahead. */
  #noteFetched(file: Inode, block: number, priority: AheadPriority): void {
    const inode = file.id
    if (this.touches.has(inode, block) || !this.#isPresent(inode, block)) return
    const region = this.#parts.cache.region(inode, Math.floor(block / BLOCKS_PER_REGION))
    region.ahead ??= new Uint32Array(BLOCKS_PER_REGION / 32)
    setBit(region.ahead, block % BLOCKS_PER_REGION)
    this.#parts.onMarked(file, block)
    this.counters[priority].fetchedBlocks++
    if (priority === 'profile') {
      region.foretold ??= new Uint32Array(BLOCKS_PER_REGION / 32)
      setBit(region.foretold, block % BLOCKS_PER_REGION)
    }
    if (priority !== 'warm' && this.#fetchedFor.size < FETCHED_FOR_MAX) {
      this.#fetchedFor.set(keyOf(inode, block), priority)
    }
  }

  #isPresent(inode: InodeId, block: number): boolean {
    const region = this.#parts.cache.region(inode, Math.floor(block / BLOCKS_PER_REGION))
    return getBit(region.present, block % BLOCKS_PER_REGION)
  }
}

const FETCHED_FOR_MAX = 65_536

function keyOf(inode: InodeId, block: number): string {
  return `${String(inode)}:${String(block)}`
}
