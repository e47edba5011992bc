/**
 * Block maps of the base generation, as far as they were needed: decoded roots and pages in bounded memory, loaded
 * through an injected loader (local map files first, then the share). Looking up is synchronous once a page is here.
 */
import { LRUCache } from 'lru-cache'
import { BLOCKS_PER_MAP_PAGE } from '../base/units.js'
import { decodeMapRoot, MapPage, type MapRoot } from '../format/block-map.js'
import type { BlockPlace, ObjectPlace } from '../format/place.js'

const PAGES_BYTES_MAX = 32 * 1024 * 1024
const ROOTS_BYTES_MAX = 32 * 1024 * 1024

/** Returns the verified plain bytes of a map object. */
export type MapLoader = (place: ObjectPlace) => Promise<Buffer>

export class BaseMaps {
  readonly #load: MapLoader
  readonly #roots = new LRUCache<string, MapRoot>({ maxSize: ROOTS_BYTES_MAX })
  readonly #pages = new LRUCache<string, MapPage>({ maxSize: PAGES_BYTES_MAX })
  readonly #loading = new Map<string, Promise<Buffer>>()

  constructor(load: MapLoader) {
    this.#load = load
  }

  /** Map page `pageIndex` of a file; null when all of its blocks are zero. */
  async page(map: ObjectPlace | null, pageIndex: number): Promise<MapPage | null> {
    if (map === null) return null
    const root = this.#roots.get(map.digest) ?? (await this.root(map))
    const place = root.get(pageIndex)
    if (place === undefined) return null
    const known = this.#pages.get(place.digest)
    if (known !== undefined) return known
    const bytes = await this.#once(place)
    const page = new MapPage(bytes)
    this.#pages.set(place.digest, page, { size: bytes.length })
    return page
  }

  /** What is in memory of it: undefined when that is not known, null when all of its blocks are zero. */
  knownPage(map: ObjectPlace | null, pageIndex: number): MapPage | null | undefined {
    if (map === null) return null
    const root = this.#roots.peek(map.digest)
    if (root === undefined) return undefined
    const place = root.get(pageIndex)
    return place === undefined ? null : this.#pages.peek(place.digest)
  }

  async root(map: ObjectPlace): Promise<MapRoot> {
    const known = this.#roots.get(map.digest)
    if (known !== undefined) return known
    const bytes = await this.#once(map)
    const root = decodeMapRoot(bytes)
    this.#roots.set(map.digest, root, { size: 256 + root.size * 300 })
    return root
  }

  /** Where a block lies; undefined when it is zero. */
  async place(map: ObjectPlace | null, block: number): Promise<BlockPlace | undefined> {
    const page = await this.page(map, Math.floor(block / BLOCKS_PER_MAP_PAGE))
    return page?.place(block % BLOCKS_PER_MAP_PAGE)
  }

  /** One load at a time for one object; the others wait for it. */
  #once(place: ObjectPlace): Promise<Buffer> {
    const running = this.#loading.get(place.digest)
    if (running !== undefined) return running
    const started = this.#load(place).finally(() => this.#loading.delete(place.digest))
    this.#loading.set(place.digest, started)
    return started
  }
}
