/** isrfs mount: checks what this machine and the mountpoint have to offer, then leaves the rest to the daemon. */
import fs from 'node:fs'
import path from 'node:path'
import { FailedError, messageOf, UsageError } from '../base/errors.js'
import { removals } from '../base/remove-later.js'
import type { MountRequest } from '../daemon/request.js'
import type { Ready } from '../daemon/run.js'
import { endProcess } from '../daemon/share-threads.js'
import { StartGate } from '../daemon/start-gate.js'
import { startDaemon } from './daemon-process.js'
import { bytes } from './figures.js'
import { logFileOf } from './log-files.js'
import { checkMountpoint, checkNotInside } from './mountpoint.js'
import {
  directoriesOf,
  type GlobalOptions,
  toCount,
  toDurationMs,
  toGenerationOrBranch,
  toPort,
  toSize
} from './options.js'
import { outcomeText } from './outcome.js'
import { notice, report, result } from './output.js'
import { tellServiceManager } from './service-manager.js'
import { chooseTransport } from './transport.js'
import { checkMachine, prepareCacheDirectory, prepareDirectory, thisMachine } from './prerequisites.js'

export const CACHE_BYTES_DEFAULT = 20 * 1024 ** 3
const FIRST_ANSWER_MS_MAX = 30_000

export interface MountOptions extends GlobalOptions {
  readonly readOnly?: boolean
  readonly generation?: string
  readonly discard?: boolean
  readonly foreground?: boolean
  readonly allowOther?: boolean
  readonly acceptRollback?: boolean
  readonly cacheSize?: string
  readonly shareTimeout?: string
  /** false with --no-writeback */
  readonly writeback: boolean
  /** false with --no-trickle */
  readonly trickle: boolean
  readonly transport: string
  readonly json?: boolean
  readonly logSize: string
  readonly logFiles: string
  readonly metricsPort?: string
}

export async function mountCommand(vm: string, givenMountpoint: string, options: MountOptions): Promise<void> {
  const partial = requestOf(vm, options)
  checkMachine(thisMachine(), { allowOther: partial.allowOther })
  const mountpoint = await checkMountpoint(givenMountpoint, notice)
  checkNotInside(mountpoint, [
    ['the VM', partial.vmPath],
    ['the client directory', partial.clientDirectory],
    ['the cache directory', partial.cacheDirectory]
  ])
  prepareDirectory(partial.clientDirectory, '--client-dir')
  prepareCacheDirectory(partial.cacheDirectory)
  const request = { ...partial, mountpoint, logFile: prepareLog(partial.clientDirectory, partial.vmPath, mountpoint) }
  if (options.foreground === true) await stayInForeground(request, options.json)
  const started = await startDaemon(request, notice)
  await firstAnswer(mountpoint)
  tellReady(request, started, options.json)
}

/** Everything that follows from the command line alone. */
function requestOf(vm: string, options: MountOptions): Omit<MountRequest, 'mountpoint' | 'logFile'> {
  const transport = chooseTransport(options.transport, {
    uid: process.getuid?.() ?? 0,
    architecture: process.arch,
    foreground: options.foreground === true,
    searchPath: process.env['PATH'] ?? ''
  })
  const shown =
    options.generation === undefined ? { generation: null, branch: null } : toGenerationOrBranch(options.generation)
  const isOld = options.generation !== undefined
  const discard = options.discard === true
  if (discard && (options.readOnly === true || isOld)) {
    throw new UsageError('--discard makes a writable mount; it goes with neither --read-only nor --generation')
  }
  return {
    vmPath: path.resolve(vm),
    ...directoriesOf(options),
    ...shown,
    readOnly: options.readOnly === true || isOld,
    discard,
    allowOther: options.allowOther === true,
    acceptRollback: options.acceptRollback === true,
    writeback: options.writeback,
    trickle: options.trickle,
    transport,
    log: { bytesMax: toSize(options.logSize), filesMax: toCount(options.logFiles, '--log-files') },
    metricsPort: toPort(options.metricsPort),
    shareTimeoutMs: options.shareTimeout === undefined ? null : toDurationMs(options.shareTimeout),
    cacheBytesMax: options.cacheSize === undefined ? CACHE_BYTES_DEFAULT : toSize(options.cacheSize)
  }
}

function prepareLog(clientDirectory: string, vmPath: string, mountpoint: string): string {
  const file = logFileOf(clientDirectory, vmPath, mountpoint)
  fs.mkdirSync(path.dirname(file), { recursive: true, mode: 0o700 })
  return file
}

/** The mount is ready for the user when it is for this process. */
async function firstAnswer(mountpoint: string): Promise<void> {
  let timer: NodeJS.Timeout | undefined
  const late = new Promise<never>((_resolve, reject) => {
    timer = setTimeout(
      () => reject(new FailedError(`${mountpoint} is mounted but does not answer`)),
      FIRST_ANSWER_MS_MAX
    )
  })
  try {
    await Promise.race([fs.promises.stat(mountpoint), late])
  } catch (error) {
    throw error instanceof FailedError
      ? error
      : new FailedError(`${mountpoint} does not answer: ${messageOf(error)}`, { cause: error })
  } finally {
    clearTimeout(timer)
  }
}

/** This process is the daemon; it ends with the mount. */
async function stayInForeground(request: MountRequest, json: boolean | undefined): Promise<never> {
  // only here, because they bring all of the daemon along: a command line that starts one would take twice as long
  const { runMount } = await import('../daemon/run.js')
  const { branchError } = await import('../daemon/settle.js')
  const gate = new StartGate()
  for (const signal of ['SIGTERM', 'SIGINT'] as const) process.on(signal, () => gate.giveUp())
  process.chdir('/')
  let code = 0
  try {
    const outcome = await runMount(
      request,
      {
        notice,
        ready: (ready) => {
          tellReady(request, { ...ready, pid: process.pid }, json)
          void tellServiceManager('--ready', `--status=generation ${String(ready.generation)} is mounted`)
        }
      },
      gate
    )
    if (outcome.kind === 'branch') code = report(branchError(request.vmPath, outcome))
    else notice(outcomeText(request.vmPath, outcome))
  } catch (error) {
    endProcess(report(error))
  }
  for (const signal of ['SIGTERM', 'SIGINT'] as const) process.on(signal, () => endProcess(code)) // the next mount goes on
  await removals()
  endProcess(code)
}

function tellReady(request: MountRequest, ready: Ready & { readonly pid: number }, json?: boolean): void {
  if (json === true) {
    const { vmPath: vm, mountpoint, logFile: log } = request
    const { generation, files, totalBytes, pid } = ready
    result(JSON.stringify({ vm, mountpoint, generation, files, totalBytes, pid, log }))
    return
  }
  const kind = request.readOnly ? ', read-only' : request.discard ? ', changes will be discarded' : ''
  notice(
    `generation ${String(ready.generation)} of ${request.vmPath} is mounted on ${request.mountpoint}${kind} (${String(ready.files)} entries, ${bytes(ready.totalBytes)})`
  )
  notice(`log: ${request.logFile}`)
}
