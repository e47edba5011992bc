/** The daemon's log: one JSON line for each event that matters (docs/logs.md). A log that cannot be written never stops a mount. */
import pino, { type Logger } from 'pino'
import { event } from './log-events.js'
import { LogFile, type LogLimits } from './log-file.js'
import { Quiet } from './quiet.js'

export type Log = Logger

/** `facts` are in every line. */
export function openLog(file: string, facts: Readonly<Record<string, unknown>>, limits: LogLimits): Log {
  return pino(
    {
      base: { pid: process.pid, ...facts },
      timestamp: pino.stdTimeFunctions.isoTime,
      formatters: { level: (label) => ({ level: label }) },
      mixin: (fields) => ('event' in fields ? {} : event('notice'))
    },
    new LogFile(file, limits)
  )
}

/** For commands that tell a person themselves what happens. */
export function noLog(): Log {
  return pino({ enabled: false })
}

export interface QuietLog {
  warn(message: string): void
  damage(message: string): void
  /** a request of the kernel, in a way that nobody has foreseen */
  requestFailed(operation: string, why: string): void
}

/** Warnings, damage and failures as lines, without one for each request that meets them. */
export function quietly(log: Log): QuietLog {
  const warnings = new Quiet()
  const damages = new Quiet()
  const failures = new Quiet()
  return {
    warn: (message) => {
      const suppressed = warnings.pass(message)
      if (suppressed !== undefined) log.warn(event('warning', { suppressed }), message)
    },
    damage: (message) => {
      const suppressed = damages.pass(message)
      if (suppressed === undefined) return
      log.error(event('damage', { damage: message, suppressed }), 'a block is damaged: its readers get EIO')
    },
    requestFailed: (operation, why) => {
      const suppressed = failures.pass(`${operation}: ${why}`)
      if (suppressed === undefined) return
      log.error(event('request-failed', { operation, why, suppressed }), 'a request failed in an unforeseen way')
    }
  }
}
