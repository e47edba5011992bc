/** The thread side of SharePool: runs one task at a time, synchronously, and never throws across the thread. */
import { workerData } from 'node:worker_threads'
import { move, transferableSymbol, valueSymbol } from 'piscina'
import { type PlainError, toPlainError } from '../base/errors.js'
import { Share } from '../share/share.js'
import { type ShareTaskName, shareTasks } from './share-tasks.js'

const { vmPath } = workerData as { vmPath: string } // given by SharePool, the only one who starts this file
const share = new Share(vmPath)

export default function run(task: { name: ShareTaskName; input: never; vmId: string | undefined }): unknown {
  if (task.vmId !== undefined) share.belongTo(task.vmId)
  try {
    return withBlocksMoved({ ok: shareTasks[task.name](share, task.input) })
  } catch (error) {
    const answer: { error: PlainError } = { error: toPlainError(error) }
    return answer
  }
}

/**
 * Hands plain blocks over without copying them. Moved, not shared: the owner's collector counts what it was given, while
 * shared memory that nobody uses any more piles up unseen.
 */
function withBlocksMoved(answer: { ok: unknown }): unknown {
  const { ok } = answer
  if (typeof ok !== 'object' || ok === null || !('plain' in ok) || !(ok.plain instanceof ArrayBuffer)) return answer
  return move({ [transferableSymbol]: [ok.plain], [valueSymbol]: answer }) // the symbols are not in piscina's type
}
