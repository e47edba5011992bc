/** What those who watch a mount see of it, beyond its status. Everything comes from memory. */
import { FailedError } from '../base/errors.js'
import { totalOf } from '../base/thread-counters.js'
import { BLOCK_BYTES, PAGE_BYTES, toInodeId } from '../base/units.js'
import { countBits } from '../base/bits.js'
import { BUCKET_ENDS_SECONDS, OPERATION_KINDS, type OperationTimes } from '../fuse/operation-times.js'
import { CELL_STATES } from '../image/block-cells.js'
import type { Inode } from '../session/namespace-types.js'
import type { Session } from '../session/session.js'
import type { Cells, CellsWanted, View } from './messages.js'
import type { Samples } from './samples.js'
import { statusOf, type StatusSources } from './status.js'

export interface ViewSources extends StatusSources {
  readonly times: OperationTimes
  readonly samples: Samples
}

const FILES_MAX = 64
/** blocks that have to have come before their size on the share says what others will need */
const TELLING_BLOCKS_MIN = 16
/** bytes on the share for a byte of a block, while nothing better is known */
const USUAL_RATIO = 0.5
/** how long fetches have to have run before they say how fast the share is */
const TELLING_SECONDS_MIN = 0.2
/** what a suspend takes beside its bytes */
const SUSPEND_SECONDS_MIN = 1

export function viewOf(sources: ViewSources, since: number): View {
  const { images, vm, shared, times, samples } = sources
  const served = images.servedBytes('session') + images.servedBytes('zero') + images.servedBytes('cache')
  return {
    status: statusOf(sources),
    readBytes: images.readBytes,
    hitBytes: served + (shared === undefined ? 0 : totalOf(shared.counters, 'readBytes')),
    suspend: estimateSuspend(images.dirtyBlocks(), vm.pool.counters),
    samples: samples.since(since),
    latency: {
      endsSeconds: [...BUCKET_ENDS_SECONDS],
      kinds: OPERATION_KINDS.map((operation) => ({ operation, counts: [...times.of(operation).counts] }))
    },
    files: filesOf(vm.session)
  }
}

/** Throws FailedError when the mount has no such file (any more). */
export function cellsOf({ images, vm }: StatusSources, wanted: CellsWanted): Cells {
  const inode = vm.session.namespace.get(toInodeId(wanted.inode))
  if (inode?.type !== 'file') throw new FailedError(`there is no file with the inode ${String(wanted.inode)}`)
  const { firstBlock, blocks, cells, states } = images.cells(inode, wanted)
  const encoded = Object.fromEntries(
    CELL_STATES.map((state) => [state, Buffer.from(states[state]).toString('base64')])
  ) as Cells['states'] // all of CELL_STATES
  return { firstBlock, blocks, cells, states: encoded }
}

export interface Fetched {
  readonly fetchedBytes: number
  readonly fetchedBlocks: number
  readonly busySeconds: number
}

/**
 * How much a suspend would send now, and how long that would take: blocks are taken to be as compressible, and the share as fast, as
 * what was fetched in this mount. `seconds` is null while too little was fetched to tell.
 */
export function estimateSuspend(dirtyBlocks: number, fetched: Fetched): { bytes: number; seconds: number | null } {
  const { fetchedBytes, fetchedBlocks, busySeconds } = fetched
  const ratio =
    fetchedBlocks < TELLING_BLOCKS_MIN ? USUAL_RATIO : Math.min(1, fetchedBytes / (fetchedBlocks * BLOCK_BYTES))
  const bytes = Math.ceil(dirtyBlocks * BLOCK_BYTES * ratio)
  if (bytes === 0) return { bytes, seconds: SUSPEND_SECONDS_MIN }
  const isTelling = busySeconds >= TELLING_SECONDS_MIN && fetchedBytes > 0
  return { bytes, seconds: isTelling ? SUSPEND_SECONDS_MIN + bytes / (fetchedBytes / busySeconds) : null }
}

function filesOf(session: Session): View['files'] {
  return [...session.namespace.inodes()]
    .filter(({ type, parent }) => type === 'file' && parent !== 0)
    .sort((first, second) => second.sizeBytes - first.sizeBytes)
    .slice(0, FILES_MAX)
    .map((inode) => {
      let dirtyPages = 0
      for (const { valid } of inode.regions.values()) dirtyPages += countBits(valid)
      return {
        inode: inode.id,
        path: pathOf(session, inode),
        sizeBytes: inode.sizeBytes,
        dataBytes: Math.min(inode.sizeBytes, (inode.base?.dataBlocks ?? 0) * BLOCK_BYTES),
        dirtyBytes: dirtyPages * PAGE_BYTES
      }
    })
}

function pathOf(session: Session, inode: Inode): string {
  const names: string[] = []
  for (let at: Inode | undefined = inode; at !== undefined && at.name !== ''; at = session.namespace.get(at.parent)) {
    names.unshift(at.name)
  }
  return names.join('/')
}
