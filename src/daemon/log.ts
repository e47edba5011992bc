/** The daemon's log: one JSON line for each event that matters. A log that cannot be written never stops a mount. */
import fs from 'node:fs'
import pino, { type Logger } from 'pino'
import { errnoOf } from '../base/errors.js'

export type Log = Logger

const LOG_BYTES_MAX = 16 * 1024 * 1024

export function openLog(file: string, facts: Record<string, unknown>): Log {
  const destination = pino.destination({ dest: file, sync: true, mkdir: true, mode: 0o600 })
  destination.on('error', () => undefined) // a full disk must not end the daemon
  return pino({ base: { pid: process.pid, ...facts }, timestamp: pino.stdTimeFunctions.isoTime }, destination)
}

/** Keeps one older log beside the current one. */
export function rotateLog(file: string): void {
  try {
    if (fs.statSync(file).size > LOG_BYTES_MAX) fs.renameSync(file, `${file}.1`)
  } catch (error) {
    if (errnoOf(error) !== 'ENOENT') throw error
  }
}
