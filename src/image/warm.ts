/**
 * Warm: every block of every file into the cache, so that the share may go away. Runs behind everything else, can be
 * given up at any moment, and goes on where it was: what the cache holds is compared with its digest, not fetched again.
 */
import { FailedError, IntegrityError, messageOf } from '../base/errors.js'
import { BLOCK_BYTES, BLOCKS_PER_MAP_PAGE, BLOCKS_PER_REGION, PAGES_PER_BLOCK } from '../base/units.js'
import type { BaseMaps } from '../cache/base-maps.js'
import type { Cache } from '../cache/cache.js'
import { isDamage } from '../fetch/fetcher.js'
import type { Inode } from '../session/namespace-types.js'
import type { Session } from '../session/session.js'
import type { FetchAhead } from './fetch-ahead.js'

/** how many blocks are asked for together: enough to keep the share busy, 8 MiB */
const BATCH_BLOCKS = 64
const ALL_PAGES = 2 ** PAGES_PER_BLOCK - 1

export interface WarmProgress {
  readonly doneBytes: number
  /** of blocks that have bytes */
  readonly totalBytes: number
}

export interface WarmParts {
  readonly session: Session
  readonly cache: Cache
  readonly maps: BaseMaps
  readonly ahead: FetchAhead
}

/**
 * Resolves when the cache holds everything, and says so on the disk. Rejects with FailedError when it cannot hold it, and
 * with IntegrityError when blocks are damaged on the share; the others are there then.
 */
export async function warm(
  parts: WarmParts,
  onProgress: (progress: WarmProgress) => void,
  isStopped: () => boolean
): Promise<WarmProgress> {
  const files = filesOf(parts.session)
  const totalBytes = files.reduce((total, inode) => total + dataBytesOf(inode), 0)
  refuseWhatCannotFit(parts.cache, totalBytes)
  let doneBytes = 0
  let absentBlocks = 0
  let failure: unknown
  for (const inode of files) {
    for await (const blocks of batches(inode, parts.maps)) {
      if (isStopped()) throw new FailedError('the cache was not filled: it was given up', { hint: GO_ON })
      let brought = await parts.ahead.bring(inode, blocks, 'warm')
      // a block that was uploaded while its base came is not kept: its new place is asked for
      if (brought.absentBlocks > 0 && brought.failure === undefined)
        brought = await parts.ahead.bring(inode, blocks, 'warm')
      if (parts.session.namespace.get(inode.id) !== inode) break // deleted meanwhile
      absentBlocks += brought.absentBlocks
      failure ??= brought.failure
      doneBytes += (brought.dataBlocks - brought.absentBlocks) * BLOCK_BYTES
      onProgress({ doneBytes, totalBytes })
      if (brought.absentBlocks > 0 && brought.failure === undefined) throw notKept(parts.cache)
      if (failure !== undefined && !isDamage(failure)) throw asError(failure)
    }
  }
  await parts.cache.flush()
  if (absentBlocks > 0) {
    throw new IntegrityError(`${String(absentBlocks)} blocks could not be fetched: ${messageOf(failure)}`, {
      hint: 'isrfs check <vm> --repair looks for them'
    })
  }
  return { doneBytes, totalBytes: doneBytes }
}

const GO_ON = 'what was fetched stays in the cache; isrfs warm goes on from there'

/** Small files first: descriptors and memory images matter before the whole of a disk does. */
function filesOf(session: Session): Inode[] {
  return [...session.namespace.inodes()]
    .filter((inode) => inode.type === 'file' && inode.parent !== 0)
    .sort((first, second) => first.sizeBytes - second.sizeBytes)
}

/** Of the file's blocks in the generation that have bytes, and count still. */
export function dataBytesOf(inode: Inode): number {
  return Math.min(
    (inode.base?.dataBlocks ?? 0) * BLOCK_BYTES,
    Math.ceil(inode.baseLimitBytes / BLOCK_BYTES) * BLOCK_BYTES
  )
}

/** Blocks that a reader may need from the share, a batch at a time. */
async function* batches(inode: Inode, maps: BaseMaps): AsyncGenerator<number[]> {
  const end = Math.ceil(Math.min(inode.baseLimitBytes, inode.sizeBytes) / BLOCK_BYTES)
  let batch: number[] = []
  for (let page = 0; page * BLOCKS_PER_MAP_PAGE < end; page++) {
    const mapPage = await maps.page(inode.base?.map ?? null, page, 'warm')
    const last = Math.min(end, (page + 1) * BLOCKS_PER_MAP_PAGE)
    for (let block = page * BLOCKS_PER_MAP_PAGE; block < last; block++) {
      const hasBytes = mapPage?.digest(block % BLOCKS_PER_MAP_PAGE) !== undefined && !inode.uploaded.has(block)
      if (!hasBytes || isAllModified(inode, block)) continue
      batch.push(block)
      if (batch.length < BATCH_BLOCKS) continue
      yield batch
      batch = []
    }
  }
  for (const [block, { place }] of inode.uploaded) {
    if (place === undefined || isAllModified(inode, block)) continue
    batch.push(block)
    if (batch.length < BATCH_BLOCKS) continue
    yield batch
    batch = []
  }
  if (batch.length > 0) yield batch
}

/** Whether the session has every page of the block. */
function isAllModified(inode: Inode, block: number): boolean {
  const valid = inode.regions.get(Math.floor(block / BLOCKS_PER_REGION))?.valid
  return valid?.[block % BLOCKS_PER_REGION] === ALL_PAGES // a block is one word
}

function refuseWhatCannotFit(cache: Cache, totalBytes: number): void {
  if (totalBytes <= cache.bytesMax) return
  throw new FailedError(
    `the cache may take ${String(cache.bytesMax)} bytes, and the files have ${String(totalBytes)}: it cannot hold them`,
    { hint: 'give it more: --cache-size' }
  )
}

function notKept(cache: Cache): FailedError {
  return new FailedError(
    `${cache.directory} cannot hold more: its disk is full, or the cache is as large as it may be`,
    {
      hint: `make space (or mount with a larger --cache-size); ${GO_ON}`
    }
  )
}

function asError(failure: unknown): Error {
  return failure instanceof Error ? failure : new FailedError(messageOf(failure))
}
