/**
 * When each region was last changed, on a clock that only counts changes: which region is coldest, and whether one has
 * changed since somebody looked. Lives in memory: after a restart all regions are equally old.
 */
import type { InodeId } from '../base/units.js'

export class ChangeTicks {
  #now = 0
  readonly #regions = new Map<InodeId, Map<number, number>>()

  touch(inode: InodeId, region: number): void {
    const known = this.#regions.get(inode)
    if (known === undefined) this.#regions.set(inode, new Map([[region, ++this.#now]]))
    else known.set(region, ++this.#now)
  }

  forget(inode: InodeId): void {
    this.#regions.delete(inode)
  }

  /** of the region's last change; 0: not since the session was opened */
  of(inode: InodeId, region: number): number {
    return this.#regions.get(inode)?.get(region) ?? 0
  }
}
