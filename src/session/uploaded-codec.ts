/**
 * Uploaded blocks as bytes, for journal and snapshot. Numbers are little-endian:
 *
 *     u32 limit bytes, u8 encoding (0: every byte is zero, and nothing follows; 1: raw; 2: zstd),
 *     32 bytes SHA-256 of the chunk, u32 offset, u32 stored bytes, 32 bytes SHA-256 of the plain block
 */
import { BLOCK_BYTES, CHUNK_BYTES_MAX } from '../base/units.js'
import type { Encoding } from '../format/place.js'
import { type ByteReader, type ByteWriter, DamageError } from './bytes.js'
import type { UploadedBlock } from './namespace-types.js'

const DIGEST_BYTES = 32
const ZERO = 0

/** The position, counted from 1, is the number on disk: append only. */
const ENCODINGS: readonly Encoding[] = ['raw', 'zstd']

export function encodeUploaded(writer: ByteWriter, { place, limitBytes }: UploadedBlock): void {
  writer.u32(limitBytes)
  if (place === undefined) {
    writer.u8(ZERO)
    return
  }
  writer.u8(ENCODINGS.indexOf(place.encoding) + 1)
  writer.raw(Buffer.from(place.chunk, 'hex'))
  writer.u32(place.offset)
  writer.u32(place.storedBytes)
  writer.raw(place.digest)
}

export function decodeUploaded(reader: ByteReader): UploadedBlock {
  const limitBytes = reader.u32()
  if (limitBytes < 1 || limitBytes > BLOCK_BYTES)
    throw new DamageError('the limit of an uploaded block is out of range')
  const number = reader.u8()
  if (number === ZERO) return { place: undefined, limitBytes }
  const encoding = ENCODINGS[number - 1]
  if (encoding === undefined) throw new DamageError(`encoding ${String(number)} is unknown`)
  const chunk = reader.raw(DIGEST_BYTES).toString('hex')
  const offset = reader.u32()
  const storedBytes = reader.u32()
  if (storedBytes < 1 || storedBytes > BLOCK_BYTES || offset + storedBytes > CHUNK_BYTES_MAX)
    throw new DamageError('the place of an uploaded block is out of range')
  return { place: { encoding, chunk, offset, storedBytes, digest: reader.raw(DIGEST_BYTES) }, limitBytes }
}
