/**
 * Compaction, the last step of `prune`: what the newest generation still uses of chunks that are mostly garbage is copied
 * into dense chunks, and a generation with the same content names those.
 *
 *     blocks of sparse chunks -> new chunks -> read back -> new map pages and roots -> read back -> published
 *
 * Manifests never change, so the generation that was compacted goes on needing the old chunks. The next prune buries it
 * (isCompactedInto): its content is that of its successor. Until then, and then for the grace, everything is there twice.
 *
 * Invariants:
 * 1. Nothing is removed here. A crash before the publish leaves chunks that nobody refers to, which a later prune finds.
 * 2. Stored bytes are copied as they are, and compared with their digest on the way in and in their new place.
 * 3. The new maps name the same digests for the same blocks; anything else stops here, before anything is published.
 *
 * A repair (move-out.ts) leaves damaged chunks in the same way, with bytes from elsewhere.
 */
import assert from 'node:assert'
import { randomBytes } from 'node:crypto'
import { BLOCKS_PER_MAP_PAGE } from '../base/units.js'
import { decodeBlock, type Encoded } from '../format/block-codec.js'
import { encodeMapPage, encodeMapRoot, type MapPage, type MapRoot } from '../format/block-map.js'
import { ChunkBuilder, chunkName, readStored, writeObjects } from '../format/chunk.js'
import { publishGeneration, type PublishedGeneration } from '../format/generations.js'
import type { ManifestEntry } from '../format/manifest.js'
import type { BlockPlace, ObjectPlace } from '../format/place.js'
import type { Share } from '../share/share.js'
import type { ChunkUse } from './chunk-use.js'
import { type LiveGeneration, readPage, readRoot, rootsOf } from './references.js'

/** a chunk of which less than this part is used is mostly garbage */
const USED_PART_MAX = 0.5
/** places of moved blocks are in memory, some 500 bytes each; what is left is done by the next prune */
const MOVED_BLOCKS_MAX = 131_072
const PAGES_PER_BATCH = 64

export interface Sparse {
  /** names of the chunks that the newest generation leaves */
  readonly chunks: ReadonlySet<string>
  /** in these chunks, used by nobody */
  readonly garbageBytes: number
  /** in these chunks, to be copied at most */
  readonly usedBytes: number
}

/** Chunks of the newest generation that are mostly garbage, the emptiest first when there are too many for once. */
export function findSparse(share: Share, use: ChunkUse, newest: PublishedGeneration, onStep: () => void): Sparse {
  const blocks = new Map<string, number>()
  const count = (chunk: string): void => void blocks.set(chunk, (blocks.get(chunk) ?? 0) + 1)
  for (const place of rootPlaces(newest)) {
    count(place.chunk)
    for (const pagePlace of readRoot(share, place).values()) {
      count(pagePlace.chunk)
      for (const [, block] of placesOf(readPage(share, pagePlace))) count(block.chunk)
      onStep()
    }
  }
  const found: { chunk: string; sizeBytes: number; usedBytes: number }[] = []
  for (const chunk of blocks.keys()) {
    const sizeBytes = share.size(chunkName(chunk)) ?? 0
    const usedBytes = use.usedBytes(chunk)
    if (usedBytes < sizeBytes * USED_PART_MAX) found.push({ chunk, sizeBytes, usedBytes })
    onStep()
  }
  found.sort((first, second) => first.usedBytes / first.sizeBytes - second.usedBytes / second.sizeBytes)
  const chunks = new Set<string>()
  let [moved, garbageBytes, usedBytes] = [0, 0, 0]
  for (const each of found) {
    moved += blocks.get(each.chunk) ?? 0
    if (moved > MOVED_BLOCKS_MAX) break
    chunks.add(each.chunk)
    garbageBytes += each.sizeBytes - each.usedBytes
    usedBytes += each.usedBytes
  }
  return { chunks, garbageBytes, usedBytes }
}

