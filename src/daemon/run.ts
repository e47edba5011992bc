/**
 * One mount from its first check to its end, in whatever process: detached (daemon/process.ts) or in the foreground of the
 * command line. Reports through `Reporter`; the caller decides how the process ends.
 */
import { BusyError, messageOf } from '../base/errors.js'
import { prepareReaders } from '../fuse/direct/readers.js'
import type { Images } from '../image/images.js'
import { assemble, type Assembled } from './assemble.js'
import { createCheckpointer, whyNoCheckpointer } from './checkpoint.js'
import { ControlServer } from './control-server.js'
import { event } from './log-events.js'
import { type Log, openLog } from './log.js'
import type { Outcome } from './messages.js'
import { type MetricsPort, serveMetrics } from './metrics-port.js'
import { MountLife } from './mount-life.js'
import { abandon, openVm, type OpenedVm } from './opened-vm.js'
import type { MountRequest } from './request.js'
import { createSocketPath } from './socket-path.js'
import type { StartGate } from './start-gate.js'
import { endProcess, noteThreads } from './share-threads.js'
import { sampleOf, Samples } from './samples.js'
import { statusOf } from './status.js'
import { cellsOf, viewOf } from './view.js'
import { warmMount } from './warm.js'

const SIGNAL_RETRY_MS = 1000

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
  const { vmPath, mountpoint, logFile, log: limits } = request
  const log = openLog(logFile, { vm: vmPath, mountpoint }, limits)
  process.on('uncaughtException', (error) => {
    log.fatal(event('defect', { why: error.stack ?? error.message }), 'a defect; what was accepted is in the session')
    endProcess(1)
  })
  log.info(event('starting', { request }), 'starting')
  const notice = (text: string): void => {
    log.info(event('notice'), text)
    reporter.notice(text)
  }
  try {
    if (request.transport === 'direct') prepareReaders()
    const vm = await openVm({ request, log, notice, checkpoint: () => gate.checkpoint() })
    return await serve(request, reporter, gate, log, vm)
  } catch (error) {
    log.error(event('failed', { why: messageOf(error) }), 'failed')
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
  let assembled: Assembled
  try {
    assembled = assemble(request, vm, log, (text) => reporter.notice(text))
  } catch (error) {
    await giveBack(vm)
    throw error
  }
  const { shared, images, tree, times, transport } = assembled
  const checkpointer = createCheckpointer(request, vm, images)
  let control: ControlServer | undefined
  let port: MetricsPort | undefined
  const letGo = async (): Promise<void> => {
    await vm.release()
    await control?.stopListening()
  }
  const life = new MountLife(request, vm, transport, log, letGo, {
    anyWriteFailed: () => images.counters.failedWrites > 0,
    stop: async () => {
      images.stop()
      await checkpointer?.stop()
    },
    profile: () => images.nextProfile()
  })
  const sources = { request, vm, images, shared, tree, transport, life, checkpointer, since, times }
  const samples = new Samples(() => sampleOf(sources))
  // prom-client is loaded when somebody asks
  const metrics = async (): Promise<string> => (await import('./metrics.js')).metricsText(sources)
  try {
    control = await ControlServer.listen(createSocketPath(request.mountpoint), {
      status: () => statusOf(sources),
      view: (since) => viewOf({ ...sources, samples }, since),
      cells: (wanted) => cellsOf(sources, wanted),
      metrics,
      warm: (onProgress, isStopped) =>
        warmMount(vm, images, { onProgress, isStopped: () => isStopped() || life.isEnding() }),
      checkpoint: async () => {
        if (checkpointer === undefined) throw whyNoCheckpointer(request)
        return life.checkpoint(checkpointer)
      },
      unmount: (options) => life.unmount(options),
      watch: (watcher) => life.watch(watcher)
    })
    gate.checkpoint()
    noteThreads('requests of the mount', () => transport.threadsWait)
    await life.mount()
  } catch (error) {
    samples.stop()
    await control?.close()
    await giveBack(vm)
    throw error
  }
  if (request.metricsPort !== null) {
    port = await serveMetrics(request.metricsPort, metrics, log, (text) => reporter.notice(text))
  }
  const end = endOnSignals(life, log, reporter)
  const isWanted = gate.open()
  if (!isWanted) end('given up')
  const files = vm.base.manifest.entries.length
  log.info(event('mounted', { generation: vm.base.number, files, transport: transport.name }), 'mounted')
  void images.fetchMetadata()
  void replayProfile(vm, images, log)
  if (isWanted) reporter.ready({ generation: vm.base.number, files, totalBytes: images.totalBytes() })
  try {
    return await life.finished
  } finally {
    samples.stop()
    port?.close()
    await control.close()
    log.flush()
  }
}

/** A mount that will not be: nobody has to wait for its lease. */
async function giveBack(vm: OpenedVm): Promise<void> {
  await abandon(vm)
  await vm.release()
}

/** What an earlier mount read first is fetched ahead. A profile that cannot be had costs nothing but time. */
async function replayProfile({ pool, base }: OpenedVm, images: Images, log: Log): Promise<void> {
  try {
    const profile = await pool.run('profile', { generation: base.number }, { priority: 'profile', what: 'the profile' })
    if (profile === undefined) return
    await images.replay(profile)
    const counts = { runs: profile.runs.length, ...images.ahead.counters.profile }
    log.info(event('profile', counts), 'the profile was fetched')
  } catch (error) {
    log.warn(event('no-profile', { why: messageOf(error) }), 'no profile')
  }
}

/** SIGTERM and SIGINT ask for an orderly end, again and again while the mount is busy. */
function endOnSignals(life: MountLife, log: Log, reporter: Reporter): (why: string) => void {
  let asked = false
  const end = async (signal: string): Promise<void> => {
    log.info(event('asked-to-end', { signal }), 'asked to end')
    if (asked) return
    asked = true
    for (let attempt = 0; !life.isEnding(); attempt++) {
      try {
        await life.unmount({ verify: false })
      } catch (error) {
        if (life.isEnding()) return // told by life.finished
        if (attempt === 0) reporter.notice(`${messageOf(error)}; it is unmounted as soon as that is possible`)
        if (!(error instanceof BusyError))
          log.warn(event('not-unmounted', { why: messageOf(error) }), 'not unmounted yet')
        await new Promise((resolve) => setTimeout(resolve, SIGNAL_RETRY_MS))
      }
    }
  }
  for (const signal of ['SIGTERM', 'SIGINT'] as const) process.on(signal, () => void end(signal))
  process.on('SIGHUP', () => log.info(event('signal', { signal: 'SIGHUP' }), 'SIGHUP ignored'))
  return (why) => void end(why)
}
