/**
 * Block maps of the base generation, as far as they were needed: decoded roots and pages in bounded memory, loaded
 * through an injected loader (local map files first, then the share). Looking up is synchronous once a page is here. A load
 * has the priority of the most urgent of those who wait for it.
 */
import { LRUCache } from 'lru-cache'
import { type Priority, Turn } from '../base/turn.js'
import { BLOCKS_PER_MAP_PAGE } from '../base/units.js'
import { decodeMapRoot, MapPage, type MapRoot } from '../format/block-map.js'
import type { BlockPlace, ObjectPlace } from '../format/place.js'

const PAGES_BYTES_MAX = 32 * 1024 * 1024
const ROOTS_BYTES_MAX = 32 * 1024 * 1024

/** Returns the verified plain bytes of a map object. `turn` is raised when somebody more urgent begins to wait for it. */
export type MapLoader = (place: ObjectPlace, turn: Turn) => Promise<Buffer>

export class BaseMaps {
  readonly #load: MapLoader
  readonly #roots = new LRUCache<string, MapRoot>({ maxSize: ROOTS_BYTES_MAX })
  readonly #pages = new LRUCache<string, MapPage>({ maxSize: PAGES_BYTES_MAX })
  readonly #loading = new Map<string, { readonly bytes: Promise<Buffer>; readonly turn: Turn }>()

  constructor(load: MapLoader) {
    this.#load = load
  }

  /** Map page `pageIndex` of a file; null when all of its blocks are zero. */
  async page(map: ObjectPlace | null, pageIndex: number, priority: Priority = 'demand'): Promise<MapPage | null> {
    if (map === null) return null
    const root = this.#roots.get(map.digest) ?? (await this.root(map, priority))
    const place = root.get(pageIndex)
    if (place === undefined) return null
    const known = this.#pages.get(place.digest)
    if (known !== undefined) return known
    const bytes = await this.#once(place, priority)
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

  async root(map: ObjectPlace, priority: Priority = 'demand'): Promise<MapRoot> {
    const known = this.#roots.get(map.digest)
    if (known !== undefined) return known
    const bytes = await this.#once(map, priority)
    const root = decodeMapRoot(bytes)
    this.#roots.set(map.digest, root, { size: 256 + root.size * 300 })
    return root
  }

  /** Where a block lies; undefined when it is zero. */
  async place(map: ObjectPlace | null, block: number, priority: Priority = 'demand'): Promise<BlockPlace | undefined> {
    const page = await this.page(map, Math.floor(block / BLOCKS_PER_MAP_PAGE), priority)
    return page?.place(block % BLOCKS_PER_MAP_PAGE)
  }

  /** One load at a time for one object; the others wait for it. */
  #once(place: ObjectPlace, priority: Priority): Promise<Buffer> {
    const running = this.#loading.get(place.digest)
    running?.turn.raise(priority)
    if (running !== undefined) return running.bytes
    const turn = new Turn(priority)
    const bytes = this.#load(place, turn).finally(() => this.#loading.delete(place.digest))
    this.#loading.set(place.digest, { bytes, turn })
    return bytes
  }
}
