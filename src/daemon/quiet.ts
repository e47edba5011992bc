/**
 * Keeps what may happen at every request from filling the log: the same message once in a while, and only so many
 * different ones. What was left out is counted in the next line that passes.
 */
import { LRUCache } from 'lru-cache'

const INTERVAL_MS = 60_000
const MESSAGES_MAX = 30

export class Quiet {
  readonly #now: () => number
  readonly #saidMs = new LRUCache<string, number>({ max: 4 * MESSAGES_MAX })
  #intervalMs = -Infinity
  #passed = 0
  #suppressed = 0

  constructor(now: () => number = Date.now) {
    this.#now = now
  }

  /** How many were left out since the last one that passed; undefined when this one is left out, too. */
  pass(message: string): number | undefined {
    const now = this.#now()
    if (now - this.#intervalMs >= INTERVAL_MS) {
      this.#intervalMs = now
      this.#passed = 0
    }
    if (now - (this.#saidMs.get(message) ?? -Infinity) < INTERVAL_MS || this.#passed >= MESSAGES_MAX) {
      this.#suppressed++
      return undefined
    }
    this.#saidMs.set(message, now)
    this.#passed++
    const suppressed = this.#suppressed
    this.#suppressed = 0
    return suppressed
  }
}
