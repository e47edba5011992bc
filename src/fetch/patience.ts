/**
 * How long to go on asking a share that answers with errors. A few tries for whatever may be better a moment later. Then
 * vm.json decides: when it can be read, the share is there and the error is of that one object; when it cannot, the share
 * is away (a server that is down behind a soft mount, a share that was unmounted), and away is not damaged and not
 * absent: the question is repeated until it is back.
 */
import { IntegrityError, IsrfsError } from '../base/errors.js'
import type { SharePool } from './share-pool.js'

const TRIES_MAX = 5
const FIRST_PAUSE_MS = 200
const AWAY_PAUSE_MS = 1000

export function mayPass(error: unknown): boolean {
  return error instanceof IsrfsError && error.code === 'SHARE'
}

/** Pauses and resolves to true when the question should be asked again. `attempt` counts the answers so far, from 0. */
export async function askAgain(pool: SharePool, what: string, attempt: number): Promise<boolean> {
  const noted = pool.noteWaiting(what)
  try {
    if (attempt < TRIES_MAX) {
      await pause(FIRST_PAUSE_MS * 2 ** attempt)
      return true
    }
    if (await isThere(pool)) return false
    await pause(AWAY_PAUSE_MS)
    return !pool.isClosed
  } finally {
    noted()
  }
}

async function isThere(pool: SharePool): Promise<boolean> {
  if (pool.isClosed) return true // nobody waits for the answer any more
  try {
    await pool.run('openVm', {}, { what: 'whether the share is there' })
    return true
  } catch (error) {
    return error instanceof IntegrityError
  }
}

function pause(durationMs: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, durationMs))
}
