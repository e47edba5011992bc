/**
 * Work that many callers want at once and that one run does for all of them (a group commit). Whoever calls while a run
 * is under way needs a later one, because that run may have begun before the caller's changes; all such callers share it.
 */
export class SharedRun {
  readonly #work: () => Promise<void>
  #running: Promise<void> | undefined
  #next: Promise<void> | undefined

  constructor(work: () => Promise<void>) {
    this.#work = work
  }

  get isRunning(): boolean {
    return this.#running !== undefined
  }

  /** Whether somebody waits for the run after this one. */
  get isWantedAgain(): boolean {
    return this.#next !== undefined
  }

  /** Settles like a run of the work that began at or after this call. */
  run(): Promise<void> {
    if (this.#next !== undefined) return this.#next
    if (this.#running === undefined) return this.#begin()
    const begin = (): Promise<void> => {
      this.#next = undefined
      return this.#begin()
    }
    this.#next = this.#running.then(begin, begin)
    return this.#next
  }

  #begin(): Promise<void> {
    const running = this.#work().finally(() => {
      if (this.#running === running) this.#running = undefined
    })
    this.#running = running
    return running
  }
}
