/**
 * Where the bytes of one block lie, and how they come together: plain files for an import; session pages over cache
 * or share over zeros for a commit.
 */
import { sha256 } from '../base/digest.js'
import { FailedError, IntegrityError } from '../base/errors.js'
import { BLOCK_BYTES, PAGE_BYTES, PAGES_PER_BLOCK } from '../base/units.js'
import { decodeBlock } from '../format/block-codec.js'
import { readStored } from '../format/chunk.js'
import type { BlockPlace } from '../format/place.js'
import type { Share } from '../share/share.js'
import type { OpenFiles } from './encode-files.js'

/** Bytes of one plain file; all of them have to be there. */
export interface FilePart {
  readonly path: string
  readonly offset: number
  readonly lengthBytes: number
}

export type BlockSource =
  | {
      /** an import: parts one after another, zeros up to the end of the block */
      readonly kind: 'file'
      readonly parts: readonly FilePart[]
    }
  | {
      /** a commit: what lies further up in this list wins */
      readonly kind: 'layers'
      /** region file of the session; null when it has no page of this block */
      readonly session: string | null
      /** of the block in the region file */
      readonly sessionOffset: number
      /** in place of `session`: the block's bytes as they were at one instant, BLOCK_BYTES, its valid pages at their offsets */
      readonly staged?: Uint8Array
      /** pages (0..31) whose bytes the session has */
      readonly valid: readonly number[]
      /** pages (0..31) that read as zeros whatever the base has */
      readonly zeroPages: readonly number[]
      /** bytes of the base that count, from the start of the block; zeros beyond */
      readonly baseBytesMax: number
      /** region file of the cache; it may be gone or hold something else */
      readonly cachePath: string | null
      readonly cacheOffset: number
      /** undefined: the base's block is all zero */
      readonly base: BlockPlace | undefined
      /** `base` is what this session has sent already: no generation has it */
      readonly baseIsNew: boolean
    }

type Layers = Extract<BlockSource, { kind: 'layers' }>

/** The block's BLOCK_BYTES plain bytes. */
export function assembleBlock(share: Share, source: BlockSource, files: OpenFiles): Buffer {
  switch (source.kind) {
    case 'file':
      return assembleParts(source.parts, files)
    case 'layers':
      return assembleLayers(share, source, files)
  }
}

function assembleParts(parts: readonly FilePart[], files: OpenFiles): Buffer {
  const block = Buffer.alloc(BLOCK_BYTES)
  let at = 0
  for (const { path, offset, lengthBytes } of parts) {
    if (files.read(path, block, at, lengthBytes, offset) !== lengthBytes) {
      throw new FailedError(`${path} became shorter while it was read`, {
        hint: 'stop whatever writes to the directory (a VM has to be shut down or suspended), then repeat the import'
      })
    }
    at += lengthBytes
  }
  return block
}

function assembleLayers(share: Share, source: Layers, files: OpenFiles): Buffer {
  const block = Buffer.alloc(BLOCK_BYTES)
  if (source.base !== undefined && needsBase(source)) {
    readBase(share, source, source.base, files).copy(block, 0, 0, source.baseBytesMax)
  }
  for (const page of source.zeroPages) block.fill(0, page * PAGE_BYTES, (page + 1) * PAGE_BYTES)
  if (source.staged !== undefined) copyStaged(source.valid, source.staged, block)
  else if (source.session !== null) readSession(source, source.session, block, files)
  return block
}

/** Whether a page below the base's limit comes from no layer above the base. */
function needsBase(source: Layers): boolean {
  const covered = new Set([...source.valid, ...source.zeroPages])
  const pages = Math.min(Math.ceil(source.baseBytesMax / PAGE_BYTES), PAGES_PER_BLOCK)
  for (let page = 0; page < pages; page++) if (!covered.has(page)) return true
  return false
}

function readBase(share: Share, source: Layers, place: BlockPlace, files: OpenFiles): Buffer {
  const base = { ...place, digest: Buffer.from(place.digest) } // a Buffer arrives in a thread as Uint8Array
  const cached = readCached(source, files)
  if (cached !== undefined && sha256(cached).equals(base.digest)) return cached
  return decodeBlock(readStored(share, base), base)
}

function readCached(source: Layers, files: OpenFiles): Buffer | undefined {
  if (source.cachePath === null) return undefined
  const block = Buffer.alloc(BLOCK_BYTES)
  try {
    files.read(source.cachePath, block, 0, BLOCK_BYTES, source.cacheOffset)
    return block
  } catch {
    return undefined // the cache is disposable: the share has it
  }
}

function copyStaged(valid: readonly number[], staged: Uint8Array, block: Buffer): void {
  for (const page of valid) block.set(staged.subarray(page * PAGE_BYTES, (page + 1) * PAGE_BYTES), page * PAGE_BYTES)
}

/** Runs of neighbouring pages are one read. */
function readSession(source: Layers, path: string, block: Buffer, files: OpenFiles): void {
  const pages = [...source.valid].sort((first, second) => first - second)
  for (let index = 0; index < pages.length;) {
    const first = pages[index] ?? 0
    let count = 1
    while (pages[index + count] === first + count) count++
    const bytes = count * PAGE_BYTES
    const start = first * PAGE_BYTES
    const got = files.read(path, block, start, bytes, source.sessionOffset + start)
    // The last page of a region file may be written up to the end of the file only; a page without any byte is lost.
    if (got <= bytes - PAGE_BYTES) {
      throw new IntegrityError(
        `${path} ends before page ${(source.sessionOffset + start + got) / PAGE_BYTES}, which the session's journal has`
      )
    }
    block.fill(0, start + got, start + bytes)
    index += count
  }
}
