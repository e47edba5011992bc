/**
 * The file behind a log: bounded, the newest lines in `<file>`, older ones in `<file>.1`, `<file>.2`, ... A line is on its way to the
 * disk when write() returns, so that a killed daemon leaves all of them.
 */
import fs from 'node:fs'
import pino from 'pino'
import { errnoOf } from '../base/errors.js'
import { olderLog } from './log-names.js'

export interface LogLimits {
  /** of one file */
  readonly bytesMax: number
  /** files, the current one included */
  readonly filesMax: number
}

export const LOG_LIMITS: LogLimits = { bytesMax: 8 * 1024 * 1024, filesMax: 4 }

/** what may wait in memory while the disk is full; more is dropped */
const WAITING_BYTES_MAX = 256 * 1024

export class LogFile {
  readonly #path: string
  readonly #limits: LogLimits
  readonly #destination: ReturnType<typeof pino.destination>
  #bytes: number

  constructor(path: string, limits: LogLimits) {
    this.#path = path
    this.#limits = limits
    this.#bytes = sizeOf(path)
    const options = { dest: path, sync: true, mkdir: true, mode: 0o600, maxLength: WAITING_BYTES_MAX }
    this.#destination = pino.destination(options)
    this.#destination.on('error', () => undefined) // a full disk must not end the daemon
  }

  /** One line, with its end. */
  write(line: string): void {
    const lineBytes = Buffer.byteLength(line)
    if (this.#bytes > 0 && this.#bytes + lineBytes > this.#limits.bytesMax) this.#rotate()
    this.#bytes += lineBytes
    this.#destination.write(line)
  }

  /** Lines that wait for a full disk go to the next file. (flushSync() of the destination would wait until there is space.) */
  #rotate(): void {
    try {
      if (fs.statSync(this.#path, { throwIfNoEntry: false })?.isFile() === false) return // /dev/null
      for (let number = this.#limits.filesMax - 1; number > 0; number--) {
        renameIfThere(olderLog(this.#path, number - 1), olderLog(this.#path, number))
      }
      if (this.#limits.filesMax === 1) fs.truncateSync(this.#path)
      this.#destination.reopen()
    } catch {
      // it grows on, and the next line tries again
    }
    this.#bytes = sizeOf(this.#path)
  }
}

function renameIfThere(from: string, to: string): void {
  try {
    fs.renameSync(from, to)
  } catch (error) {
    if (errnoOf(error) !== 'ENOENT') throw error
  }
}

function sizeOf(path: string): number {
  return fs.statSync(path, { throwIfNoEntry: false })?.size ?? 0
}
