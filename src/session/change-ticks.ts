/**
 * When each region was last changed, on a clock that only counts changes: which region is coldest, and whether one has
 * changed since somebody looked. For blocks a coarser clock, of epochs that whoever looks begins: 512 bytes for each
 * changed region. Lives in memory: after a restart all of them are equally old.
 */
import { BLOCKS_PER_REGION, type InodeId } from '../base/units.js'

interface RegionTicks {
  tick: number
  /** epoch of the last change, by block of the region */
  readonly epochs: Uint32Array
}

export class ChangeTicks {
  #now = 0
  #epoch = 1
  readonly #regions = new Map<InodeId, Map<number, RegionTicks>>()

  /** Blocks first..last of the region may have changed. */
  touch(inode: InodeId, region: number, first = 0, last = BLOCKS_PER_REGION - 1): void {
    let regions = this.#regions.get(inode)
    if (regions === undefined) this.#regions.set(inode, (regions = new Map<number, RegionTicks>()))
    let ticks = regions.get(region)
    if (ticks === undefined) regions.set(region, (ticks = { tick: 0, epochs: new Uint32Array(BLOCKS_PER_REGION) }))
    ticks.tick = ++this.#now
    ticks.epochs.fill(this.#epoch, first, last + 1)
  }

  forget(inode: InodeId): void {
    this.#regions.delete(inode)
  }

  /** of the region's last change; 0: not since the session was opened */
  of(inode: InodeId, region: number): number {
    return this.#regions.get(inode)?.get(region)?.tick ?? 0
  }

  /** Every change from now on has this epoch, or a later one. */
  beginEpoch(): number {
    return ++this.#epoch
  }

  /** of the last change of a block of the region; 0: not since the session was opened */
  epochOf(inode: InodeId, region: number, blockInRegion: number): number {
    return this.#regions.get(inode)?.get(region)?.epochs[blockInRegion] ?? 0
  }
}
