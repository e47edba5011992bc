/**
 * Which layer a byte of a file comes from, and the copying from all of them: session over cache over zeros.
 * Pure decisions on in-memory state plus local reads; never waits. What is not here is reported to the caller.
 */
import assert from 'node:assert'
import { getBit } from '../base/bits.js'
import { BLOCK_BYTES, BLOCKS_PER_REGION, PAGE_BYTES, PAGES_PER_REGION, REGION_BYTES } from '../base/units.js'
import type { Cache, CachedRegion } from '../cache/cache.js'
import type { BlockPlace } from '../format/place.js'
import type { Inode } from '../session/namespace-types.js'

/** What reads of the modified layer need of a session. */
export interface ModifiedLayer {
  read(inode: Inode, into: Uint8Array, offset: number): void
}

/** Blocks that a read needs and that were fetched for it: they serve it even when the cache cannot keep them. */
export type HeldBlocks = ReadonlyMap<number, HeldBlock>

export interface HeldBlock {
  readonly plain: Buffer
  /** the uploaded block's place that the bytes are from; undefined: the base's */
  readonly place: BlockPlace | undefined
}

/** Told when blocks that were fetched ahead are read: blocks first..last of a region. */
export type OnAheadRead = (inode: Inode, index: number, region: CachedRegion, first: number, last: number) => void

/** Where bytes were when somebody asked for them. */
export const READ_SOURCES = ['session', 'zero', 'cache', 'share'] as const
export type ReadSource = (typeof READ_SOURCES)[number]

export interface Layers {
  readonly session: ModifiedLayer
  readonly cache: Cache
  readonly held: HeldBlocks | undefined
  readonly onAheadRead: OnAheadRead
  /** counts of bytes in the order of READ_SOURCES; undefined: this is not the first look for them */
  readonly served: Float64Array | undefined
}

type Source = 'session' | 'zero' | 'cache' | 'held' | 'missing'

/**
 * Fills `into` with the file's bytes from `offset` (all below the file's size). Returns the blocks of the base that
 * are absent, in ascending order; the bytes are complete only when there are none.
 */
export function fillFromLayers(inode: Inode, into: Buffer, offset: number, layers: Layers): number[] {
  const missing: number[] = []
  const end = offset + into.length
  let position = offset
  while (position < end) {
    const source = sourceOf(inode, position, layers.cache, layers.held)
    const runEnd = Math.min(endOfRun(inode, position, end, source, layers.cache, layers.held), end)
    const part = into.subarray(position - offset, runEnd - offset)
    switch (source) {
      case 'session':
        layers.session.read(inode, part, position)
        break
      case 'zero':
        part.fill(0)
        break
      case 'cache':
        if (!readCached(inode, part, position, layers)) continue
        break
      case 'held': {
        const block = layers.held?.get(Math.floor(position / BLOCK_BYTES))
        const copied = block?.plain.copy(part, 0, position % BLOCK_BYTES, (position % BLOCK_BYTES) + part.length)
        assert.equal(copied, part.length)
        break
      }
      case 'missing': {
        const block = Math.floor(position / BLOCK_BYTES)
        if (missing.at(-1) !== block) missing.push(block)
        break
      }
    }
    if (layers.served !== undefined) count(layers.served, source, part.length)
    position = runEnd
  }
  return missing
}

const SERVED_AT = { session: 0, zero: 1, cache: 2, held: 3, missing: 3 } as const

function count(served: Float64Array, source: Source, bytes: number): void {
  const at = SERVED_AT[source]
  served[at] = (served[at] ?? 0) + bytes
}

/** A run from the cache lies in one region. */
function readCached(inode: Inode, part: Buffer, position: number, { cache, onAheadRead }: Layers): boolean {
  const index = Math.floor(position / REGION_BYTES)
  const offset = position % REGION_BYTES
  const region = cache.region(inode.id, index)
  if (region.ahead !== undefined) {
    const last = Math.floor((offset + part.length - 1) / BLOCK_BYTES)
    onAheadRead(inode, index, region, Math.floor(offset / BLOCK_BYTES), last)
  }
  return cache.read(inode.id, index, part, offset)
}

function sourceOf(inode: Inode, position: number, cache: Cache, held: HeldBlocks | undefined): Source {
  const regionIndex = Math.floor(position / REGION_BYTES)
  const pages = inode.regions.get(regionIndex)
  if (pages !== undefined) {
    const page = Math.floor(position / PAGE_BYTES) % PAGES_PER_REGION
    if (getBit(pages.valid, page)) return 'session'
    if (pages.punched !== undefined && getBit(pages.punched, page)) return 'zero'
  }
  const block = Math.floor(position / BLOCK_BYTES)
  const uploaded = inode.uploaded.get(block)
  if (uploaded === undefined) {
    if (position >= inode.baseLimitBytes || inode.base?.map == null) return 'zero'
  } else if (uploaded.place === undefined || position >= block * BLOCK_BYTES + uploaded.limitBytes) return 'zero'
  const region = cache.region(inode.id, regionIndex)
  if (getBit(region.present, block % BLOCKS_PER_REGION)) return 'cache'
  if (uploaded === undefined && region.zero !== undefined && getBit(region.zero, block % BLOCKS_PER_REGION))
    return 'zero'
  const fetched = held?.get(block)
  return fetched !== undefined && fetched.place === uploaded?.place ? 'held' : 'missing'
}

/** Where the bytes below the session's pages end, for the block of a position: the base's end, or that of what was uploaded. */
function lowerEnd(inode: Inode, position: number): number {
  const block = Math.floor(position / BLOCK_BYTES)
  const uploaded = inode.uploaded.get(block)
  return uploaded === undefined ? inode.baseLimitBytes : block * BLOCK_BYTES + uploaded.limitBytes
}

/** Where the run of bytes from the same source ends: a step is a page where the session has pages, else a block. */
function endOfRun(
  inode: Inode,
  position: number,
  end: number,
  source: Source,
  cache: Cache,
  held: HeldBlocks | undefined
): number {
  const regionEnd = (Math.floor(position / REGION_BYTES) + 1) * REGION_BYTES
  const modified = inode.regions.has(Math.floor(position / REGION_BYTES))
  const limit = Math.min(end, regionEnd)
  const blockEnd = (at: number): number => (Math.floor(at / BLOCK_BYTES) + 1) * BLOCK_BYTES
  let next = position
  for (;;) {
    const from = next
    next = modified ? (Math.floor(from / PAGE_BYTES) + 1) * PAGE_BYTES : blockEnd(from)
    const lower = lowerEnd(inode, from)
    if (from < lower && next > lower && source !== 'session') next = lower
    if (next >= limit) return limit
    if ((source === 'held' || source === 'missing') && next % BLOCK_BYTES === 0) return next
    if (sourceOf(inode, next, cache, held) !== source) return next
  }
}
