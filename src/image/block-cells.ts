/**
 * A picture of where the blocks of a file are now: any stretch of it in any number of cells, each with the shares of the states of
 * its blocks. Everything comes from memory, in one synchronous step whose cost grows with the regions of the stretch; what was
 * never looked at counts as absent.
 */
import { countBits } from '../base/bits.js'
import { BLOCK_BYTES, BLOCKS_PER_MAP_PAGE, BLOCKS_PER_REGION } from '../base/units.js'
import type { BaseMaps } from '../cache/base-maps.js'
import type { Cache, CachedRegion } from '../cache/cache.js'
import type { MapPage } from '../format/block-map.js'
import type { Inode } from '../session/namespace-types.js'

/**
 * States of a block for people, the first that applies: `dirty` has pages that the guest has changed (`sent` when the share has them
 * already), `inFlight` is being fetched, `foretold` is present because an earlier resume had read it, `present` is on this disk,
 * `sent` was changed and is on the share only, `empty` has no bytes. All others are absent.
 */
export const CELL_STATES = ['dirty', 'inFlight', 'foretold', 'present', 'sent', 'empty'] as const
export type CellState = (typeof CELL_STATES)[number]

export interface CellRange {
  readonly firstBlock: number
  /** 1 and more; what lies past the end of the file is left out */
  readonly blocks: number
  /** 1 and more */
  readonly cells: number
}

export interface BlockCells {
  readonly firstBlock: number
  readonly blocks: number
  readonly cells: number
  /** of each state one byte a cell: 0 for none of its blocks, 255 for all of them, at least 1 for any */
  readonly states: Readonly<Record<CellState, Uint8Array>>
}

export interface CellSources {
  readonly cache: Cache
  readonly maps: BaseMaps
  /** blocks that are wanted and not here yet, by region of this file */
  readonly inFlight: ReadonlyMap<number, Uint32Array>
  /** of a block of this file with changed pages: whether the share has them already */
  readonly isSent: (block: number) => boolean
}

const WORDS = BLOCKS_PER_REGION / 32
/** footers of the cache that one picture may read: the next one reads on */
const FOOTERS_PER_PICTURE = 64

/** Of the file as it is now. `cells` is as wanted, or the number of blocks where there are fewer. */
export function blockCells(inode: Inode, wanted: CellRange, sources: CellSources): BlockCells {
  const end = Math.ceil(inode.sizeBytes / BLOCK_BYTES)
  const firstBlock = Math.min(wanted.firstBlock, Math.max(0, end - 1))
  const blocks = Math.min(wanted.blocks, end - firstBlock)
  const cells = Math.min(wanted.cells, blocks)
  const counts = Object.fromEntries(CELL_STATES.map((state) => [state, new Float64Array(cells)]))
  const looker = new RegionLooker(inode, sources)
  const masks = new Uint32Array(CELL_STATES.length * WORDS)
  let lookedAt = -1
  for (let cell = 0; cell < cells; cell++) {
    const cellEnd = firstBlock + Math.floor(((cell + 1) * blocks) / cells)
    let block = firstBlock + Math.floor((cell * blocks) / cells)
    while (block < cellEnd) {
      const region = Math.floor(block / BLOCKS_PER_REGION)
      if (region !== lookedAt) looker.look(region, masks)
      lookedAt = region
      const pieceEnd = Math.min(cellEnd, (region + 1) * BLOCKS_PER_REGION)
      const from = block % BLOCKS_PER_REGION
      for (const [index, state] of CELL_STATES.entries()) {
        const all = counts[state]
        if (all === undefined) continue
        const mask = masks.subarray(index * WORDS, (index + 1) * WORDS)
        all[cell] = (all[cell] ?? 0) + countRange(mask, from, from + pieceEnd - block)
      }
      block = pieceEnd
    }
  }
  const shares = (state: CellState): Uint8Array =>
    Uint8Array.from(counts[state] ?? [], (count, cell) => {
      const cellBlocks = Math.floor(((cell + 1) * blocks) / cells) - Math.floor((cell * blocks) / cells)
      return Math.ceil((255 * count) / cellBlocks)
    })
  const states = Object.fromEntries(CELL_STATES.map((state) => [state, shares(state)]))
  return { firstBlock, blocks, cells, states: states as Record<CellState, Uint8Array> } // all of CELL_STATES
}

/** Blocks with changed pages, and of these those that the share does not have yet. */
export function changedBlocks(inode: Inode, isSent: (block: number) => boolean): { changed: number; unsent: number } {
  let changed = 0
  let unsent = 0
  for (const [region, { valid }] of inode.regions) {
    for (const [index, word] of valid.entries()) {
      if (word === 0) continue // a block is one word
      changed++
      if (!isSent(region * BLOCKS_PER_REGION + index)) unsent++
    }
  }
  return { changed, unsent }
}

