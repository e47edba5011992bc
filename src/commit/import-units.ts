/**
 * How an import's blocks travel together. A file of 16 MiB or more goes in aligned pieces of 16 MiB, each a chunk (the
 * classic pieces of the file: a sequential reader reads them sequentially); smaller files share chunks, in the order of
 * the walk. The same directory gives the same units, so a repeated import finds its chunks again by their names.
 */
import { BLOCK_BYTES } from '../base/units.js'
import { type BlockSource, type FilePart, UNIT_BLOCKS_MAX } from './encode.js'
import type { SourceFile, SourcePart } from './import-scan.js'

/** Consecutive blocks of one file. */
export interface BlockRange {
  readonly file: SourceFile
  readonly firstBlock: number
  readonly count: number
}

export function blockCount(sizeBytes: number): number {
  return Math.ceil(sizeBytes / BLOCK_BYTES)
}

/** Units of at most UNIT_BLOCKS_MAX blocks. Files that are one hole are in none. */
export function* importUnits(files: Iterable<SourceFile>): Generator<BlockRange[]> {
  let packed: BlockRange[] = []
  let packedBlocks = 0
  for (const file of files) {
    const blocks = blockCount(file.sizeBytes)
    if (blocks === 0 || isHole(file)) continue
    if (blocks >= UNIT_BLOCKS_MAX) {
      for (let firstBlock = 0; firstBlock < blocks; firstBlock += UNIT_BLOCKS_MAX) {
        yield [{ file, firstBlock, count: Math.min(UNIT_BLOCKS_MAX, blocks - firstBlock) }]
      }
      continue
    }
    if (packedBlocks + blocks > UNIT_BLOCKS_MAX) {
      yield packed
      packed = []
      packedBlocks = 0
    }
    packed.push({ file, firstBlock: 0, count: blocks })
    packedBlocks += blocks
  }
  if (packed.length > 0) yield packed
}

export function isHole(file: SourceFile): boolean {
  return file.parts.every((part) => part.isHole)
}

/** Where the bytes of one block lie in the file's parts. */
export function blockSource(file: SourceFile, block: number): BlockSource {
  const start = block * BLOCK_BYTES
  return { kind: 'file', parts: partsBetween(file.parts, start, Math.min(start + BLOCK_BYTES, file.sizeBytes)) }
}

function partsBetween(parts: readonly SourcePart[], start: number, end: number): FilePart[] {
  const found: FilePart[] = []
  // All parts but the last are equally long (import-pieces.ts), so the first one that counts is known.
  const pieceBytes = parts[0]?.sizeBytes ?? 0
  const first = pieceBytes === 0 ? 0 : Math.min(Math.floor(start / pieceBytes), parts.length - 1)
  let partStart = first * pieceBytes
  for (const part of parts.slice(first)) {
    if (partStart >= end) break
    const from = Math.max(start, partStart)
    const to = Math.min(end, partStart + part.sizeBytes)
    if (to > from) found.push({ path: part.path, offset: from - partStart, lengthBytes: to - from })
    partStart += part.sizeBytes
  }
  return found
}
