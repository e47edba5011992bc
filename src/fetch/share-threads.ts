/**
 * The worker threads of a SharePool. A daemon prepares them before it has loaded anything else: this module imports next to
 * nothing, so that the first thread starts while the rest of the daemon is loaded.
 */
import { Piscina } from 'piscina'
import { threadProgram } from '../base/program-files.js'

/** of a mount, for what somebody waits for */
export const MOUNT_THREADS = 4
/**
 * How many fetches that nobody waits for run at once, beside the threads that answer. None of them starts while somebody
 * waits, so that a wait is never longer than what is on its way already.
 */
export const BACKGROUND_IN_FLIGHT_MAX = 2

const IDLE_TIMEOUT_MS = 30_000

let prepared: { readonly vmPath: string; readonly pool: Piscina } | undefined

/** Starts the first thread of the pool of a mount of this VM. */
export function prepareShareThreads(vmPath: string): void {
  prepared = { vmPath, pool: createPool(vmPath, MOUNT_THREADS) }
}

/** The threads of a mount that were prepared, once, or new ones: `threads` for what somebody waits for. */
export function startShareThreads(vmPath: string, threads: number): Piscina {
  if (prepared?.vmPath !== vmPath || threads !== MOUNT_THREADS) return createPool(vmPath, threads)
  const { pool } = prepared
  prepared = undefined
  return pool
}

function createPool(vmPath: string, threads: number): Piscina {
  const pool = new Piscina({
    ...threadProgram('fetch/share-worker.js'),
    minThreads: 1,
    maxThreads: threads + BACKGROUND_IN_FLIGHT_MAX,
    idleTimeout: IDLE_TIMEOUT_MS,
    workerData: { vmPath }
  })
  pool.on('error', () => undefined) // of a thread without a task; tasks are rejected
  return pool
}
