/**
 * The journal's unit of atomicity. A frame is appended with one write and counts whole or not at all, so the records of
 * one change (a rename, a write that grows a file) share a frame.
 *
 *     0  u32 magic "ISRF"
 *     4  u32 salt: of this session; keeps bytes that a guest put into a name from ever looking like a frame
 *     8  u32 frame bytes, everything included
 *    12  u32 checksum of the frame before (of the journal header's field for the first one): the chain
 *    16  u64 sequence: one more than the frame before
 *    24  u64 durable sequence: frames up to it were known to be on the disk when this one was written
 *    32  u16 kind
 *    34  u16 number of records
 *    36  payload
 *    -4  u32 crc32 of everything before
 *
 *     kind 1, change    records (record-codec.ts)
 *     kind 2, barrier   u64 inode (0: every one), u64 sequence: the bytes that frames up to it speak of are on the disk
 *     kind 3, note      nothing: it only carries a newer durable sequence
 *     kind 4, bytes     u64 inode, u64 sequence: a barrier for the inode by itself, because it brings what no earlier
 *                       barrier covers; then for each record u64 page of the file, and its 4096 bytes
 *
 * A file named journal-<n> begins with a header:
 *
 *     0  "ISRFSJNL"   8 u32 format version 2   12 u32 salt   16 u64 n   24 u64 sequence of its first frame
 *    32  u32 checksum that the first frame's chain field has   36 u32 crc32 of everything before
 *
 * Version 1 had no frames of kind 4. After the last frame there may be zeros: space that is reserved for later ones.
 */
import { crc32 } from 'node:zlib'
import { DamageError, getU64, putU64 } from './bytes.js'

export const FRAME_HEADER_BYTES = 36
export const FRAME_TRAILER_BYTES = 4
/** larger than any change: the largest write is 1 MiB, which is 256 checksums */
export const FRAME_BYTES_MAX = 4 * 1024 * 1024
export const JOURNAL_HEADER_BYTES = 40

const JOURNAL_MAGIC = Buffer.from('ISRFSJNL')
const JOURNAL_VERSION = 2
const JOURNAL_VERSION_WITHOUT_BYTES = 1
const FRAME_MAGIC = Buffer.from('ISRF')
const FRAME_MAGIC_NUMBER = FRAME_MAGIC.readUInt32LE(0)

export const FRAME_KINDS = { change: 1, barrier: 2, note: 3, bytes: 4 } as const
export type FrameKind = (typeof FRAME_KINDS)[keyof typeof FRAME_KINDS]

export interface Frame {
  readonly kind: FrameKind
  readonly sequence: number
  readonly durableSequence: number
  readonly previousChecksum: number
  readonly checksum: number
  readonly recordCount: number
  readonly payloadStart: number
  readonly payloadEnd: number
  /** where the next frame begins */
  readonly end: number
}

export interface FrameFields {
  readonly salt: number
  readonly previousChecksum: number
  readonly sequence: number
  readonly durableSequence: number
  readonly kind: FrameKind
  readonly recordCount: number
}

/** Completes the frame that occupies the first `length` bytes, payload already in place. Returns its checksum. */
export function sealFrame(bytes: Buffer, length: number, fields: FrameFields): number {
  bytes.writeUInt32LE(FRAME_MAGIC_NUMBER, 0)
  bytes.writeUInt32LE(fields.salt, 4)
  bytes.writeUInt32LE(length, 8)
  bytes.writeUInt32LE(fields.previousChecksum, 12)
  putU64(bytes, fields.sequence, 16)
  putU64(bytes, fields.durableSequence, 24)
  bytes.writeUInt16LE(fields.kind, 32)
  bytes.writeUInt16LE(fields.recordCount, 34)
  const checksum = crc32(bytes.subarray(0, length - FRAME_TRAILER_BYTES))
  bytes.writeUInt32LE(checksum, length - FRAME_TRAILER_BYTES)
  return checksum
}

