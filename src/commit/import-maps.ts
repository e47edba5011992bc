/**
 * The block maps of an import, made page by page as blocks arrive, so that memory does not grow with the size of the
 * VM: a page's places are kept until the page is complete, and are then encoded. Pages that are what the previous
 * generation has are not written again.
 */
import assert from 'node:assert/strict'
import { BLOCKS_PER_MAP_PAGE } from '../base/units.js'
import { encodeMapPage, encodeMapRoot, type MapPage, type MapRoot } from '../format/block-map.js'
import type { BlockPlace, ObjectPlace } from '../format/place.js'
import { blockCount } from './import-units.js'
import type { FileMap, ObjectWriter } from './map-rewrite.js'

/** pages (or roots) that are written together: 128 pages have at most 6 MiB */
const OBJECTS_PER_BATCH = 128

interface OpenPage {
  readonly places: (BlockPlace | undefined)[]
  readonly old: MapPage | null
  missing: number
}

/** One file's new map. Every block is set once. */
export class FileMapBuilder {
  readonly #blocks: number
  readonly #old: FileMap
  readonly #oldRoot: MapRoot
  readonly #open = new Map<number, OpenPage>()
  readonly #root = new Map<number, ObjectPlace>()
  #dataBlocks = 0

  constructor(sizeBytes: number, old: FileMap = { map: null, dataBlocks: 0 }, oldRoot: MapRoot = new Map()) {
    this.#blocks = blockCount(sizeBytes)
    this.#old = old
    this.#oldRoot = oldRoot
  }

  /** Has to come before the first `set` of a block in the page; `old` is the page of the previous generation. */
  begin(page: number, old: MapPage | null): void {
    if (this.#open.has(page)) return
    const blocks = Math.min(BLOCKS_PER_MAP_PAGE, this.#blocks - page * BLOCKS_PER_MAP_PAGE)
    this.#open.set(page, { places: new Array<BlockPlace | undefined>(blocks).fill(undefined), old, missing: blocks })
  }

  /** Digest of the block in the previous generation; undefined when it is zero or new. */
  oldDigest(block: number): Buffer | undefined {
    return this.#page(block).old?.digest(block % BLOCKS_PER_MAP_PAGE)
  }

  /** Returns the page's bytes when this block completes it and it has to be written; then `written` has to follow. */
  set(
    block: number,
    place: BlockPlace | 'same' | undefined
  ): { readonly page: number; readonly bytes: Buffer } | undefined {
    const index = block % BLOCKS_PER_MAP_PAGE
    const open = this.#page(block)
    open.places[index] = place === 'same' ? open.old?.place(index) : place
    if (open.places[index] !== undefined) this.#dataBlocks++
    open.missing--
    if (open.missing > 0) return undefined
    const page = Math.floor(block / BLOCKS_PER_MAP_PAGE)
    this.#open.delete(page)
    const bytes = encodeMapPage(open.places)
    if (bytes === undefined) return undefined
    const oldPlace = this.#oldRoot.get(page)
    if (oldPlace === undefined || open.old?.bytes.equals(bytes) !== true) return { page, bytes }
    this.#root.set(page, oldPlace)
    return undefined
  }

  written(page: number, place: ObjectPlace): void {
    this.#root.set(page, place)
  }

  /** The finished map, or the bytes of the root that has to be written for it. */
  finish(): { readonly map: FileMap } | { readonly root: Buffer; readonly dataBlocks: number } {
    assert(this.#open.size === 0, 'a map is finished before all of its blocks are known')
    if (this.#root.size === 0) return { map: { map: null, dataBlocks: 0 } }
    if (sameRoot(this.#root, this.#oldRoot)) return { map: this.#old }
    return { root: encodeMapRoot(this.#root), dataBlocks: this.#dataBlocks }
  }

  #page(block: number): OpenPage {
    const open = this.#open.get(Math.floor(block / BLOCKS_PER_MAP_PAGE))
    assert(open !== undefined, 'a block of a map page that was not begun or is complete')
    return open
  }
}

/** Collects complete pages of all files and writes them in batches. */
export class MapPageWriter {
  readonly #write: ObjectWriter
  #waiting: { builder: FileMapBuilder; page: number; bytes: Buffer }[] = []

  constructor(write: ObjectWriter) {
    this.#write = write
  }

  async add(builder: FileMapBuilder, page: number, bytes: Buffer): Promise<void> {
    this.#waiting.push({ builder, page, bytes })
    if (this.#waiting.length >= OBJECTS_PER_BATCH) await this.flush()
  }

  async flush(): Promise<void> {
    const batch = this.#waiting
    this.#waiting = [] // before the await: pages that complete meanwhile belong to the next batch
    if (batch.length === 0) return
    const places = await this.#write(batch.map(({ bytes }) => bytes))
    for (const [index, { builder, page }] of batch.entries()) builder.written(page, placeAt(places, index))
  }
}

/** Finishes all maps; their roots are small and travel together. Maps come in the order of the builders. */
export async function finishMaps(builders: readonly FileMapBuilder[], write: ObjectWriter): Promise<FileMap[]> {
  const maps: FileMap[] = []
  for (let start = 0; start < builders.length; start += OBJECTS_PER_BATCH) {
    const finished = builders.slice(start, start + OBJECTS_PER_BATCH).map((builder) => builder.finish())
    const roots = finished.flatMap((result) => ('root' in result ? [result.root] : []))
    const places = roots.length === 0 ? [] : await write(roots)
    let next = 0
    for (const result of finished) {
      maps.push('root' in result ? { map: placeAt(places, next++), dataBlocks: result.dataBlocks } : result.map)
    }
  }
  return maps
}

function placeAt(places: readonly ObjectPlace[], index: number): ObjectPlace {
  const place = places[index]
  assert(place !== undefined, 'a map object was not written')
  return place
}

function sameRoot(first: MapRoot, second: MapRoot): boolean {
  if (first.size !== second.size) return false
  for (const [page, place] of first) if (second.get(page)?.digest !== place.digest) return false
  return true
}
