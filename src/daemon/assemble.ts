/** What serves a mount, from the kernel's requests down to the opened VM. */
import { messageOf, PosixError } from '../base/errors.js'
import { isDamage } from '../fetch/fetcher.js'
import { createTransport } from '../fuse/choose.js'
import { OperationTimes } from '../fuse/operation-times.js'
import type { Transport } from '../fuse/port.js'
import { Images } from '../image/images.js'
import { SharedRegions } from '../image/shared-regions.js'
import { Tree } from '../tree/tree.js'
import { event } from './log-events.js'
import { type Log, quietly } from './log.js'
import { isMapped } from './mapped-files.js'
import type { OpenedVm } from './opened-vm.js'
import type { MountRequest } from './request.js'

export interface Assembled {
  readonly shared: SharedRegions | undefined
  readonly images: Images
  readonly tree: Tree
  readonly times: OperationTimes
  readonly transport: Transport
}

/** Throws what keeps the transport from being had, such as a binding that is not installed. */
export function assemble(request: MountRequest, vm: OpenedVm, log: Log, notice: (text: string) => void): Assembled {
  const quiet = quietly(log)
  const shared =
    request.transport === 'direct'
      ? new SharedRegions({ session: vm.session, cache: vm.cache, mayWrite: request.writeback && !request.readOnly })
      : undefined
  const images = new Images({
    session: vm.session,
    cache: vm.cache,
    pool: vm.pool,
    shared,
    uploadTo: vm.held === undefined ? undefined : request.vmPath,
    trickle: request.trickle,
    writeback: request.writeback,
    shareTimeoutMs: request.shareTimeoutMs ?? undefined,
    isShareSilent: () => !vm.right.shareAnswers,
    onDamage: (message) => quiet.damage(message),
    onWarning: (message) => quiet.warn(message)
  })
  const { readOnly, writeback, mountpoint, allowOther, vmPath } = request
  const isFileMapped = (name: string): Promise<boolean> => isMapped(mountpoint, name)
  const tree = new Tree(vm.session, images, { readOnly, writeback, isMapped: isFileMapped })
  const onError = (error: unknown, operation: string): void => {
    if (error instanceof PosixError && isDamage(error.cause)) return // onDamage has told
    quiet.requestFailed(operation, messageOf(error))
  }
  const times = new OperationTimes()
  const hasHardLinks = (): boolean => vm.session.namespace.hasHardLinks()
  const options = { mountpoint, readOnly, allowOther, writeback, hasHardLinks, vmName: vmPath, onError, times, shared }
  const transport = createTransport(request.transport, tree, options, (text) => {
    shared?.stop() // the binding has no threads that would read
    log.warn(event('notice'), text)
    notice(text)
  })
  return { shared, images, tree, times, transport }
}
