/**
 * The base of a session on a share that has lost it, because the share went back in time: what of it can still be had is
 * put on the share again, and the rest is named.
 *
 *     the files that the session shows -> map objects: share, else cache -> blocks: their chunk, else cache -> sent anew
 *
 * Invariants:
 * 1. Bytes count only with the digest that the base's manifest leads to, wherever they were found.
 * 2. What is lost is never shown as something else: whoever reads it in the branch gets an error, and its place stays, so
 *    that a chunk that comes back makes it readable again. There is one exception, for bytes that share their block
 *    with accepted ones: those read as zeros.
 * 3. What the session has written over, or cut off, is not lost.
 * Nothing that a generation needs is touched; the session is only read.
 */
import { sha256 } from '../base/digest.js'
import { IntegrityError } from '../base/errors.js'
import { BLOCK_BYTES, BLOCKS_PER_MAP_PAGE, PAGE_BYTES, PAGES_PER_BLOCK } from '../base/units.js'
import type { CachedBytes } from '../cache/find-cached.js'
import { decodeMapRoot, encodeMapPage, encodeMapRoot, MapPage, type MapRoot } from '../format/block-map.js'
import type { PublishedGeneration } from '../format/generations.js'
import type { ManifestEntry } from '../format/manifest.js'
import type { BlockPlace, ObjectPlace } from '../format/place.js'
import type { Inode } from '../session/namespace-types.js'
import type { Session } from '../session/session.js'
import type { CommitPool } from './commit-pool.js'
import { contentMayDiffer, describeBlock, dirtyBlockNumbers, firstDroppedBlock } from './dirty.js'
import { type BlockSource, UNIT_BLOCKS_MAX } from './encode.js'
import { LostRanges, type LostRange } from './lost-ranges.js'
import type { FileMap } from './map-rewrite.js'

const PAGES_PER_BATCH = 128
/** no bytes have it: a block of which even the digest is lost is no other one */
const LOST_DIGEST = sha256(Buffer.from('isrfs: a block whose place in the map is lost'))
const LOST_PLACE = { encoding: 'raw', offset: 0, storedBytes: 1 } as const
const OBJECT_BYTES_MIN = 16
const ALL_PAGES = Array.from({ length: PAGES_PER_BLOCK }, (_, page) => page)

export interface SalvageOptions {
  readonly pool: CommitPool
  /** opened over `base` */
  readonly session: Session
  /** from a copy of its manifest */
  readonly base: PublishedGeneration
  readonly cached: CachedBytes
  readonly onStep: () => void
}

export interface Salvaged {
  /** the same content under the same number and digest, its maps naming what is on the share now */
  readonly base: PublishedGeneration
  readonly lost: readonly LostRange[]
}

/** Places of the blocks of one map page; undefined: all zero. */
type PageEntries = (BlockPlace | undefined)[]

export async function salvageBase(options: SalvageOptions): Promise<Salvaged> {
  return new Salvage(options).run()
}

class Salvage {
  readonly #options: SalvageOptions
  readonly #lost: LostRanges
  /** of chunks: bytes that the share has of them */
  readonly #sizes = new Map<string, number>()

  constructor(options: SalvageOptions) {
    this.#options = options
    this.#lost = new LostRanges(options.session.namespace)
  }

