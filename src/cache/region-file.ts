/**
 * The layout of a cached region: 16 MiB of plain bytes at their own offset, then a footer with the digest of each
 * block that the file holds. The footer is written only after the data is on disk and carries a checksum, so a
 * crash costs a refetch and never shows zeros.
 */
import fs from 'node:fs'
import { crc32 } from 'node:zlib'
import { DIGEST_BYTES } from '../base/digest.js'
import { FailedError } from '../base/errors.js'
import { BLOCK_BYTES, BLOCKS_PER_REGION, PAGE_BYTES, REGION_BYTES } from '../base/units.js'

const MAGIC = 0x46525349 // "ISRF"
const DIGESTS_BYTES = BLOCKS_PER_REGION * DIGEST_BYTES
const FOOTER_BYTES = DIGESTS_BYTES + 8
const ZERO_PAGE = Buffer.alloc(PAGE_BYTES)

/** The digests of a region's blocks, 32 bytes each; all zero where the region does not hold the block. */
export function emptyDigests(): Buffer {
  return Buffer.alloc(DIGESTS_BYTES)
}

export function digestAt(digests: Buffer, blockInRegion: number): Buffer {
  return digests.subarray(blockInRegion * DIGEST_BYTES, (blockInRegion + 1) * DIGEST_BYTES)
}

/** Whether the region does not hold the block. */
export function isNoDigest(digest: Buffer): boolean {
  return digest.every((byte) => byte === 0)
}

/** Reads the footer; a missing, torn or foreign one means that the region holds nothing. */
export function readFooter(fd: number): Buffer {
  const footer = Buffer.alloc(FOOTER_BYTES)
  return digestsOf(footer, fs.readSync(fd, footer, 0, FOOTER_BYTES, REGION_BYTES))
}

/** The same of a file that somebody else may be using, without keeping this thread. Rejects when it cannot be read. */
export async function readFooterLater(file: string): Promise<Buffer> {
  const handle = await fs.promises.open(file, fs.constants.O_RDONLY | fs.constants.O_NOFOLLOW)
  try {
    const footer = Buffer.alloc(FOOTER_BYTES)
    return digestsOf(footer, (await handle.read(footer, 0, FOOTER_BYTES, REGION_BYTES)).bytesRead)
  } finally {
    await handle.close()
  }
}

function digestsOf(footer: Buffer, count: number): Buffer {
  const digests = footer.subarray(0, DIGESTS_BYTES)
  const whole = count === FOOTER_BYTES && footer.readUInt32LE(DIGESTS_BYTES) === MAGIC
  return whole && footer.readUInt32LE(DIGESTS_BYTES + 4) === crc32(digests) ? digests : emptyDigests()
}

export function writeFooter(fd: number, digests: Buffer): void {
  const footer = Buffer.alloc(FOOTER_BYTES)
  digests.copy(footer)
  footer.writeUInt32LE(MAGIC, DIGESTS_BYTES)
  footer.writeUInt32LE(crc32(digests), DIGESTS_BYTES + 4)
  fs.writeSync(fd, footer, 0, FOOTER_BYTES, REGION_BYTES)
}

/** Writes a plain block, without its zero pages where the file has nothing yet. Returns the bytes that were written. */
export function writeBlock(fd: number, plain: Uint8Array, offset: number, isHole: boolean): number {
  let bytes = 0
  for (const { from, to } of isHole ? pagesWithData(plain) : [{ from: 0, to: BLOCK_BYTES }]) {
    writeFully(fd, plain, { from, to }, offset)
    bytes += to - from
  }
  return bytes
}

/** Runs of whole pages that are not zero, in bytes of the block. */
function pagesWithData(plain: Uint8Array): { from: number; to: number }[] {
  const runs: { from: number; to: number }[] = []
  for (let from = 0; from < BLOCK_BYTES; from += PAGE_BYTES) {
    if (ZERO_PAGE.compare(plain, from, from + PAGE_BYTES) === 0) continue
    const last = runs.at(-1)
    if (last?.to === from) last.to += PAGE_BYTES
    else runs.push({ from, to: from + PAGE_BYTES })
  }
  return runs
}

function writeFully(fd: number, bytes: Uint8Array, { from, to }: { from: number; to: number }, base: number): void {
  let written = from
  while (written < to) {
    const count = fs.writeSync(fd, bytes, written, to - written, base + written)
    if (count === 0) throw new FailedError('a write to the cache made no progress')
    written += count
  }
}