/** Where what is copied comes from. What is undefined stays where it is. */
export interface Origin {
  root(place: ObjectPlace): MapRoot | undefined
  page(place: ObjectPlace): MapPage | undefined
  /** a map page or root that need not leave its chunk */
  mayStay(place: ObjectPlace): boolean
  /** verified */
  block(place: BlockPlace): Encoded | undefined
}

export interface Compacting {
  readonly share: Share
  readonly newest: PublishedGeneration
  readonly sparse: Pick<Sparse, 'chunks'>
  /** undefined: the share has all of it */
  readonly origin?: Origin
  readonly client: { readonly id: string; readonly host: string }
  /** between two steps; may throw to give it up */
  readonly onStep: () => void
  /** called right before the publish; throws when it may not be any more */
  readonly beforePublish: () => void
}

/** Publishes the newest generation once more, without the sparse chunks. */
export function compact(options: Compacting): PublishedGeneration {
  const published = moveOut(options)
  assert(published !== undefined, 'nothing of sparse chunks was copied')
  return published
}

/** As compact, of what can be copied; undefined when that is nothing, and nothing was published. */
export function moveOut(options: Compacting): PublishedGeneration | undefined {
  const { share, newest, client } = options
  const mover = new Mover(options)
  for (const place of rootPlaces(newest)) mover.moveBlocks(place)
  mover.flush()
  const entries = newest.manifest.entries.map((entry): ManifestEntry => {
    const map = entry.type === 'file' && entry.map !== null ? mover.rewrite(entry.map) : null
    return entry.type !== 'file' || map === null || map === entry.map ? entry : { ...entry, map }
  })
  if (entries.every((entry, index) => entry === newest.manifest.entries[index])) return undefined
  options.beforePublish()
  return publishGeneration(share, {
    ...newest.manifest,
    generation: newest.number + 1,
    parent: { generation: newest.number, digest: newest.digest },
    session: randomBytes(16).toString('hex'),
    created: new Date().toISOString(),
    client: { id: client.id, host: client.host },
    changedBytes: 0,
    sentBytes: mover.sentBytes,
    restores: undefined,
    checkpoint: undefined,
    compaction: true,
    entries
  })
}

/** Whether `later` is nothing but `earlier` in other chunks. */
export function isCompactedInto(earlier: LiveGeneration, later: LiveGeneration): boolean {
  const { manifest } = later.published
  return manifest.compaction === true && manifest.parent?.digest === earlier.published.digest
}

class Mover {
  sentBytes = 0
  readonly #options: Compacting
  readonly #origin: Origin
  /** by old place */
  readonly #moved = new Map<string, BlockPlace>()
  #builder = new ChunkBuilder()
  #waiting: { readonly block: BlockPlace; readonly encoded: Encoded }[] = []

  constructor(options: Compacting) {
    this.#options = options
    this.#origin = options.origin ?? originOn(options.share)
  }

