/**
 * How much of each chunk is used by what is kept, for `prune`: which chunks nobody needs, and which are mostly garbage. One
 * bit for each 4 KiB of a chunk, so memory grows with chunks (512 bytes each) and not with blocks. A piece that is
 * only partly used counts as used.
 */
import { CHUNK_BYTES_MAX } from '../base/units.js'

const PIECE_BYTES = 4096
const BITMAP_BYTES = CHUNK_BYTES_MAX / PIECE_BYTES / 8

interface Stored {
  readonly chunk: string
  readonly offset: number
  readonly storedBytes: number
}

export class ChunkUse {
  readonly #bitmaps = new Map<string, Uint8Array>()

  add({ chunk, offset, storedBytes }: Stored): void {
    let bitmap = this.#bitmaps.get(chunk)
    if (bitmap === undefined) this.#bitmaps.set(chunk, (bitmap = new Uint8Array(BITMAP_BYTES)))
    const last = Math.floor((offset + storedBytes - 1) / PIECE_BYTES)
    for (let piece = Math.floor(offset / PIECE_BYTES); piece <= last; piece++) {
      bitmap[piece >> 3] = (bitmap[piece >> 3] ?? 0) | (1 << (piece & 7))
    }
  }

  has(chunk: string): boolean {
    return this.#bitmaps.has(chunk)
  }

  chunks(): IterableIterator<string> {
    return this.#bitmaps.keys()
  }

  /** Rounded up to whole pieces. */
  usedBytes(chunk: string): number {
    let pieces = 0
    for (let byte of this.#bitmaps.get(chunk) ?? []) for (; byte > 0; byte &= byte - 1) pieces++
    return pieces * PIECE_BYTES
  }
}
