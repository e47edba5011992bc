/** What a mount says about itself. Everything comes from memory, so the answer never waits for the share. */
import { totalOf } from '../base/thread-counters.js'
import { PAGE_BYTES } from '../base/units.js'
import type { Checkpointer } from '../commit/checkpointer.js'
import type { Transport } from '../fuse/port.js'
import type { Images } from '../image/images.js'
import type { SharedRegions } from '../image/shared-regions.js'
import type { Tree } from '../tree/tree.js'
import { estimateSuspend, type SuspendEstimate } from './estimate.js'
import type { Status } from './messages.js'
import type { MountLife } from './mount-life.js'
import type { OpenedVm } from './opened-vm.js'
import type { MountRequest } from './request.js'

export interface StatusSources {
  readonly request: MountRequest
  readonly vm: OpenedVm
  readonly images: Images
  readonly shared: SharedRegions | undefined
  readonly tree: Tree
  readonly transport: Pick<Transport, 'name'>
  readonly life: MountLife
  readonly checkpointer: Checkpointer | undefined
  /** when this mount began, ISO 8601 */
  readonly since: string
}

/** shorter waits are the normal course of things */
const WAITING_MS_MIN = 1000

export function statusOf(sources: StatusSources): Status {
  const { request, vm, images, shared, tree, transport, life, since } = sources
  const { session, pool, cache, right } = vm
  const { progress } = life
  const suspend = suspendOf(sources)
  return {
    vm: request.vmPath,
    mountpoint: request.mountpoint,
    state: life.state,
    generation: vm.base.number,
    checkpoint: session.checkpoint?.generation ?? null,
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
    suspendBytes: suspend.bytes,
    suspendSeconds: suspend.seconds,
    presentBytes: images.presentBytes(),
    dataBytes: images.dataBytes(),
    warm: images.isWarm,
    totalBytes: images.totalBytes(),
    fetchedBytes: pool.counters.fetchedBytes,
    fetchedBlocks: pool.counters.fetchedBlocks,
    lookasideBlocks: pool.counters.lookasideBlocks,
    aheadBlocks: images.ahead.totals().fetchedBlocks,
    aheadUsedBlocks: images.ahead.totals().usedBlocks,
    profileBlocks: images.ahead.counters.profile.fetchedBlocks,
    profileUsedBlocks: images.ahead.counters.profile.usedBlocks,
    uploadedBytes: uploadedBytesOf(sources),
    trickledBytes: images.trickledBytes,
    cacheBytes: cache.bytes,
    shareErrors: pool.counters.shareErrors,
    shareAnswers: right.shareAnswers,
    damagedBlocks: images.counters.damagedBlocks,
    phase: progress.phase,
    doneBytes: progress.doneBytes,
    toDoBytes: progress.totalBytes,
    openHandles: tree.openHandles,
    transport: transport.name,
    threadReads: shared === undefined ? 0 : totalOf(shared.counters, 'reads'),
    threadWrites: shared === undefined ? 0 : totalOf(shared.counters, 'writes'),
    residentBytes: process.memoryUsage.rss(),
    waiting: images
      .waiting()
      .filter(({ sinceMs }) => sinceMs >= WAITING_MS_MIN)
      .map(({ what, sinceMs }) => `${what} (${String(Math.round(sinceMs / 1000))} s)`)
  }
}

/** What a suspend would send now, and how long that would take. */
export function suspendOf({ images, vm }: Pick<StatusSources, 'images' | 'vm'>): SuspendEstimate {
  const sent = { bytes: images.trickledBytes, seconds: images.trickledSeconds }
  return estimateSuspend(images.changedBlocks(), vm.pool.counters, sent)
}

/** Encoded bytes that this mount has sent to the share. Checkpoints count themselves; their progress is not added. */
export function uploadedBytesOf({ images, checkpointer, life }: Omit<StatusSources, 'since'>): number {
  return images.uploadedBytes + (checkpointer?.sentBytes ?? 0) + (life.isEnding() ? life.progress.sentBytes : 0)
}
