/** What a suspend has to send, worked out without isrfs: the blocks that differ, each compressed by itself with zstd -1. */
import fs from 'node:fs'
import { compress } from '@cloudpss/zstd/wasm'

const BLOCK_BYTES = 128 * 1024

/** Both files have the same length, a multiple of a block. Blocks that are zero now have nothing to send. */
export function compressedDirtyBytes(before: string, after: string): number {
  const [old, changed] = [fs.openSync(before, 'r'), fs.openSync(after, 'r')]
  const [oldBlock, block, zero] = [Buffer.alloc(BLOCK_BYTES), Buffer.alloc(BLOCK_BYTES), Buffer.alloc(BLOCK_BYTES)]
  const { size } = fs.fstatSync(changed)
  let bytes = 0
  for (let offset = 0; offset < size; offset += BLOCK_BYTES) {
    fs.readSync(old, oldBlock, 0, BLOCK_BYTES, offset)
    fs.readSync(changed, block, 0, BLOCK_BYTES, offset)
    if (!block.equals(oldBlock) && !block.equals(zero)) bytes += Math.min(compress(block, 1).length, BLOCK_BYTES)
  }
  fs.closeSync(old)
  fs.closeSync(changed)
  return bytes
}
