/**
 * Readahead of sequential readers: a miss that continues the last one doubles the window, any other closes it. A reader who is
 * through half of what was fetched ahead gets the next window, so that it never comes to the end of one.
 * Bounded by 1.5 x READAHEAD_BLOCKS_MAX blocks ahead of the reader of one file.
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

  /** The next blocks to fetch when `block`, which was fetched ahead, is read; undefined: there are enough. */
  afterHit(inode: InodeId, block: number): { readonly first: number; readonly count: number } | undefined {
    const stream = this.#streams.get(inode)
    if (stream === undefined || stream.window === 0) return undefined
    const left = stream.nextBlock - 1 - block
    if (left < 0 || left > stream.window / 2) return undefined
    const first = stream.nextBlock
    stream.window = Math.min(stream.window * 2, READAHEAD_BLOCKS_MAX)
    stream.nextBlock += stream.window
    return { first, count: stream.window }
  }
}
