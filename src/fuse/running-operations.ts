/**
 * Runs operations so that each is answered exactly once and nothing is thrown out of it, and knows how many are
 * running. A synchronous result is answered synchronously: a turn of the event loop would cost as much as the request.
 */
import { answerOf } from './errno.js'
import type { OperationTimes } from './operation-times.js'
import type { ErrorListener } from './port.js'

/** Given once per operation: the value, or an errno (positive). */
export interface Answer<Value> {
  done(value: Value): void
  failed(errno: number): void
}

export class RunningOperations {
  readonly #onError: ErrorListener
  #running = 0
  readonly #times: OperationTimes | undefined
  #waiting: (() => void)[] = []

  constructor(onError: ErrorListener, times?: OperationTimes) {
    this.#onError = onError
    this.#times = times
  }

  run<Value>(operation: string, answer: Answer<Value>, action: () => Value | Promise<Value>): void {
    const startedMs = this.#times === undefined ? 0 : performance.now()
    this.#running++
    if (this.#times !== undefined) this.#times.running++
    let result: Value | Promise<Value>
    try {
      result = action()
    } catch (error) {
      this.#fail(operation, startedMs, answer, error)
      return
    }
    if (result instanceof Promise) {
      result.then(
        (value) => this.#finish(operation, startedMs, false, () => answer.done(value)),
        (error: unknown) => this.#fail(operation, startedMs, answer, error)
      )
    } else {
      const value = result
      this.#finish(operation, startedMs, false, () => answer.done(value))
    }
  }

  get isIdle(): boolean {
    return this.#running === 0
  }

  /** Resolves when no operation is running. */
  drained(): Promise<void> {
    if (this.#running === 0) return Promise.resolve()
    return new Promise((resolve) => this.#waiting.push(resolve))
  }

  #fail(operation: string, startedMs: number, answer: Answer<never>, error: unknown): void {
    const { errno, isExpected } = answerOf(error)
    if (!isExpected) this.#report(error, operation)
    this.#finish(operation, startedMs, true, () => answer.failed(errno))
  }

  #finish(operation: string, startedMs: number, hasFailed: boolean, respond: () => void): void {
    try {
      respond()
    } catch (error) {
      this.#report(error, operation)
    }
    this.#running--
    if (this.#times !== undefined) {
      this.#times.running--
      this.#times.note(operation, performance.now() - startedMs, hasFailed)
    }
    if (this.#running > 0) return
    const waiting = this.#waiting
    this.#waiting = []
    for (const resolve of waiting) resolve()
  }

  /** A listener that throws must not take the mount down with it. */
  #report(error: unknown, operation: string): void {
    try {
      this.#onError(error, operation)
    } catch (listenerError) {
      process.emitWarning(listenerError instanceof Error ? listenerError : String(listenerError))
    }
  }
}