  async run(): Promise<Salvaged> {
    const { base, session } = this.#options
    const maps = new Map<number, FileMap>()
    for (const inode of session.namespace.inodes()) {
      const map = inode.base?.map ?? null
      if (inode.type !== 'file' || inode.parent === 0 || map === null) continue
      maps.set(inode.id, await this.#salvageFile(inode, { map, dataBlocks: inode.base?.dataBlocks ?? 0 }))
    }
    const entries = base.manifest.entries.map((entry): ManifestEntry => {
      const map = maps.get(entry.inode)
      return entry.type === 'file' && map !== undefined ? { ...entry, ...map } : entry
    })
    return { base: { ...base, manifest: { ...base.manifest, entries } }, lost: this.#lost.all() }
  }

  async #salvageFile(inode: Inode, old: FileMap & { readonly map: ObjectPlace }): Promise<FileMap> {
    const blocksEnd = Math.min(firstDroppedBlock(inode), Math.ceil((inode.base?.sizeBytes ?? 0) / BLOCK_BYTES))
    const found = await this.#object(old.map)
    if (found === undefined && !contentMayDiffer(inode)) {
      this.#lost.add(inode, 0, blocksEnd, 'unreadable')
      return old
    }
    const root = found === undefined ? lostRoot(old.map, blocksEnd) : decodeMapRoot(found.bytes)
    const writer = new MapWriter(this.#options.pool, root)
    const dirty = new Set(dirtyBlockNumbers(inode))
    let dataBlocks = 0
    for (const [page, place] of root) {
      const salvaged = await this.#salvagePage({ inode, dirty, blocksEnd }, page, place)
      dataBlocks += salvaged.entries.filter((entry) => entry !== undefined).length
      if (salvaged.isNew) await writer.replace(page, salvaged.entries)
      this.#options.onStep()
    }
    if (found?.isOnShare === true && !writer.hasChanged) return old
    // a file that is as it was in the base has as many blocks as it had, whether their places are known or not
    return { map: await writer.finish(), dataBlocks: contentMayDiffer(inode) ? dataBlocks : old.dataBlocks }
  }

  /** A page of a file that is as it was in the base stays as it is when it is lost; else the commit has to read it. */
  async #salvagePage(
    file: { readonly inode: Inode; readonly dirty: ReadonlySet<number>; readonly blocksEnd: number },
    page: number,
    place: ObjectPlace
  ): Promise<{ readonly entries: PageEntries; readonly isNew: boolean }> {
    const { inode, blocksEnd } = file
    const start = page * BLOCKS_PER_MAP_PAGE
    const end = Math.max(0, Math.min(blocksEnd - start, BLOCKS_PER_MAP_PAGE))
    const found = await this.#object(place)
    if (found === undefined && !contentMayDiffer(inode)) {
      this.#lost.add(inode, start, start + end, 'unreadable')
      return { entries: [], isNew: false }
    }
    if (found === undefined) {
      const entries: PageEntries = Array.from({ length: end }, () => lostBlock(place.chunk))
      this.#lose(file, start, entries, [...entries.keys()])
      return { entries, isNew: true }
    }
    const map = new MapPage(found.bytes)
    const entries: PageEntries = Array.from({ length: BLOCKS_PER_MAP_PAGE }, (_, index) => map.place(index))
    const missing = await this.#missing(entries.slice(0, end))
    const lost = await this.#send(entries, missing)
    const holes = this.#lose(file, start, entries, lost)
    return { entries, isNew: !found.isOnShare || lost.length < missing.length || holes > 0 }
  }

  /** Verified plain bytes of a map object; undefined when neither the share nor the cache has it. */
  async #object(place: ObjectPlace): Promise<{ readonly bytes: Buffer; readonly isOnShare: boolean } | undefined> {
    const { pool, cached } = this.#options
    try {
      const bytes = await pool.run('mapObject', { place, candidate: undefined })
      return { bytes: Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength), isOnShare: true }
    } catch (error) {
      if (!(error instanceof IntegrityError)) throw error
      const bytes = cached.mapObject(place.digest)
      return bytes === undefined ? undefined : { bytes, isOnShare: false }
    }
  }

  /** Positions of blocks whose chunk the share does not have, or not all of. */
  async #missing(entries: Readonly<PageEntries>): Promise<number[]> {
    const chunks = new Set(entries.flatMap((place) => (place === undefined ? [] : [place.chunk])))
    const unknown = [...chunks].filter((chunk) => !this.#sizes.has(chunk))
    const sizes = unknown.length === 0 ? [] : await this.#options.pool.run('chunkSizes', { chunks: unknown })
    for (const [index, chunk] of unknown.entries()) this.#sizes.set(chunk, sizes[index] ?? 0)
    return entries.flatMap((place, index) => {
      if (place === undefined) return []
      return (this.#sizes.get(place.chunk) ?? 0) < place.offset + place.storedBytes ? [index] : []
    })
  }

  /** Sends what the cache has of the blocks, and enters their new places. Returns the positions of the others. */
  async #send(entries: PageEntries, missing: readonly number[]): Promise<number[]> {
    const lost: number[] = []
    for (let at = 0; at < missing.length; at += UNIT_BLOCKS_MAX) {
      const unit: { readonly index: number; readonly plain: Buffer }[] = []
      for (const index of missing.slice(at, at + UNIT_BLOCKS_MAX)) {
        const plain = this.#options.cached.block(entries[index]?.digest.toString('hex') ?? '')
        if (plain === undefined) lost.push(index)
        else unit.push({ index, plain })
      }
      if (unit.length === 0) continue
      const { results } = await this.#options.pool.run('encode', { blocks: unit.map(({ plain }) => sourceOf(plain)) })
      for (const [position, { index }] of unit.entries()) {
        const result = results[position]
        if (result?.state === 'placed') entries[index] = result.place
        else lost.push(index)
      }
    }
    return lost
  }

  /**
   * Invariants 2 and 3. What the session has written to such a block is put over nothing, so that the commit sends it even
   * when it is what was lost. Returns how many of these there are.
   */
  #lose(
    { inode, dirty }: { readonly inode: Inode; readonly dirty: ReadonlySet<number> },
    start: number,
    entries: PageEntries,
    lost: readonly number[]
  ): number {
    let holes = 0
    for (const index of lost) {
      const block = start + index
      const isDirty = dirty.has(block)
      if (!isDirty || !coversBase(inode, block))
        this.#lost.add(inode, block, block + 1, isDirty ? 'zeros' : 'unreadable')
      if (!isDirty) continue
      entries[index] = undefined
      holes++
    }
    return holes
  }
}

