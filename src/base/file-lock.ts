/**
 * An exclusive lock on a file for the life of this process (or until released): flock(2) through the flock command,
 * which locks the open file description that this process shares with it. The kernel drops the lock with the last
 * descriptor, so a killed process never leaves one behind.
 */
import { spawnSync } from 'node:child_process'
import fs from 'node:fs'
import { closeQuietly } from './close-quietly.js'
import { FailedError, messageOf } from './errors.js'

const HELD_BY_ANOTHER = 1

export class DirectoryLock {
  readonly path: string
  #fd: number | undefined

  private constructor(path: string, fd: number) {
    this.path = path
    this.#fd = fd
  }

  /** Takes the lock at once, or returns undefined when another process has it. The file is created if missing. */
  static tryAcquire(path: string): DirectoryLock | undefined {
    const fd = fs.openSync(path, fs.constants.O_RDWR | fs.constants.O_CREAT | fs.constants.O_NOFOLLOW, 0o600)
    const { status, error, stderr } = spawnSync('flock', ['-n', '-x', '3'], { stdio: ['ignore', 'ignore', 'pipe', fd] })
    if (status === 0) return new DirectoryLock(path, fd)
    fs.closeSync(fd)
    if (status === HELD_BY_ANOTHER && stderr.length === 0) return undefined
    throw new FailedError(`cannot lock ${path}: ${error === undefined ? stderr.toString().trim() : messageOf(error)}`, {
      hint: 'the flock command of util-linux is needed: apt-get install util-linux'
    })
  }

  release(): void {
    const fd = this.#fd
    this.#fd = undefined
    if (fd !== undefined) closeQuietly(fd)
  }
}
