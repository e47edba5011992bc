/**
 * Plain bytes <-> stored bytes: zstd, raw where that saves less than 1/16 (docs/format.md, "Blocks").
 * Decoding is bounded before it allocates and verified before anybody sees the result.
 */
// The WebAssembly build: one instance per thread. The package's native build shares one zstd context between all
// threads of the process, and two threads at once corrupt each other's output (docs/dependencies.md).
import { compress, decompress } from '@cloudpss/zstd/wasm'
import assert from 'node:assert'
import { IntegrityError, messageOf } from '../base/errors.js'
import { sha256 } from '../base/digest.js'
import { BLOCK_BYTES } from '../base/units.js'
import type { BlockPlace, Encoding, ObjectPlace } from './place.js'
import { zstdContentBytes } from './zstd-frame.js'

const ZERO_BLOCK = Buffer.alloc(BLOCK_BYTES)
/** SHA-256 of 131,072 zero bytes: the digest of a block that is stored nowhere. */
export const ZERO_BLOCK_DIGEST: Buffer = sha256(ZERO_BLOCK)
export const COMPRESSION_LEVEL_DEFAULT = 1
/**
 * What is written; every level can be read. One that is missing here is one whose chunks `check --repair` cannot make again.
 */
export const COMPRESSION_LEVELS = [1, 3, 5, 6, 9] as const
export type CompressionLevel = (typeof COMPRESSION_LEVELS)[number]
export type Compression = 'raw' | CompressionLevel
/** largest plain size of a map page or root: the root of a 16 TiB file has room */
export const OBJECT_BYTES_MAX = 12 * 1024 * 1024

export interface Encoded {
  readonly encoding: Encoding
  readonly bytes: Buffer
}

export function isZeroBlock(plain: Buffer): boolean {
  return plain.equals(ZERO_BLOCK)
}

/** Encodes a block of exactly BLOCK_BYTES that is not all zero. Raw bytes are a view of `plain`, not a copy. */
export function encodeBlock(plain: Buffer, compression: Compression = COMPRESSION_LEVEL_DEFAULT): Encoded {
  assert.equal(plain.length, BLOCK_BYTES)
  if (compression !== 'raw') {
    const compressed = toBuffer(compress(plain, compression))
    if (compressed.length <= BLOCK_BYTES - BLOCK_BYTES / 16) return { encoding: 'zstd', bytes: compressed }
  }
  return { encoding: 'raw', bytes: plain.subarray(0, lengthWithoutTrailingZeros(plain)) }
}

/** Returns the block's BLOCK_BYTES plain bytes, or throws IntegrityError when they are not what `place` promises. */
export function decodeBlock(stored: Buffer, place: BlockPlace): Buffer {
  const plain = decode(stored, place.encoding, BLOCK_BYTES, place.chunk, place.offset)
  const block = plain.length === BLOCK_BYTES ? plain : Buffer.concat([plain], BLOCK_BYTES)
  if (!sha256(block).equals(place.digest)) {
    throw new IntegrityError(
      `the block at byte ${String(place.offset)} of chunk ${place.chunk} does not have its digest`
    )
  }
  return block
}

/** Encodes a map page or root. */
export function encodeObject(plain: Buffer): Encoded {
  const compressed = toBuffer(compress(plain, COMPRESSION_LEVEL_DEFAULT))
  return compressed.length <= plain.length - plain.length / 16
    ? { encoding: 'zstd', bytes: compressed }
    : { encoding: 'raw', bytes: plain }
}

export function decodeObject(stored: Buffer, place: ObjectPlace): Buffer {
  const plain = decode(stored, place.encoding, Math.min(place.plainBytes, OBJECT_BYTES_MAX), place.chunk, place.offset)
  if (plain.length !== place.plainBytes || sha256(plain).toString('hex') !== place.digest) {
    throw new IntegrityError(`the map at byte ${String(place.offset)} of chunk ${place.chunk} does not have its digest`)
  }
  return plain
}

function decode(stored: Buffer, encoding: Encoding, bytesMax: number, chunk: string, offset: number): Buffer {
  switch (encoding) {
    case 'raw':
      if (stored.length > bytesMax) throw damaged(chunk, offset, 'it is longer than it may be')
      return stored
    case 'zstd': {
      const contentBytes = zstdContentBytes(stored)
      if (contentBytes === undefined) throw damaged(chunk, offset, 'it is not one zstd frame that names its size')
      if (contentBytes > bytesMax) throw damaged(chunk, offset, `it would become ${String(contentBytes)} bytes`)
      try {
        return toBuffer(decompress(stored))
      } catch (error) {
        throw damaged(chunk, offset, messageOf(error))
      }
    }
  }
}

function damaged(chunk: string, offset: number, why: string): IntegrityError {
  return new IntegrityError(`cannot decode what lies at byte ${String(offset)} of chunk ${chunk}: ${why}`)
}

function lengthWithoutTrailingZeros(plain: Buffer): number {
  let length = plain.length
  while (length > 0 && plain[length - 1] === 0) length--
  return length
}

function toBuffer(bytes: Uint8Array): Buffer {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)
}
