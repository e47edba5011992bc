/**
 * What a commit has to look at: the blocks of each file that may differ from the base generation, and where the
 * bytes of each come from. Reads the session's state only; nothing here waits or changes anything.
 */
import { getBit } from '../base/bits.js'
import { BLOCK_BYTES, BLOCKS_PER_REGION, PAGES_PER_BLOCK } from '../base/units.js'
import type { Inode, RegionPages, UploadedBlock } from '../session/namespace-types.js'

export interface DirtyBlock {
  readonly inode: Inode
  readonly block: number
  /** pages of the block (0..31) whose bytes are in the session's region file */
  readonly valid: readonly number[]
  /** pages of the block that read as zeros although the base has bytes there */
  readonly punched: readonly number[]
  /** bytes of the base (or of the uploaded block) that still count, from the start of the block */
  readonly baseBytes: number
  /** the block's bytes below the session's pages, when they are not the base's any more */
  readonly uploaded: UploadedBlock | undefined
}

/** Whether the file's bytes or size can differ from the base's at all. */
export function contentMayDiffer(inode: Inode): boolean {
  const baseSize = inode.base?.sizeBytes ?? 0
  return inode.regions.size > 0 || inode.sizeBytes !== baseSize || inode.baseLimitBytes < baseSize
}

/**
 * Blocks below the file's size that may differ, ascending: those with session pages, those that were uploaded already,
 * and the one that a truncate cut.
 */
export function* dirtyBlocks(inode: Inode): Generator<DirtyBlock> {
  for (const block of dirtyBlockNumbers(inode)) yield describeBlock(inode, block)
}

/** The same, by number only. */
export function* dirtyBlockNumbers(inode: Inode): Generator<number> {
  const cut = cutBlock(inode)
  let cutSeen = cut === undefined
  const regions = [...inode.regions.keys()].sort((first, second) => first - second)
  for (const region of regions) {
    const pages = inode.regions.get(region)
    if (pages === undefined) continue
    for (let index = 0; index < BLOCKS_PER_REGION; index++) {
      const block = region * BLOCKS_PER_REGION + index
      if (block * BLOCK_BYTES >= inode.sizeBytes) break
      if (!cutSeen && cut !== undefined && cut < block) {
        yield cut
        cutSeen = true
      }
      const isCut = block === cut
      if (isCut || touches(pages, index) || inode.uploaded.has(block)) yield block
      cutSeen ||= isCut
    }
  }
  if (!cutSeen && cut !== undefined) yield cut
}

/** One block, whether it may differ or not. */
export function describeBlock(inode: Inode, block: number): DirtyBlock {
  return describe(inode, block, inode.regions.get(Math.floor(block / BLOCKS_PER_REGION)))
}

/** Blocks of one region of which the session has pages. */
export function dirtyBlocksIn(inode: Inode, region: number): DirtyBlock[] {
  const pages = inode.regions.get(region)
  const blocks: DirtyBlock[] = []
  for (let index = 0; index < BLOCKS_PER_REGION; index++) {
    if ((pages?.valid[index] ?? 0) !== 0) blocks.push(describe(inode, region * BLOCKS_PER_REGION + index, pages))
  }
  return blocks
}

/** One block of which the session has pages; undefined when it has none, or when the block lies past the file's end. */
export function dirtyBlock(inode: Inode, block: number): DirtyBlock | undefined {
  const pages = inode.regions.get(Math.floor(block / BLOCKS_PER_REGION))
  if ((pages?.valid[block % BLOCKS_PER_REGION] ?? 0) === 0 || block * BLOCK_BYTES >= inode.sizeBytes) return undefined
  return describe(inode, block, pages)
}

/** How many blocks have to be put together: those that are on the share as they are do not count. */
export function countDirtyBlocks(inode: Inode): number {
  let total = 0
  for (const dirty of dirtyBlocks(inode)) if (!isSentAlready(dirty)) total++
  return total
}

/** Whether the block is exactly what was uploaded: nothing was written, punched or cut since. */
export function isSentAlready({ uploaded, valid, punched }: DirtyBlock): boolean {
  return uploaded?.limitBytes === BLOCK_BYTES && valid.length === 0 && punched.length === 0
}

/** First block of the base that does not count any more at all. */
export function firstDroppedBlock(inode: Inode): number {
  return Math.ceil(inode.baseLimitBytes / BLOCK_BYTES)
}

/** The block in which the base ends now because of a truncate, when the base went further. */
function cutBlock(inode: Inode): number | undefined {
  const baseSize = inode.base?.sizeBytes ?? 0
  const limit = inode.baseLimitBytes
  return limit < baseSize && limit % BLOCK_BYTES !== 0 ? Math.floor(limit / BLOCK_BYTES) : undefined
}

function touches(pages: RegionPages, blockInRegion: number): boolean {
  return (pages.valid[blockInRegion] ?? 0) !== 0 || (pages.punched?.[blockInRegion] ?? 0) !== 0 // a block is one word
}

function describe(inode: Inode, block: number, pages: RegionPages | undefined): DirtyBlock {
  const first = (block % BLOCKS_PER_REGION) * PAGES_PER_BLOCK
  const valid: number[] = []
  const punched: number[] = []
  for (let page = 0; page < PAGES_PER_BLOCK; page++) {
    if (pages !== undefined && getBit(pages.valid, first + page)) valid.push(page)
    else if (pages?.punched !== undefined && getBit(pages.punched, first + page)) punched.push(page)
  }
  const uploaded = inode.uploaded.get(block)
  return { inode, block, valid, punched, baseBytes: bytesBelow(inode, block), uploaded }
}

/** Bytes of the base (or of the uploaded block) that still count, from the start of the block. */
export function bytesBelow(inode: Inode, block: number): number {
  const limit = inode.uploaded.get(block)?.limitBytes ?? inode.baseLimitBytes - block * BLOCK_BYTES
  return Math.min(Math.max(0, limit), BLOCK_BYTES)
}