class RegionLooker {
  readonly #inode: Inode
  readonly #sources: CellSources
  #footers = 0
  #map: { readonly index: number; readonly page: MapPage | null | undefined } | undefined

  constructor(inode: Inode, sources: CellSources) {
    this.#inode = inode
    this.#sources = sources
  }

  /** Fills the masks of the region's blocks, in the order of CELL_STATES; each block is in one of them at most. */
  look(region: number, masks: Uint32Array): void {
    masks.fill(0)
    const cached = this.#sources.cache.knownRegion(this.#inode.id, region)
    const inFlight = this.#sources.inFlight.get(region)
    const valid = this.#inode.regions.get(region)?.valid
    for (let block = 0; block < BLOCKS_PER_REGION; block++) {
      if (valid === undefined || valid[block] === 0) continue // a block is one word
      setMask(masks, this.#sources.isSent(region * BLOCKS_PER_REGION + block) ? 'sent' : 'dirty', block)
    }
    const kept = cached === undefined ? undefined : this.#kept(region, cached)
    for (let word = 0; word < WORDS; word++) {
      let rest = ~(maskWord(masks, 'dirty', word) | maskWord(masks, 'sent', word))
      const take = (state: CellState, bits: number | undefined): void => {
        if (bits === undefined) return
        masks[CELL_STATES.indexOf(state) * WORDS + word] = maskWord(masks, state, word) | (bits & rest)
        rest &= ~bits
      }
      take('inFlight', inFlight?.[word])
      const present = (cached?.present[word] ?? 0) | (kept?.[word] ?? 0)
      take('foretold', present & (cached?.foretold?.[word] ?? 0))
      take('present', present)
      if (rest !== 0) take('sent', this.#sent(region, word))
      if (rest !== 0) take('empty', cached?.zero?.[word] ?? this.#empty(region, word))
    }
  }

  #kept(region: number, cached: CachedRegion): Uint32Array | undefined {
    if (cached.kept === undefined && ++this.#footers > FOOTERS_PER_PICTURE) return undefined
    return this.#sources.cache.kept(this.#inode.id, region, cached)
  }

  #sent(region: number, word: number): number {
    if (this.#inode.uploaded.size === 0) return 0
    return this.#wordOf(region, word, (block) => this.#inode.uploaded.has(block))
  }

  #empty(region: number, word: number): number {
    const firstBlock = region * BLOCKS_PER_REGION
    const index = Math.floor(firstBlock / BLOCKS_PER_MAP_PAGE)
    const page = this.#page(index)
    const limitBlocks = Math.ceil(this.#inode.baseLimitBytes / BLOCK_BYTES)
    if (page === null || firstBlock >= limitBlocks) return ~0
    const isPastBase = (block: number): boolean => block >= limitBlocks
    if (page !== undefined) {
      const before = index * BLOCKS_PER_MAP_PAGE
      return this.#wordOf(region, word, (block) => isPastBase(block) || page.isZero(block - before))
    }
    return firstBlock + BLOCKS_PER_REGION <= limitBlocks ? 0 : this.#wordOf(region, word, isPastBase)
  }

  #page(index: number): MapPage | null | undefined {
    if (this.#map?.index !== index) {
      const page = this.#sources.maps.knownPage(this.#inode.base?.map ?? null, index)
      this.#map = { index, page }
    }
    return this.#map.page
  }

  #wordOf(region: number, word: number, is: (block: number) => boolean): number {
    const first = region * BLOCKS_PER_REGION + word * 32
    let bits = 0
    for (let bit = 0; bit < 32; bit++) if (is(first + bit)) bits |= 1 << bit
    return bits
  }
}

function setMask(masks: Uint32Array, state: CellState, block: number): void {
  const at = CELL_STATES.indexOf(state) * WORDS + (block >>> 5)
  masks[at] = (masks[at] ?? 0) | (1 << (block & 31))
}

function maskWord(masks: Uint32Array, state: CellState, word: number): number {
  return masks[CELL_STATES.indexOf(state) * WORDS + word] ?? 0
}

/** Set bits in [from, end). */
function countRange(mask: Uint32Array, from: number, end: number): number {
  if (from === 0 && end === BLOCKS_PER_REGION) return countBits(mask)
  let count = 0
  for (let block = from; block < end; block++) if ((((mask[block >>> 5] ?? 0) >>> (block & 31)) & 1) === 1) count++
  return count
}
