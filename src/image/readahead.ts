/**
 * Readahead of sequential readers: a miss that continues an earlier one doubles that reader's window, any other begins a
 * reader. A reader who is through half of what was fetched ahead gets the next window, so that it never comes to the end of one.
 *
 * Several readers of a file are told apart by where they read, not by their handles: a VMM has one handle for all of its
 * guest's readers. Scattered misses are readers that nobody continues; they displace each other, and none that has a window.
 * Bounded by READERS_MAX readers of one file, each at most 1.5 x READAHEAD_BLOCKS_MAX blocks behind what is fetched for it.
 */
import { LRUCache } from 'lru-cache'
import type { InodeId } from '../base/units.js'

export const READAHEAD_BLOCKS_MAX = 64
/** of one file, that read sequentially; and as many misses that may become one */
export const READERS_MAX = 8
const FILES_MAX = 1024

interface Reader {
  /** behind what was asked for on its behalf */
  nextBlock: number
  /** blocks that were asked for ahead the last time */
  window: number
}

export class Readahead {
  readonly #files = new LRUCache<InodeId, FileReaders>({ max: FILES_MAX })

  /** Blocks to fetch beyond `lastBlock`, given that `firstBlock` to `lastBlock` were missed now. */
  afterMiss(inode: InodeId, firstBlock: number, lastBlock: number): number {
    let readers = this.#files.get(inode)
    if (readers === undefined) this.#files.set(inode, (readers = new FileReaders()))
    return readers.afterMiss(firstBlock, lastBlock)
  }

  /** The next blocks to fetch when `block`, which was fetched ahead, is read; undefined: there are enough. */
  afterHit(inode: InodeId, block: number): { readonly first: number; readonly count: number } | undefined {
    return this.#files.get(inode)?.afterHit(block)
  }
}

/** Those of one file, the last to read at the end of each list. */
class FileReaders {
  /** have a window */
  readonly #sequential: Reader[] = []
  /** missed once */
  readonly #others: Reader[] = []

  afterMiss(firstBlock: number, lastBlock: number): number {
    const continues = ({ nextBlock, window }: Reader): boolean =>
      firstBlock >= nextBlock - window && firstBlock <= nextBlock + 1
    const reader = take(this.#sequential, continues) ?? take(this.#others, continues)
    const window = reader === undefined ? 0 : Math.min(Math.max(4, reader.window * 2), READAHEAD_BLOCKS_MAX)
    put(window === 0 ? this.#others : this.#sequential, { nextBlock: lastBlock + 1 + window, window })
    return window
  }

  afterHit(block: number): { readonly first: number; readonly count: number } | undefined {
    const left = ({ nextBlock }: Reader): number => nextBlock - 1 - block
    const reader = take(this.#sequential, (each) => left(each) >= 0 && left(each) <= 1.5 * each.window)
    if (reader === undefined) return undefined
    put(this.#sequential, reader)
    if (left(reader) > reader.window / 2) return undefined
    const first = reader.nextBlock
    reader.window = Math.min(reader.window * 2, READAHEAD_BLOCKS_MAX)
    reader.nextBlock += reader.window
    return { first, count: reader.window }
  }
}

/** Takes the last one that is meant out of the list. */
function take(readers: Reader[], isMeant: (reader: Reader) => boolean): Reader | undefined {
  const index = readers.findLastIndex(isMeant)
  return index < 0 ? undefined : readers.splice(index, 1)[0]
}

/** The one that has not read for the longest time makes room. */
function put(readers: Reader[], reader: Reader): void {
  readers.push(reader)
  if (readers.length > READERS_MAX) readers.shift()
}
