/** Where a worker finds the bytes of a dirty block. */
import type { Priority } from '../base/turn.js'
import { regionOf } from '../base/units.js'
import type { BaseMaps } from '../cache/base-maps.js'
import type { Cache } from '../cache/cache.js'
import type { Session } from '../session/session.js'
import type { DirtyBlock } from './dirty.js'
import type { BlockSource } from './encode-source.js'

export interface DirtyLayers {
  readonly session: Session
  /** undefined when a session is recovered without a cache */
  readonly cache: Cache | undefined
  readonly maps: BaseMaps
}

/** Rejects when a page of the base's map cannot be read. */
export async function sourceOf(
  dirty: DirtyBlock,
  { session, cache, maps }: DirtyLayers,
  priority: Priority = 'demand'
): Promise<BlockSource> {
  const { inode, block, uploaded } = dirty
  const { region, offset } = regionOf(block)
  const base = uploaded === undefined ? await maps.place(inode.base?.map ?? null, block, priority) : uploaded.place
  return {
    kind: 'layers',
    session: dirty.valid.length === 0 ? null : session.regionPath(inode.id, region),
    sessionOffset: offset,
    valid: dirty.valid,
    zeroPages: dirty.punched,
    baseBytesMax: dirty.baseBytes,
    cachePath: cache?.pathOf(inode.id, region) ?? null,
    cacheOffset: offset,
    base,
    baseIsNew: uploaded !== undefined
  }
}
