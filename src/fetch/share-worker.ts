/** The thread side of SharePool: runs one task at a time, synchronously, and never throws across the thread. */
import { workerData } from 'node:worker_threads'
import { type PlainError, toPlainError } from '../base/errors.js'
import { Share } from '../share/share.js'
import { type ShareTaskName, shareTasks } from './share-tasks.js'

const { vmPath } = workerData as { vmPath: string } // given by SharePool, the only one who starts this file
const share = new Share(vmPath)

export default function run(task: { name: ShareTaskName; input: never }): { ok: unknown } | { error: PlainError } {
  try {
    return { ok: shareTasks[task.name](share, task.input) }
  } catch (error) {
    return { error: toPlainError(error) }
  }
}
