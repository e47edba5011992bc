/**
 * Runs operations so that each is answered exactly once and nothing is thrown out of it, and knows how many are
 * running. A synchronous result is answered synchronously: a turn of the event loop would cost as much as the request.
 */
import { answerOf } from './errno.js'
import type { ErrorListener } from './port.js'

/** Given once per operation: the value, or an errno (positive). */
export interface Answer<Value> {
  done(value: Value): void
  failed(errno: number): void
}

export class RunningOperations {
  readonly #onError: ErrorListener
  #running = 0
  #waiting: (() => void)[] = []

  constructor(onError: ErrorListener) {
    this.#onError = onError
  }

  run<Value>(operation: string, answer: Answer<Value>, action: () => Value | Promise<Value>): void {
    this.#running++
    let result: Value | Promise<Value>
    try {
      result = action()
    } catch (error) {
      this.#fail(operation, answer, error)
      return
    }
    if (result instanceof Promise) {
      result.then(
        (value) => this.#finish(operation, () => answer.done(value)),
        (error: unknown) => this.#fail(operation, answer, error)
      )
    } else {
      const value = result
      this.#finish(operation, () => answer.done(value))
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

  #fail(operation: string, answer: Answer<never>, error: unknown): void {
    const { errno, isExpected } = answerOf(error)
    if (!isExpected) this.#report(error, operation)
    this.#finish(operation, () => answer.failed(errno))
  }

  #finish(operation: string, respond: () => void): void {
    try {
      respond()
    } catch (error) {
      this.#report(error, operation)
    }
    this.#running--
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