  /** Copies the blocks of one file that lie in sparse chunks. Their places are known after the flush. */
  moveBlocks(map: ObjectPlace): void {
    const { onStep } = this.#options
    for (const place of this.#origin.root(map)?.values() ?? []) {
      const page = this.#origin.page(place)
      for (const [, block] of page === undefined ? [] : placesOf(page)) {
        if (this.#isSparse(block) && !this.#moved.has(keyOf(block))) this.#move(block)
      }
      onStep()
    }
  }

  flush(): void {
    if (this.#waiting.length === 0) return
    const { share, onStep } = this.#options
    const { chunk, offsets, sentBytes } = this.#builder.write(share)
    this.sentBytes += sentBytes
    for (const [index, { block, encoded }] of this.#waiting.entries()) {
      const offset = offsets[index]
      assert(offset !== undefined, 'a block of the new chunk has no place')
      const { encoding, bytes } = encoded
      const place = { ...block, encoding, chunk, offset, storedBytes: bytes.length }
      decodeBlock(readStored(share, place), place) // invariant 2
      this.#moved.set(keyOf(block), place)
    }
    this.#builder = new ChunkBuilder()
    this.#waiting = []
    onStep()
  }

  /** The file's map with the new places; the old one when nothing of it was in a sparse chunk. */
  rewrite(map: ObjectPlace): ObjectPlace {
    const { share, onStep } = this.#options
    const root = this.#origin.root(map)
    if (root === undefined) return map
    const pages = new Map(root)
    let waiting: { index: number; before: MapPage; bytes: Buffer }[] = []
    const writePages = (): void => {
      const places = this.#write(waiting.map(({ bytes }) => bytes))
      for (const [position, { index, before }] of waiting.entries()) {
        const place = places[position]
        assert(place !== undefined, 'a map page was not written')
        requireSameDigests(before, readPage(share, place)) // invariant 3
        pages.set(index, place)
      }
      waiting = []
    }
    for (const [index, place] of root) {
      const before = this.#origin.page(place)
      const bytes = before && this.#rewritePage(before, place)
      if (before !== undefined && bytes !== undefined) waiting.push({ index, before, bytes })
      if (waiting.length === PAGES_PER_BATCH) writePages()
      onStep()
    }
    if (waiting.length > 0) writePages()
    if (!this.#mustLeave(map) && [...root].every(([index, place]) => pages.get(index) === place)) return map
    const [written] = this.#write([encodeMapRoot(pages)])
    assert(written !== undefined, 'a map root was not written')
    assert.deepEqual([...readRoot(share, written)], [...pages], 'the new root is not what it has to be')
    return written
  }

  /** The page's bytes with the new places; undefined when it can stay as it is. */
  #rewritePage(page: MapPage, at: ObjectPlace): Buffer | undefined {
    const places = Array.from({ length: BLOCKS_PER_MAP_PAGE }, (_, index) => page.place(index))
    const hasMoved = places.some((block) => block !== undefined && this.#moved.has(keyOf(block)))
    if (!hasMoved && !this.#mustLeave(at)) return undefined
    const bytes = encodeMapPage(places.map((block) => block && (this.#moved.get(keyOf(block)) ?? block)))
    assert(bytes !== undefined, 'a page without blocks was listed')
    return bytes
  }

  #move(block: BlockPlace): void {
    const encoded = this.#origin.block(block)
    if (encoded === undefined) return
    if (!this.#builder.fits(encoded)) this.flush()
    this.#builder.add(encoded)
    const digest = Buffer.from(block.digest) // not a view that keeps its page in memory
    this.#waiting.push({ block: { ...block, digest }, encoded })
    this.#moved.set(keyOf(block), block) // until the flush: only so that it is copied once
  }

  #write(objects: readonly Buffer[]): ObjectPlace[] {
    const { places, sentBytes } = writeObjects(this.#options.share, objects)
    this.sentBytes += sentBytes
    return places
  }

  #mustLeave(place: ObjectPlace): boolean {
    return this.#isSparse(place) && !this.#origin.mayStay(place)
  }

  #isSparse({ chunk }: { readonly chunk: string }): boolean {
    return this.#options.sparse.chunks.has(chunk)
  }
}

function originOn(share: Share): Origin {
  return {
    root: (place) => readRoot(share, place),
    page: (place) => readPage(share, place),
    mayStay: () => false,
    block: (place) => {
      const bytes = readStored(share, place)
      decodeBlock(bytes, place) // invariant 2
      return { encoding: place.encoding, bytes }
    }
  }
}

function requireSameDigests(before: MapPage, after: MapPage): void {
  for (let index = 0; index < BLOCKS_PER_MAP_PAGE; index++) {
    const [was, is] = [before.digest(index), after.digest(index)]
    assert(was === undefined ? is === undefined : is?.equals(was) === true, 'a block changed while it was moved')
  }
}

function* placesOf(page: MapPage): Generator<[number, BlockPlace]> {
  for (let index = 0; index < BLOCKS_PER_MAP_PAGE; index++) {
    const place = page.place(index)
    if (place !== undefined) yield [index, place]
  }
}

function rootPlaces(published: PublishedGeneration): ObjectPlace[] {
  return [...rootsOf([{ name: '', published }]).values()].map(({ place }) => place)
}

function keyOf({ chunk, offset, digest }: BlockPlace): string {
  return `${chunk}:${String(offset)}:${digest.toString('hex')}`
}
