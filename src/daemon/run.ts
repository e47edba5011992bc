/**
 * One mount from its first check to its end, in whatever process: detached (daemon/main.ts) or in the foreground of the
 * command line. Reports through `Reporter`; the caller decides how the process ends.
 */
import { BusyError, messageOf } from '../base/errors.js'
import { createBindingTransport } from '../fuse/binding.js'
import { Images } from '../image/images.js'
import { Tree } from '../tree/tree.js'
import { ControlServer } from './control-server.js'
import { type Log, openLog } from './log.js'
import type { Outcome } from './messages.js'
import { isMapped } from './mapped-files.js'
import { MountLife } from './mount-life.js'
import { abandon, openVm, type OpenedVm } from './opened-vm.js'
import type { MountRequest } from './request.js'
import { createSocketPath } from './socket-path.js'
import type { StartGate } from './start-gate.js'
import { statusOf } from './status.js'

const SIGNAL_RETRY_MS = 1000
const VERSION_FACTS = { program: 'isrfs' }

export interface Ready {
  readonly generation: number
  readonly files: number
  readonly totalBytes: number
}

export interface Reporter {
  notice(text: string): void
  ready(ready: Ready): void
}

/** Rejects with what stopped the mount from starting, or with what stopped its end (NotPublishedError). */
export async function runMount(request: MountRequest, reporter: Reporter, gate: StartGate): Promise<Outcome> {
  const log = openLog(request.logFile, { ...VERSION_FACTS, vm: request.vmPath, mountpoint: request.mountpoint })
  process.on('uncaughtException', (error) => {
    log.fatal({ why: error.stack ?? error.message }, 'a defect; what was accepted is in the session')
    process.exit(1)
  })
  log.info({ request }, 'starting')
  const notice = (text: string): void => {
    log.info(text)
    reporter.notice(text)
  }
  try {
    const vm = await openVm({ request, log, notice, checkpoint: () => gate.checkpoint() })
    return await serve(request, reporter, gate, log, vm)
  } catch (error) {
    log.error({ why: messageOf(error) }, 'failed')
    throw error
  }
}

async function serve(
  request: MountRequest,
  reporter: Reporter,
  gate: StartGate,
  log: Log,
  vm: OpenedVm
): Promise<Outcome> {
  const since = new Date().toISOString()
  const images = new Images({
    session: vm.session,
    cache: vm.cache,
    pool: vm.pool,
    uploadTo: vm.held === undefined ? undefined : request.vmPath,
    writeback: request.writeback,
    shareTimeoutMs: request.shareTimeoutMs ?? undefined,
    isShareSilent: () => !vm.right.shareAnswers,
    onDamage: (message) => log.error({ damage: message }, 'a block is damaged: its readers get EIO'),
    onWarning: (message) => log.warn(message)
  })
  const { readOnly, writeback, mountpoint, allowOther, vmPath } = request
  const isFileMapped = (name: string): Promise<boolean> => isMapped(mountpoint, name)
  const tree = new Tree(vm.session, images, { readOnly, writeback, isMapped: isFileMapped })
  const transport = createBindingTransport(tree, {
    mountpoint,
    readOnly,
    allowOther,
    writeback,
    vmName: vmPath,
    onError: (error, operation) =>
      log.error({ operation, why: messageOf(error) }, 'a request failed in an unforeseen way')
  })
  let control: ControlServer | undefined
  const letGo = async (): Promise<void> => {
    await vm.release()
    control?.stopListening()
  }
  const life = new MountLife(request, vm, transport, log, letGo, {
    anyWriteFailed: () => images.counters.failedWrites > 0,
    stop: () => images.stop()
  })
  try {
    control = await ControlServer.listen(createSocketPath(mountpoint), {
      status: () => statusOf({ request, vm, images, tree, life, since }),
      unmount: (options) => life.unmount(options),
      watch: (watcher) => life.watch(watcher)
    })
    gate.checkpoint()
    await life.mount()
  } catch (error) {
    await control?.close()
    await abandon(vm)
    await vm.release()
    throw error
  }
  gate.open()
  endOnSignals(life, log, reporter)
  const files = vm.base.manifest.entries.length
  log.info({ generation: vm.base.number, files }, 'mounted')
  reporter.ready({ generation: vm.base.number, files, totalBytes: images.totalBytes() })
  try {
    return await life.finished
  } finally {
    await control.close()
    log.flush()
  }
}

/** SIGTERM and SIGINT ask for an orderly end, again and again while the mount is busy. */
function endOnSignals(life: MountLife, log: Log, reporter: Reporter): void {
  let asked = false
  const end = async (signal: string): Promise<void> => {
    log.info({ signal }, 'asked to end')
    if (asked) return
    asked = true
    for (let attempt = 0; !life.isEnding(); attempt++) {
      try {
        await life.unmount({ verify: false })
      } catch (error) {
        if (life.isEnding()) return // told by life.finished
        if (attempt === 0) reporter.notice(`${messageOf(error)}; it is unmounted as soon as that is possible`)
        if (!(error instanceof BusyError)) log.warn({ why: messageOf(error) }, 'not unmounted yet')
        await new Promise((resolve) => setTimeout(resolve, SIGNAL_RETRY_MS))
      }
    }
  }
  for (const signal of ['SIGTERM', 'SIGINT'] as const) process.on(signal, () => void end(signal))
  process.on('SIGHUP', () => log.info('SIGHUP ignored'))
}
