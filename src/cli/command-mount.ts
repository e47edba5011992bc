/** isrfs mount: checks what this machine and the mountpoint have to offer, then leaves the rest to the daemon. */
import fs from 'node:fs'
import path from 'node:path'
import { FailedError, messageOf, UsageError } from '../base/errors.js'
import { rotateLog } from '../daemon/log.js'
import type { MountRequest } from '../daemon/request.js'
import type { Ready } from '../daemon/run.js'
import { branchError } from '../daemon/settle.js'
import { endProcess } from '../daemon/share-threads.js'
import { socketName } from '../daemon/socket-path.js'
import { StartGate } from '../daemon/start-gate.js'
import { startDaemon } from './daemon-process.js'
import { bytes } from './figures.js'
import { checkMountpoint, checkNotInside } from './mountpoint.js'
import { directoriesOf, type GlobalOptions, toDurationMs, toGenerationOrBranch, toSize } from './options.js'
import { outcomeText } from './outcome.js'
import { notice, report } from './output.js'
import { tellServiceManager } from './service-manager.js'
import { checkMachine, prepareDirectory, thisMachine } from './prerequisites.js'

const CACHE_BYTES_DEFAULT = 20 * 1024 ** 3
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
  readonly transport: string
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
  prepareDirectory(partial.cacheDirectory, '--cache-dir')
  const request = { ...partial, mountpoint, logFile: prepareLog(partial.clientDirectory, partial.vmPath, mountpoint) }
  if (options.foreground === true) await stayInForeground(request)
  const started = await startDaemon(request, notice)
  await firstAnswer(mountpoint)
  tellReady(request, started)
}

/** Everything that follows from the command line alone. */
function requestOf(vm: string, options: MountOptions): Omit<MountRequest, 'mountpoint' | 'logFile'> {
  switch (options.transport) {
    case 'auto':
    case 'binding':
      break
    case 'direct':
      throw new UsageError('--transport direct is not available yet', { hint: 'use --transport auto' })
    default:
      throw new UsageError(`--transport ${options.transport} is unknown`, { hint: 'use auto or binding' })
  }
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
    shareTimeoutMs: options.shareTimeout === undefined ? null : toDurationMs(options.shareTimeout),
    cacheBytesMax: options.cacheSize === undefined ? CACHE_BYTES_DEFAULT : toSize(options.cacheSize)
  }
}

function prepareLog(clientDirectory: string, vmPath: string, mountpoint: string): string {
  const directory = path.join(clientDirectory, 'log')
  fs.mkdirSync(directory, { recursive: true, mode: 0o700 })
  const name = path
    .basename(vmPath)
    .replace(/[^\w.-]/g, '_')
    .slice(0, 100)
  const file = path.join(directory, `${name}-${socketName(mountpoint).slice(0, 8)}.log`)
  rotateLog(file)
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
async function stayInForeground(request: MountRequest): Promise<never> {
  const { runMount } = await import('../daemon/run.js')
  const gate = new StartGate()
  for (const signal of ['SIGTERM', 'SIGINT'] as const) process.on(signal, () => gate.giveUp())
  process.chdir('/')
  try {
    const outcome = await runMount(
      request,
      {
        notice,
        ready: (ready) => {
          tellReady(request, { ...ready, pid: process.pid })
          void tellServiceManager('--ready', `--status=generation ${String(ready.generation)} is mounted`)
        }
      },
      gate
    )
    if (outcome.kind === 'branch') throw branchError(request.vmPath, outcome)
    notice(outcomeText(request.vmPath, outcome))
    endProcess(0)
  } catch (error) {
    endProcess(report(error))
  }
}

function tellReady(request: MountRequest, ready: Ready & { readonly pid: number }): void {
  const kind = request.readOnly ? ', read-only' : request.discard ? ', changes will be discarded' : ''
  notice(
    `generation ${String(ready.generation)} of ${request.vmPath} is mounted on ${request.mountpoint}${kind} (${String(ready.files)} entries, ${bytes(ready.totalBytes)})`
  )
  notice(`log: ${request.logFile}`)
}
