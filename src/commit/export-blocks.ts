/**
 * One unit of an export: verified blocks of one VM file go from chunks to the plain file. Runs in a worker thread.
 * Neighbours in one chunk are one read; pages that are all zero are not written, so a sparse file comes out sparse.
 */
import fs from 'node:fs'
import { errnoOf, FailedError, IntegrityError, messageOf } from '../base/errors.js'
import { BLOCK_BYTES, PAGE_BYTES } from '../base/units.js'
import { decodeBlock } from '../format/block-codec.js'
import { chunkName, readStored } from '../format/chunk.js'
import type { BlockPlace } from '../format/place.js'
import type { Share } from '../share/share.js'

const ZERO_PAGE = Buffer.alloc(PAGE_BYTES)

export interface ExportUnit {
  /** the plain file, created before and already as long as it has to be */
  readonly path: string
  /** its name in the VM, for messages */
  readonly name: string
  readonly sizeBytes: number
  /** blocks that are not zero, ascending */
  readonly blocks: readonly { readonly block: number; readonly place: BlockPlace }[]
}

type Wanted = ExportUnit['blocks'][number]

/** Writes a unit. Returns how many encoded bytes were read. */
export function writeExportUnit(share: Share, unit: ExportUnit): { readonly readBytes: number } {
  let readBytes = 0
  const descriptor = openTarget(unit.path)
  try {
    for (const run of runs(unit.blocks)) {
      const stored = readRun(share, run)
      for (const [index, wanted] of run.entries()) {
        const plain = readBlock(share, unit, wanted, stored?.[index])
        readBytes += wanted.place.storedBytes
        writePages(descriptor, unit, wanted.block, plain)
      }
    }
  } finally {
    fs.closeSync(descriptor)
  }
  return { readBytes }
}

function openTarget(path: string): number {
  try {
    return fs.openSync(path, fs.constants.O_WRONLY | fs.constants.O_NOFOLLOW)
  } catch (error) {
    throw new FailedError(`cannot open ${path} to write it: ${messageOf(error)}`, { cause: error })
  }
}

function readBlock(share: Share, unit: ExportUnit, wanted: Wanted, stored: Buffer | undefined): Buffer {
  const place = { ...wanted.place, digest: Buffer.from(wanted.place.digest) } // a Buffer arrives in a thread as Uint8Array
  try {
    return decodeBlock(stored ?? readStored(share, place), place)
  } catch (error) {
    if (!(error instanceof IntegrityError)) throw error
    throw new IntegrityError(
      `block ${wanted.block} of ${unit.name} is damaged (${share.pathOf(chunkName(place.chunk))}): ${error.message}`,
      {
        hint: 'restore the chunk from a backup of the share, or export an older generation with --generation',
        cause: error
      }
    )
  }
}

/** Writes the runs of pages that are not all zero, up to the file's size. */
function writePages(descriptor: number, unit: ExportUnit, block: number, plain: Buffer): void {
  const position = block * BLOCK_BYTES
  const end = Math.min(BLOCK_BYTES, unit.sizeBytes - position)
  let start = 0
  while (start < end) {
    if (isZeroPage(plain, start)) {
      start += PAGE_BYTES
      continue
    }
    let next = start + PAGE_BYTES
    while (next < end && !isZeroPage(plain, next)) next += PAGE_BYTES
    writeFully(descriptor, plain, start, Math.min(next, end), position, unit.path)
    start = next
  }
}

function writeFully(
  descriptor: number,
  plain: Buffer,
  start: number,
  end: number,
  position: number,
  path: string
): void {
  try {
    for (let at = start; at < end;) at += fs.writeSync(descriptor, plain, at, end - at, position + at)
  } catch (error) {
    const full = errnoOf(error) === 'ENOSPC' || errnoOf(error) === 'EDQUOT'
    throw new FailedError(`cannot write ${path}: ${full ? 'the disk is full' : messageOf(error)}`, { cause: error })
  }
}

function isZeroPage(plain: Buffer, start: number): boolean {
  return plain.compare(ZERO_PAGE, 0, PAGE_BYTES, start, start + PAGE_BYTES) === 0
}

/** One read for neighbours; undefined when it fails, so that each block is tried and reported for itself. */
function readRun(share: Share, run: readonly Wanted[]): Buffer[] | undefined {
  const [first] = run
  const last = run.at(-1)
  if (first === undefined || last === undefined || run.length === 1) return undefined
  const start = first.place.offset
  try {
    const bytes = share.readRange(
      chunkName(first.place.chunk),
      start,
      last.place.offset + last.place.storedBytes - start
    )
    return run.map(({ place }) => bytes.subarray(place.offset - start, place.offset - start + place.storedBytes))
  } catch {
    return undefined
  }
}

function runs(blocks: readonly Wanted[]): Wanted[][] {
  const all: Wanted[][] = []
  let previous: BlockPlace | undefined
  for (const wanted of blocks) {
    const { place } = wanted
    const follows = previous?.chunk === place.chunk && previous.offset + previous.storedBytes === place.offset
    if (follows) all.at(-1)?.push(wanted)
    else all.push([wanted])
    previous = place
  }
  return all
}
