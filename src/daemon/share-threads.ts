/**
 * Ending the process when threads hang in the kernel, where they cannot be ended: on the share (a dead server), or waiting
 * for requests of a mount.
 */
import type { SharePool } from '../fetch/share-pool.js'
import { withinMs } from './within.js'

const CLOSE_MS_MAX = 5000
/** what threads wait for that may never come */
const awaited = new Map<string, () => boolean>()

/** Whether a thread is left that keeps process.exit from returning. */
export function threadsHang(): boolean {
  return [...awaited.values()].some((isAwaited) => isAwaited())
}

export async function closePool(pool: SharePool): Promise<void> {
  if (!(await withinMs(pool.close(), CLOSE_MS_MAX))) noteThreads('the share', () => true)
}

/** Some threads may wait for this when the process ends. */
export function noteThreads(what: string, isAwaited: () => boolean): void {
  awaited.set(what, isAwaited)
}

/** Ends this process, with SIGKILL when nothing else can. */
export function endProcess(code: number): never {
  if (threadsHang()) {
    process.stderr.write(`a thread waits for ${[...awaited.keys()].join(' or ')}: killing the process\n`)
    process.kill(process.pid, 'SIGKILL')
  }
  process.exit(code)
}
