/** The thread side of CommitPool: runs one task at a time, synchronously, and never throws across the thread. */
import { workerData } from 'node:worker_threads'
import { type PlainError, toPlainError } from '../base/errors.js'
import { Share } from '../share/share.js'
import { type CommitTaskName, commitTasks } from './commit-tasks.js'

const { vmPath } = workerData as { vmPath: string } // given by CommitPool, the only one who starts this file
const share = new Share(vmPath)

export default function run(task: { name: CommitTaskName; input: never }): { ok: unknown } | { error: PlainError } {
  try {
    return { ok: commitTasks[task.name](share, task.input) }
  } catch (error) {
    return { error: toPlainError(error) }
  }
}
