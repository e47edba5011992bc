/** Starts the daemon detached and waits until its mount answers, or until it says why not. */
import { spawn } from 'node:child_process'
import fs from 'node:fs'
import { FailedError } from '../base/errors.js'
import { programFile } from '../base/program-files.js'
import type { StartMessage } from '../daemon/messages.js'
import { fromMessageError } from '../daemon/plain-error.js'
import type { MountRequest } from '../daemon/request.js'
import type { Ready } from '../daemon/run.js'
import { GIVE_UP } from '../daemon/start-gate.js'
import { daemonCommand } from './transport.js'

const WAITING_NOTICE_MS = 10_000
/** in MiB. Each of some ten threads would keep up to 48 MiB of what it has used once (docs/performance.md, "Memory"). */
const SMALL_YOUNG_HEAPS = '--max-semi-space-size=2'
const INTERRUPTIONS = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const

export interface Started extends Ready {
  readonly pid: number
}

export async function startDaemon(request: MountRequest, notice: (text: string) => void): Promise<Started> {
  const program = programFile('daemon/main.js')
  const log = fs.openSync(request.logFile, 'a', 0o600)
  const words = [process.execPath, SMALL_YOUNG_HEAPS, program, JSON.stringify(request)]
  const [command = '', ...parameters] = daemonCommand(request, process.getuid?.() ?? 0, words)
  const daemon = spawn(command, parameters, {
    cwd: '/',
    detached: true,
    stdio: ['ignore', log, log, 'ipc']
  })
  fs.closeSync(log)
  // loaded while the daemon starts: nobody waits for it then
  const messages = import('../daemon/messages.js')
  const waiting = setInterval(
    () => notice(`still waiting for ${request.vmPath} (log: ${request.logFile})`),
    WAITING_NOTICE_MS
  )
  // The daemon is told and waited for: that this process is gone it may notice when its mount is ready already. Not by a signal, which
  // could end the launcher that becomes the daemon, and leave a mount that nobody serves.
  const interruption = new AbortController()
  const interrupt = (): void => {
    if (interruption.signal.aborted) process.exit(1) // it was asked to end, and will
    interruption.abort()
    daemon.send(GIVE_UP, () => undefined)
    notice(`giving up the mount of ${request.vmPath}; once more does not wait for that`)
  }
  for (const signal of INTERRUPTIONS) process.on(signal, interrupt)
  try {
    const ready = await new Promise<Ready>((resolve, reject) => {
      messages.catch(reject)
      daemon.once('error', (error) =>
        reject(new FailedError(`cannot start the daemon: ${error.message}`, { cause: error }))
      )
      daemon.once('exit', (code, signal) => {
        const how = signal === null ? `with exit code ${String(code)}` : `by ${signal}`
        const error = new FailedError(`the daemon ended ${how} before the mount was ready`, {
          hint: `its log: ${request.logFile}`
        })
        messages.then(() => reject(error)).catch(reject) // after what it has said
      })
      daemon.on('message', (value) => {
        const told = messages.then(({ startMessageSchema }) => {
          const message = startMessageSchema.safeParse(value)
          // one that is asked to end says so by its exit, also when it was ready before
          if (message.success && !(interruption.signal.aborted && message.data.kind === 'ready')) {
            handle(message.data, notice, resolve, reject)
          }
        })
        told.catch(reject)
      })
    })
    return { ...ready, pid: daemon.pid ?? 0 }
  } catch (error) {
    throw interruption.signal.aborted ? givenUp(request) : error
  } finally {
    clearInterval(waiting)
    for (const signal of INTERRUPTIONS) process.off(signal, interrupt)
    daemon.removeAllListeners()
    if (daemon.connected) daemon.disconnect()
    daemon.unref()
  }
}

function givenUp({ vmPath, mountpoint }: MountRequest): FailedError {
  return new FailedError(`the mount of ${vmPath} was given up; nothing has changed`, {
    hint: `isrfs mount ${vmPath} ${mountpoint}`
  })
}

function handle(
  message: StartMessage,
  notice: (text: string) => void,
  resolve: (ready: Ready) => void,
  reject: (error: Error) => void
): void {
  switch (message.kind) {
    case 'notice':
      notice(message.text)
      break
    case 'ready':
      resolve(message)
      break
    case 'failed':
      reject(fromMessageError(message.error))
  }
}