/** The whole, undamaged frame that begins at `at`, or undefined. The chain is the caller's to check. */
export function parseFrame(bytes: Buffer, at: number, salt: number): Frame | undefined {
  if (at + FRAME_HEADER_BYTES + FRAME_TRAILER_BYTES > bytes.length) return undefined
  if (bytes.readUInt32LE(at) !== FRAME_MAGIC_NUMBER || bytes.readUInt32LE(at + 4) !== salt) return undefined
  const length = bytes.readUInt32LE(at + 8)
  if (length < FRAME_HEADER_BYTES + FRAME_TRAILER_BYTES || length > FRAME_BYTES_MAX) return undefined
  const end = at + length
  if (end > bytes.length) return undefined
  const checksum = bytes.readUInt32LE(end - FRAME_TRAILER_BYTES)
  if (crc32(bytes.subarray(at, end - FRAME_TRAILER_BYTES)) !== checksum) return undefined
  const kind = frameKindOf(bytes.readUInt16LE(at + 32))
  if (kind === undefined) return undefined
  return {
    kind,
    sequence: getU64(bytes, at + 16),
    durableSequence: getU64(bytes, at + 24),
    previousChecksum: bytes.readUInt32LE(at + 12),
    checksum,
    recordCount: bytes.readUInt16LE(at + 34),
    payloadStart: at + FRAME_HEADER_BYTES,
    payloadEnd: end - FRAME_TRAILER_BYTES,
    end
  }
}

/** Whole frames anywhere at or after `from`, whatever lies between them. */
export function* findFrames(bytes: Buffer, from: number, salt: number): Generator<Frame> {
  let at = bytes.indexOf(FRAME_MAGIC, from)
  while (at !== -1) {
    const frame = parseFrame(bytes, at, salt)
    if (frame !== undefined) yield frame
    at = bytes.indexOf(FRAME_MAGIC, frame === undefined ? at + 1 : frame.end)
  }
}

export interface JournalHeader {
  /** frames of every kind may be appended; a journal of an earlier version is only read */
  readonly isCurrent: boolean
  readonly number: number
  readonly firstSequence: number
  readonly previousChecksum: number
}

export function encodeJournalHeader(header: Omit<JournalHeader, 'isCurrent'>, salt: number): Buffer {
  const bytes = Buffer.alloc(JOURNAL_HEADER_BYTES)
  JOURNAL_MAGIC.copy(bytes)
  bytes.writeUInt32LE(JOURNAL_VERSION, 8)
  bytes.writeUInt32LE(salt, 12)
  putU64(bytes, header.number, 16)
  putU64(bytes, header.firstSequence, 24)
  bytes.writeUInt32LE(header.previousChecksum, 32)
  bytes.writeUInt32LE(crc32(bytes.subarray(0, JOURNAL_HEADER_BYTES - 4)), JOURNAL_HEADER_BYTES - 4)
  return bytes
}

/** undefined: it is torn, or of another session. Throws DamageError when it is whole and of an unknown version. */
export function parseJournalHeader(bytes: Buffer, salt: number): JournalHeader | undefined {
  if (bytes.length < JOURNAL_HEADER_BYTES || !bytes.subarray(0, 8).equals(JOURNAL_MAGIC)) return undefined
  if (bytes.readUInt32LE(JOURNAL_HEADER_BYTES - 4) !== crc32(bytes.subarray(0, JOURNAL_HEADER_BYTES - 4)))
    return undefined
  if (bytes.readUInt32LE(12) !== salt) return undefined
  const version = bytes.readUInt32LE(8)
  if (version !== JOURNAL_VERSION && version !== JOURNAL_VERSION_WITHOUT_BYTES)
    throw new DamageError(`it has version ${String(version)}, which this isrfs does not know`)
  return {
    isCurrent: version === JOURNAL_VERSION,
    number: getU64(bytes, 16),
    firstSequence: getU64(bytes, 24),
    previousChecksum: bytes.readUInt32LE(32)
  }
}

function frameKindOf(value: number): FrameKind | undefined {
  switch (value) {
    case FRAME_KINDS.change:
      return FRAME_KINDS.change
    case FRAME_KINDS.barrier:
      return FRAME_KINDS.barrier
    case FRAME_KINDS.note:
      return FRAME_KINDS.note
    case FRAME_KINDS.bytes:
      return FRAME_KINDS.bytes
    default:
      return undefined
  }
}
