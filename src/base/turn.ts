/** Who overtakes whom on the way to the share. */

/** Lease work is small and must not wait behind data. Those below `readahead` are work that nobody waits for. */
export const PRIORITY = { lease: 40, demand: 30, readahead: 20, tables: 15, profile: 10, stream: 5, warm: 0 } as const
export type Priority = keyof typeof PRIORITY

/** The place of a task in the queue: somebody who begins to wait for it may raise it. */
export class Turn {
  priority: Priority
  #enqueue: (() => void) | undefined

  constructor(priority: Priority) {
    this.priority = priority
  }

  /** For the queue: what puts the task in again, at its new place. */
  onRaised(enqueue: () => void): void {
    this.#enqueue = enqueue
  }

  /** Has no effect when the priority is that high already, or when the task runs. */
  raise(priority: Priority): void {
    if (PRIORITY[priority] <= PRIORITY[this.priority]) return
    this.priority = priority
    this.#enqueue?.()
  }
}
