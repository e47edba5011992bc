/** How much each request thread has answered by itself: numbers in shared memory, each written by one thread only. */

/** more are of no use: the kernel hands out one request at a time */
export const THREADS_MAX = 4

export const THREAD_COUNTERS = { reads: 0, readBytes: 1, writes: 2, writtenBytes: 3 } as const
export type ThreadCounter = keyof typeof THREAD_COUNTERS

/** a cache line of their own for each thread */
const PER_THREAD = 8

export function createCounters(): Float64Array {
  return new Float64Array(new SharedArrayBuffer(THREADS_MAX * PER_THREAD * 8))
}

/** Only the thread itself calls this. */
export function count(counters: Float64Array, thread: number, counter: ThreadCounter, amount: number): void {
  const at = thread * PER_THREAD + THREAD_COUNTERS[counter]
  counters[at] = (counters[at] ?? 0) + amount
}

/** Of all threads, about. */
export function totalOf(counters: Float64Array, counter: ThreadCounter): number {
  let total = 0
  for (let thread = 0; thread < THREADS_MAX; thread++) {
    total += counters[thread * PER_THREAD + THREAD_COUNTERS[counter]] ?? 0
  }
  return total
}
