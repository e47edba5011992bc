/**
 * Where bytes lie on the share: inside a chunk, encoded, with the SHA-256 that their plain form must have.
 */

/** How stored bytes become plain ones. A zero block has no bytes and no place. */
export type Encoding = 'raw' | 'zstd'

/** One 128 KiB block of a VM file. `digest` is over all 131,072 plain bytes, zeros past the end of the file included. */
export interface BlockPlace {
  readonly encoding: Encoding
  /** SHA-256 of the chunk file, 64 lower-case hex digits: also its name */
  readonly chunk: string
  /** of the first stored byte in the chunk file */
  readonly offset: number
  readonly storedBytes: number
  /** 32 bytes */
  readonly digest: Buffer
}

/** A map page or a map root: like a block, but of its own plain length. */
export interface ObjectPlace {
  readonly encoding: Encoding
  readonly chunk: string
  readonly offset: number
  readonly storedBytes: number
  readonly plainBytes: number
  /** 64 lower-case hex digits */
  readonly digest: string
}
