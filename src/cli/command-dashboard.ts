/** isrfs dashboard: serves the page of src/dashboard/ until ^C. */
import { execFile } from 'node:child_process'
import { once } from 'node:events'
import { promisify } from 'node:util'
import { FailedError, UsageError } from '../base/errors.js'
import { programFile } from '../base/program-files.js'
import { serveDashboard } from '../dashboard/server.js'
import { withHolders } from './command-unmount.js'
import { bytes } from './figures.js'
import { lastLines } from './log-files.js'
import { outcomeText } from './outcome.js'
import { notice, result } from './output.js'

const PORT_MAX = 65_535
/** a share that does not answer for so long is not waited for */
const LOG_MS_MAX = 20_000
const LOG_BYTES_MAX = 16 * 1024 * 1024
const MAIN = programFile('cli/main.js')

export interface DashboardOptions {
  readonly port: string
}

export async function dashboardCommand({ port }: DashboardOptions): Promise<void> {
  const number = Number(port)
  if (!/^\d+$/.test(port) || number > PORT_MAX) throw new UsageError(`--port ${port} is not a port (0 to ${PORT_MAX})`)
  const dashboard = await serveDashboard(number, {
    lastLines,
    outcomeText,
    bytesText: bytes,
    explain: withHolders,
    generations
  })
  const stop = new AbortController()
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => stop.abort())
  result(dashboard.address)
  notice('open it in a browser of this computer; whoever has this address may suspend your mounts. ^C ends it')
  await once(stop.signal, 'abort')
  dashboard.close()
}

/** In a process of its own: the share may not answer. */
async function generations(vm: string): Promise<unknown> {
  try {
    const options = { timeout: LOG_MS_MAX, killSignal: 'SIGKILL' as const, maxBuffer: LOG_BYTES_MAX, cwd: '/' }
    const { stdout } = await promisify(execFile)(process.execPath, [MAIN, 'log', vm, '--json'], options)
    return JSON.parse(stdout)
  } catch (error) {
    throw new FailedError('the share does not tell its generations', { cause: error })
  }
}
