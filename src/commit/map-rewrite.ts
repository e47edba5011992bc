/**
 * New block maps from old ones: only pages that a changed block or a truncate touches are made anew; the root is
 * copied with their places. Pages are written in batches, so memory does not grow with the file.
 */
import { BLOCKS_PER_MAP_PAGE } from '../base/units.js'
import type { BaseMaps } from '../cache/base-maps.js'
import { encodeMapPage, encodeMapRoot, type MapPage, type MapRoot } from '../format/block-map.js'
import type { BlockPlace, ObjectPlace } from '../format/place.js'

const PAGES_PER_BATCH = 128

/** Makes plain map objects durable; places in the order of the objects. */
export type ObjectWriter = (objects: readonly Buffer[]) => Promise<readonly ObjectPlace[]>

export interface FileMap {
  readonly map: ObjectPlace | null
  readonly dataBlocks: number
}

export interface MapChanges {
  /** block index -> its place, or undefined where it is zero now */
  readonly blocks: ReadonlyMap<number, BlockPlace | undefined>
  /** blocks of the old map from here on do not count any more */
  readonly firstDroppedBlock: number
}

/** Rewrites one file's map. Returns the old one when nothing in it changes. */
export async function rewriteMap(
  old: FileMap,
  changes: MapChanges,
  maps: BaseMaps,
  write: ObjectWriter
): Promise<FileMap> {
  const oldRoot: MapRoot = old.map === null ? new Map() : await maps.root(old.map)
  const byPage = groupByPage(changes.blocks)
  for (const page of oldRoot.keys()) {
    if ((page + 1) * BLOCKS_PER_MAP_PAGE > changes.firstDroppedBlock && !byPage.has(page)) byPage.set(page, new Map())
  }
  if (byPage.size === 0) return old
  const root = new Map(oldRoot)
  let { dataBlocks } = old
  let waiting: { page: number; bytes: Buffer }[] = []
  const flush = async (): Promise<void> => {
    const places = await write(waiting.map(({ bytes }) => bytes))
    for (const [index, { page }] of waiting.entries()) {
      const place = places[index]
      if (place === undefined) throw new Error('a map page was not written')
      root.set(page, place)
    }
    waiting = []
  }
  for (const [page, blocks] of [...byPage].sort(([first], [second]) => first - second)) {
    const before = await maps.page(old.map, page)
    const entries = mergePage(page, before, blocks, changes.firstDroppedBlock)
    dataBlocks += countPlaces(entries) - countOldPlaces(before)
    const bytes = encodeMapPage(entries)
    if (bytes === undefined) root.delete(page)
    else if (before?.bytes.equals(bytes) !== true) waiting.push({ page, bytes })
    if (waiting.length >= PAGES_PER_BATCH) await flush()
  }
  if (waiting.length > 0) await flush()
  if (root.size === 0) return { map: null, dataBlocks: 0 }
  if (sameRoot(root, oldRoot)) return old
  const [map] = await write([encodeMapRoot(root)])
  if (map === undefined) throw new Error('a map root was not written')
  return { map, dataBlocks }
}

function groupByPage(blocks: MapChanges['blocks']): Map<number, Map<number, BlockPlace | undefined>> {
  const byPage = new Map<number, Map<number, BlockPlace | undefined>>()
  for (const [block, place] of blocks) {
    const page = Math.floor(block / BLOCKS_PER_MAP_PAGE)
    const inPage = byPage.get(page) ?? new Map<number, BlockPlace | undefined>()
    inPage.set(block % BLOCKS_PER_MAP_PAGE, place)
    byPage.set(page, inPage)
  }
  return byPage
}

function mergePage(
  page: number,
  before: MapPage | null,
  blocks: ReadonlyMap<number, BlockPlace | undefined>,
  firstDroppedBlock: number
): (BlockPlace | undefined)[] {
  return Array.from({ length: BLOCKS_PER_MAP_PAGE }, (_, index) => {
    if (blocks.has(index)) return blocks.get(index)
    const dropped = page * BLOCKS_PER_MAP_PAGE + index >= firstDroppedBlock
    return dropped ? undefined : before?.place(index)
  })
}

function countPlaces(entries: readonly (BlockPlace | undefined)[]): number {
  return entries.filter((place) => place !== undefined).length
}

function countOldPlaces(page: MapPage | null): number {
  if (page === null) return 0
  let total = 0
  for (let index = 0; index < BLOCKS_PER_MAP_PAGE; index++) if (page.digest(index) !== undefined) total++
  return total
}

function sameRoot(first: MapRoot, second: MapRoot): boolean {
  if (first.size !== second.size) return false
  for (const [page, place] of first) if (second.get(page)?.digest !== place.digest) return false
  return true
}
