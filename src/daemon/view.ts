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

export function viewOf(sources: ViewSources, since: number): View {
  const { images, vm, shared, times, samples } = sources
  const served = images.servedBytes('session') + images.servedBytes('zero') + images.servedBytes('cache')
  return {
    status: statusOf(sources),
    readBytes: images.readBytes,
    hitBytes: served + (shared === undefined ? 0 : totalOf(shared.counters, 'readBytes')),
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
