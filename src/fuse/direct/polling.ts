/**
 * Whether the owner, out of requests, looks at the ring for a few microseconds before it sleeps. Being woken costs more than
 * that (a thread's message, the loop's epoll, a processor that has to leave its idle state), and a program that works
 * request by request pays it at every one. Together with quick-sync.ts of the session: 4 KiB write + fdatasync, on two idle
 * processors and with the session on tmpfs, 3.3 -> 7.5 thousand a second.
 *
 * As QEMU's I/O threads do (poll-max-ns, 32 microseconds there too), it polls only as long as that pays: when requests came right after
 * the owner had fallen asleep, until a few polls in a row were in vain. A guest that does nothing is never polled for.
 */
const POLL_MS_MAX = 0.04
const SOON_MS = 0.1
/** wakes in a row that came so soon after the sleep that a poll might have spared them */
const SOON_WAKES = 4
const VAIN_POLLS_MAX = 4
/** looks at the ring between looks at the clock */
const LOOKS = 16

export class Polling {
  readonly #now: () => number
  #sleptMs = -Infinity
  #soonWakes = 0
  #vainPolls = 0

  constructor(now: () => number = () => performance.now()) {
    this.#now = now
  }

  get isWorthwhile(): boolean {
    return this.#soonWakes >= SOON_WAKES
  }

  noteSleep(): void {
    this.#sleptMs = this.#now()
  }

  noteWake(): void {
    if (this.#now() - this.#sleptMs > SOON_MS) this.#soonWakes = 0
    else if (!this.isWorthwhile) this.#soonWakes++
  }

  /** Whether `hasNext` was true in time. Blocks the thread meanwhile. */
  poll(hasNext: () => boolean): boolean {
    const end = this.#now() + POLL_MS_MAX
    do {
      for (let look = 0; look < LOOKS; look++) {
        if (!hasNext()) continue
        this.#vainPolls = 0
        return true
      }
    } while (this.#now() < end)
    if (++this.#vainPolls >= VAIN_POLLS_MAX) this.#soonWakes = this.#vainPolls = 0
    return false
  }
}
