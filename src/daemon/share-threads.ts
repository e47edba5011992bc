/** Ending the threads that work on the share. One that hangs in the kernel (a dead server) cannot be ended. */
import type { SharePool } from '../fetch/share-pool.js'
import { withinMs } from './within.js'

const CLOSE_MS_MAX = 5000
let someHang = false

/** Whether a thread is left that keeps process.exit from returning. */
export function threadsHang(): boolean {
  return someHang
}

export async function closePool(pool: SharePool): Promise<void> {
  if (!(await withinMs(pool.close(), CLOSE_MS_MAX))) someHang = true
}

/** Ends this process, with SIGKILL when nothing else can. */
export function endProcess(code: number): never {
  if (threadsHang()) {
    process.stderr.write('a thread hangs on the share: killing the process\n')
    process.kill(process.pid, 'SIGKILL')
  }
  process.exit(code)
}
