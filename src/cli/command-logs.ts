/** isrfs logs: the log of a mount for people, while it lives and afterwards. */
import fs from 'node:fs'
import pretty from 'pino-pretty'
import { isColourful } from './colour.js'
import { followLines } from './follow.js'
import { findLog, lastLines } from './log-files.js'
import { directoriesOf, type GlobalOptions, toCount } from './options.js'
import { result } from './output.js'

export interface LogsOptions extends GlobalOptions {
  readonly follow?: boolean
  readonly lines: string
  readonly json?: boolean
}

export async function logsCommand(given: string, options: LogsOptions): Promise<void> {
  const count = options.lines === 'all' ? Infinity : toCount(options.lines, '--lines')
  const file = await findLog(given, directoriesOf(options).clientDirectory)
  const print = options.json === true ? result : prettyPrinter()
  const end = fs.statSync(file, { throwIfNoEntry: false })?.size ?? 0
  for (const line of lastLines(file, count, end)) print(line)
  if (options.follow !== true) return
  const controller = new AbortController()
  const stop = (): void => controller.abort()
  process.once('SIGINT', stop).once('SIGTERM', stop)
  process.stdout.once('error', stop) // whoever reads has gone
  await followLines(file, end, print, controller.signal)
}

function prettyPrinter(): (line: string) => void {
  const format = pretty.prettyFactory({
    colorize: isColourful(process.stdout),
    translateTime: 'SYS:yyyy-mm-dd HH:MM:ss',
    ignore: 'pid,vm,mountpoint,event,suppressed,request',
    singleLine: true
  })
  return (line) => result(format(withoutControls(line)).trimEnd())
}

/** Names of files come from the share and could otherwise speak to the terminal. Lines that Node itself wrote are no JSON. */
function withoutControls(line: string): string | object {
  const clean = (text: string): string => text.replace(/(?![\n\t])\p{Cc}/gu, '\uFFFD')
  try {
    return JSON.parse(line, (_key, value: unknown) => (typeof value === 'string' ? clean(value) : value)) as object
  } catch {
    return clean(line)
  }
}
