/**
 * A start that may be given up (Ctrl-C, a command line that went away) between its steps. When a step hangs on the
 * share, the process is ended the hard way: nothing is mounted yet, so nothing can be lost.
 */
import { FailedError } from '../base/errors.js'

const GIVE_UP_MS = 20_000

/** What a daemon is told over its IPC channel when its mount is not wanted any more. */
export const GIVE_UP = 'give-up'

export class StartGate {
  #givenUp = false
  #isOpen = false

  /** Between two steps of the start. */
  checkpoint(): void {
    if (this.#givenUp) throw new FailedError('the mount was given up')
  }

  /** The mount answers: from here on an end is an orderly one. False: it was given up during the last step, and has to end in that way now. */
  open(): boolean {
    this.#isOpen = true
    return !this.#givenUp
  }

  giveUp(): void {
    if (this.#isOpen || this.#givenUp) return
    this.#givenUp = true
    setTimeout(() => {
      if (!this.#isOpen) process.kill(process.pid, 'SIGKILL')
    }, GIVE_UP_MS).unref()
  }
}
