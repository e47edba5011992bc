/**
 * SEEK_DATA and SEEK_HOLE over session and base: a page of the session or a block of the base that is not all zero
 * is data. Steps over 128 MiB where the map has no page, so that a sparse terabyte costs what its map costs.
 */
import { getBit } from '../base/bits.js'
import { PosixError } from '../base/errors.js'
import { BLOCK_BYTES, BLOCKS_PER_MAP_PAGE, PAGE_BYTES, PAGES_PER_REGION, REGION_BYTES } from '../base/units.js'
import type { BaseMaps } from '../cache/base-maps.js'
import type { MapPage } from '../format/block-map.js'
import type { Inode } from '../session/namespace-types.js'

const MAP_PAGE_SPAN_BYTES = BLOCKS_PER_MAP_PAGE * BLOCK_BYTES

/** The first byte at or after `offset` that is data (or a hole). Rejects with ENXIO when there is no data. */
export async function findDataOrHole(
  inode: Inode,
  offset: number,
  whence: 'data' | 'hole',
  maps: BaseMaps
): Promise<number> {
  let position = offset
  while (position < inode.sizeBytes) {
    const pageIndex = Math.floor(position / MAP_PAGE_SPAN_BYTES)
    const map = position < inode.baseLimitBytes ? (inode.base?.map ?? null) : null
    const mapPage = await maps.page(map, pageIndex)
    const spanEnd = Math.min((pageIndex + 1) * MAP_PAGE_SPAN_BYTES, inode.sizeBytes)
    const found = findInSpan(inode, position, spanEnd, whence, mapPage)
    if (found !== undefined) return Math.min(found, inode.sizeBytes)
    position = spanEnd
  }
  if (whence === 'hole') return inode.sizeBytes // the end of the file is a hole
  throw new PosixError('ENXIO')
}

function findInSpan(
  inode: Inode,
  from: number,
  end: number,
  whence: 'data' | 'hole',
  mapPage: MapPage | null
): number | undefined {
  let position = from
  while (position < end) {
    const modified = inode.regions.get(Math.floor(position / REGION_BYTES))
    const step = modified === undefined ? (mapPage === null ? REGION_BYTES : BLOCK_BYTES) : PAGE_BYTES // uploaded blocks have a region
    const page = Math.floor(position / PAGE_BYTES) % PAGES_PER_REGION
    const valid = modified !== undefined && getBit(modified.valid, page)
    const punched = modified?.punched !== undefined && getBit(modified.punched, page)
    const isData = valid || (!punched && hasLowerData(inode, position, mapPage))
    if (isData === (whence === 'data')) return position
    position = (Math.floor(position / step) + 1) * step
  }
  return undefined
}

/** Whether what lies below the session's pages has bytes there. */
function hasLowerData(inode: Inode, position: number, mapPage: MapPage | null): boolean {
  const block = Math.floor(position / BLOCK_BYTES)
  const uploaded = inode.uploaded.get(block)
  if (uploaded !== undefined)
    return uploaded.place !== undefined && position < block * BLOCK_BYTES + uploaded.limitBytes
  return position < inode.baseLimitBytes && mapPage?.digest(block % BLOCKS_PER_MAP_PAGE) !== undefined
}
