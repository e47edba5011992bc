/** isrfs warm: fills the cache, through the daemon where this client has the VM mounted, else on its own. */
import path from 'node:path'
import { askAllStatus, askWarm } from '../daemon/control-client.js'
import type { Progress, Status, Warmed } from '../daemon/messages.js'
import { MOUNT_TYPE, mountAt } from '../daemon/mount-table.js'
import { warmVm } from '../daemon/warm.js'
import { copiedNotice, openClient } from '../session/client.js'
import { CACHE_BYTES_DEFAULT } from './command-mount.js'
import { whyNoDaemon } from './command-unmount.js'
import { bytes } from './figures.js'
import { locateMountpoint } from './mountpoint.js'
import { directoriesOf, type GlobalOptions, toSize } from './options.js'
import { notice, resultAs } from './output.js'
import { prepareCacheDirectory, prepareDirectory } from './prerequisites.js'
import { progressView } from './progress.js'
import { connectToLiving } from './silent-daemon.js'

export interface WarmOptions extends GlobalOptions {
  readonly cacheSize?: string
  readonly json?: boolean
}

export async function warmCommand(given: string, options: WarmOptions): Promise<void> {
  const view = progressView()
  // nothing is sent here; what a commit has sent is not of interest
  const show = ({ phase, doneBytes, totalBytes }: Progress): void => view.show({ phase, doneBytes, totalBytes })
  let warmed: Warmed
  try {
    warmed = isMountpoint(given)
      ? await warmMounted(locateMountpoint(given), show)
      : await warmOnShare(path.resolve(given), options, show)
  } finally {
    view.end()
  }
  resultAs(
    options.json,
    warmed,
    () =>
      `all of ${given} is in the cache: ${bytes(warmed.totalBytes)} of blocks, ${bytes(warmed.fetchedBytes)} fetched now`
  )
}

function isMountpoint(given: string): boolean {
  return mountAt(locateMountpoint(given))?.fileSystemType === MOUNT_TYPE
}

async function warmMounted(mountpoint: string, show: (progress: Progress) => void): Promise<Warmed> {
  const socket = await connectToLiving(mountpoint)
  if (socket === undefined) throw await whyNoDaemon(mountpoint)
  return askWarm(socket, show)
}

async function warmOnShare(vmPath: string, options: WarmOptions, show: (progress: Progress) => void): Promise<Warmed> {
  const { clientDirectory, cacheDirectory } = directoriesOf(options)
  prepareDirectory(clientDirectory, '--client-dir')
  prepareCacheDirectory(cacheDirectory)
  const mounted = await mountOf(vmPath, clientDirectory)
  // the mount has the cache that the next mount will use
  if (mounted !== undefined) return warmMounted(mounted.mountpoint, show)
  const cacheBytesMax = options.cacheSize === undefined ? CACHE_BYTES_DEFAULT : toSize(options.cacheSize)
  let isStopped = false
  const stop = (): void => void (isStopped = true)
  process.once('SIGINT', stop).once('SIGTERM', stop)
  try {
    return await warmVm(
      { vmPath, clientDirectory, cacheDirectory, cacheBytesMax, notice },
      { onProgress: show, isStopped: () => isStopped }
    )
  } finally {
    process.off('SIGINT', stop).off('SIGTERM', stop)
  }
}

async function mountOf(vmPath: string, clientDirectory: string): Promise<Status | undefined> {
  const { id, wasCopied } = openClient(clientDirectory)
  if (wasCopied) notice(copiedNotice(clientDirectory))
  return (await askAllStatus()).find(({ vm, client }) => vm === vmPath && client === id)
}
