/**
 * Readahead of sequential readers: a miss that continues the last one doubles the window, any other closes it.
 * Bounded by READAHEAD_BLOCKS_MAX blocks in flight for one file.
 */
import type { InodeId } from '../base/units.js'

export const READAHEAD_BLOCKS_MAX = 64
const STREAMS_MAX = 1024

export class Readahead {
  readonly #streams = new Map<InodeId, { nextBlock: number; window: number }>()

  /** Blocks to fetch beyond `lastBlock`, given that `firstBlock` to `lastBlock` were missed now. */
  afterMiss(inode: InodeId, firstBlock: number, lastBlock: number): number {
    const stream = this.#streams.get(inode)
    const sequential =
      stream !== undefined && firstBlock >= stream.nextBlock - stream.window && firstBlock <= stream.nextBlock + 1
    const window = sequential ? Math.min(Math.max(4, stream.window * 2), READAHEAD_BLOCKS_MAX) : 0
    if (this.#streams.size >= STREAMS_MAX && stream === undefined) this.#streams.clear()
    this.#streams.set(inode, { nextBlock: lastBlock + 1 + window, window })
    return window
  }
}
