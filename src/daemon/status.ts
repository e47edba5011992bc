/** What a mount says about itself. Everything comes from memory, so the answer never waits for the share. */
import { PAGE_BYTES } from '../base/units.js'
import type { Images } from '../image/images.js'
import type { Tree } from '../tree/tree.js'
import type { Status } from './messages.js'
import type { MountLife } from './mount-life.js'
import type { OpenedVm } from './opened-vm.js'
import type { MountRequest } from './request.js'

export interface StatusSources {
  readonly request: MountRequest
  readonly vm: OpenedVm
  readonly images: Images
  readonly tree: Tree
  readonly life: MountLife
  /** when this mount began, ISO 8601 */
  readonly since: string
}

/** shorter waits are the normal course of things */
const WAITING_MS_MIN = 1000

export function statusOf({ request, vm, images, tree, life, since }: StatusSources): Status {
  const { session, pool, cache, right } = vm
  const { progress } = life
  return {
    vm: request.vmPath,
    mountpoint: request.mountpoint,
    state: life.state,
    generation: vm.base.number,
    readOnly: request.readOnly,
    discard: request.discard,
    client: vm.client.id,
    lease: right.lease,
    leaseNumber: right.leaseNumber,
    since,
    pid: process.pid,
    log: request.logFile,
    dirtyBytes: session.namespace.dirtyPages * PAGE_BYTES,
    pendingBytes: session.pendingBytes(),
    presentBytes: images.presentBytes(),
    totalBytes: images.totalBytes(),
    fetchedBytes: pool.counters.fetchedBytes,
    fetchedBlocks: pool.counters.fetchedBlocks,
    uploadedBytes: images.uploadedBytes + progress.sentBytes,
    cacheBytes: cache.bytes,
    shareErrors: pool.counters.shareErrors,
    shareAnswers: right.shareAnswers,
    damagedBlocks: images.counters.damagedBlocks,
    phase: progress.phase,
    doneBytes: progress.doneBytes,
    toDoBytes: progress.totalBytes,
    openHandles: tree.openHandles,
    residentBytes: process.memoryUsage.rss(),
    waiting: images
      .waiting()
      .filter(({ sinceMs }) => sinceMs >= WAITING_MS_MIN)
      .map(({ what, sinceMs }) => `${what} (${String(Math.round(sinceMs / 1000))} s)`)
  }
}
