/**
 * How much a zstd frame will become (RFC 8878, 3.1.1), read before anything is allocated for it. The library adds up all
 * frames that it finds one after another, and guesses for those that name no size: 4 stored bytes can ask for 128 KiB.
 * So only bytes that are exactly one frame, from its magic number to its last byte, are let through to it.
 */

const MAGIC = 0xfd2fb528
const BLOCK_HEADER_BYTES = 3
const CHECKSUM_BYTES = 4
const RLE_BLOCK = 1
const RESERVED_BLOCK = 3

/** The content size that the frame announces; undefined when these bytes are not one whole frame that does. */
export function zstdContentBytes(frame: Buffer): number | undefined {
  if (frame.length < 6 || frame.readUInt32LE(0) !== MAGIC) return undefined
  const descriptor = frame.readUInt8(4)
  const sizeFlag = descriptor >>> 6
  const isSingleSegment = (descriptor & 0x20) !== 0
  const hasChecksum = (descriptor & 0x04) !== 0
  if ((descriptor & 0x0b) !== 0) return undefined // a reserved bit, or a dictionary, which there is none of
  const sizeAt = isSingleSegment ? 5 : 6
  const sizeBytes = sizeFlag === 0 && !isSingleSegment ? 0 : 1 << sizeFlag
  const blocksAt = sizeAt + sizeBytes
  if (sizeBytes === 0 || frame.length < blocksAt) return undefined
  if (endOfBlocks(frame, blocksAt) + (hasChecksum ? CHECKSUM_BYTES : 0) !== frame.length) return undefined
  switch (sizeFlag) {
    case 0:
      return frame.readUInt8(sizeAt)
    case 1:
      return frame.readUInt16LE(sizeAt) + 256
    case 2:
      return frame.readUInt32LE(sizeAt)
    default:
      return Number(frame.readBigUInt64LE(sizeAt))
  }
}

/** Offset behind the frame's last block; NaN when there is no such block within the bytes. */
function endOfBlocks(frame: Buffer, start: number): number {
  for (let at = start; at + BLOCK_HEADER_BYTES <= frame.length;) {
    const header = frame.readUIntLE(at, BLOCK_HEADER_BYTES)
    const type = (header >>> 1) & 3
    if (type === RESERVED_BLOCK) return NaN
    at += BLOCK_HEADER_BYTES + (type === RLE_BLOCK ? 1 : header >>> 3)
    if ((header & 1) === 1) return at
  }
  return NaN
}
