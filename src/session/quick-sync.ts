/**
 * Whether the next sync of the journal may be done at once, in the thread that serves FUSE, instead of by another thread. On a
 * disk that syncs in a tenth of a millisecond the two wake-ups of the other thread cost as much again, so a guest that syncs
 * request by request is half as fast.
 *
 * Only while that blocks nobody: after syncs in a row that were quick and that nobody else waited to join, for a bounded number
 * of them, and no longer than until one was slow. Then other threads do it again, and it is measured anew.
 */
const QUICK_MS_MAX = 0.5
const SLOW_MS = 1
const QUICK_SYNCS = 8
const SYNCS_AT_ONCE = 128
/** more frames than this may be many bytes, and take a while */
const FRAMES_MAX = 16

export class QuickSync {
  #quickInARow = 0
  #left = 0

  /** `frames`: how many of the journal are not durable */
  isDue(frames: number): boolean {
    return this.#left > 0 && frames <= FRAMES_MAX
  }

  /** A sync by another thread. `hadCompany`: others wait for the next one already. */
  noteElsewhere(milliseconds: number, hadCompany: boolean): void {
    if (milliseconds > SLOW_MS || hadCompany) this.#left = 0
    this.#quickInARow = milliseconds <= QUICK_MS_MAX && !hadCompany ? this.#quickInARow + 1 : 0
    if (this.#quickInARow < QUICK_SYNCS) return
    this.#quickInARow = 0
    this.#left = SYNCS_AT_ONCE
  }

  noteAtOnce(milliseconds: number): void {
    this.#left = milliseconds > SLOW_MS ? 0 : this.#left - 1
  }
}