/** Writes those pages of a file's map that are new, in batches, then its root. */
class MapWriter {
  hasChanged = false
  readonly #pool: CommitPool
  readonly #root: Map<number, ObjectPlace>
  #waiting: { readonly page: number; readonly bytes: Buffer }[] = []

  constructor(pool: CommitPool, root: MapRoot) {
    this.#pool = pool
    this.#root = new Map(root)
  }

  async replace(page: number, entries: Readonly<PageEntries>): Promise<void> {
    this.hasChanged = true
    const bytes = encodeMapPage(entries)
    if (bytes === undefined) this.#root.delete(page)
    else this.#waiting.push({ page, bytes })
    if (this.#waiting.length >= PAGES_PER_BATCH) await this.#flush()
  }

  /** Where the new root lies; null when every block is zero. */
  async finish(): Promise<ObjectPlace | null> {
    await this.#flush()
    if (this.#root.size === 0) return null
    const [place] = await this.#write([encodeMapRoot(this.#root)])
    return place ?? null
  }

  async #flush(): Promise<void> {
    if (this.#waiting.length === 0) return
    const places = await this.#write(this.#waiting.map(({ bytes }) => bytes))
    for (const [index, { page }] of this.#waiting.entries()) {
      const place = places[index]
      if (place !== undefined) this.#root.set(page, place)
    }
    this.#waiting = []
  }

  async #write(objects: readonly Buffer[]): Promise<ObjectPlace[]> {
    const { places } = await this.#pool.run('objects', { objects })
    if (places.length !== objects.length) throw new Error('a map object was not written')
    return places
  }
}

/** Whether nothing of the base's block counts any more. */
function coversBase(inode: Inode, block: number): boolean {
  const { valid, punched, baseBytes, uploaded } = describeBlock(inode, block)
  if (uploaded !== undefined) return true
  const own = new Set([...valid, ...punched])
  return ALL_PAGES.slice(0, Math.ceil(baseBytes / PAGE_BYTES)).every((page) => own.has(page))
}

/** A root of which only the length of the file is known: each of its pages is lost. */
function lostRoot({ chunk }: ObjectPlace, blocksEnd: number): MapRoot {
  const place = { ...LOST_PLACE, chunk, plainBytes: OBJECT_BYTES_MIN, digest: LOST_DIGEST.toString('hex') }
  return new Map(Array.from({ length: Math.ceil(blocksEnd / BLOCKS_PER_MAP_PAGE) }, (_, page) => [page, place]))
}

/** A place at which nothing can be read, in the chunk that is missing. */
function lostBlock(chunk: string): BlockPlace {
  return { ...LOST_PLACE, chunk, digest: LOST_DIGEST }
}

/** Its bytes are here: no layer lies below them. */
function sourceOf(plain: Buffer): BlockSource {
  return {
    kind: 'layers',
    session: null,
    sessionOffset: 0,
    staged: plain,
    valid: ALL_PAGES,
    zeroPages: [],
    baseBytesMax: 0,
    cachePath: null,
    cacheOffset: 0,
    base: undefined,
    baseIsNew: false
  }
}
