/** The thread side of CommitPool: runs one task at a time, synchronously, and never throws across the thread. */
import { workerData } from 'node:worker_threads'
import { type PlainError, toPlainError } from '../base/errors.js'
import { Share } from '../share/share.js'
import { type CommitTaskName, type CommitTasks, commitTasks } from './commit-tasks.js'
import type { KnownPlaces } from './encode.js'

/** given by CommitPool, the only one who starts this file */
const given = workerData as { vmPath: string; vmId: string | undefined; known: KnownPlaces }
const share = new Share(given.vmPath)
if (given.vmId !== undefined) share.belongTo(given.vmId)
const known = new Map(given.known)
const tasks: CommitTasks = {
  ...commitTasks,
  encode: (share, input) => commitTasks.encode(share, { known, ...input })
}

export default function run(task: { name: CommitTaskName; input: never }): { ok: unknown } | { error: PlainError } {
  try {
    return { ok: tasks[task.name](share, task.input) }
  } catch (error) {
    return { error: toPlainError(error) }
  }
}
