/**
 * The share's tasks without threads: in the process of their caller, so that its faults hit them. Everything else of a
 * mount is as it runs for users. Errors cross as they cross threads.
 */
import { fromPlainError, toPlainError } from '../../src/base/errors.js'
import { CommitPool } from '../../src/commit/commit-pool.js'
import { commitTasks } from '../../src/commit/commit-tasks.js'
import { SharePool } from '../../src/fetch/share-pool.js'
import { shareTasks } from '../../src/fetch/share-tasks.js'
import { Share } from '../../src/share/share.js'
import { currentProcess } from './faulty-process.js'

type AnyTasks = Record<string, (share: Share, input: unknown) => unknown>

export function installInProcessPools(): void {
  const shares = new WeakMap<object, Share>()
  const shareOf = (pool: SharePool | CommitPool): Share => {
    let share = shares.get(pool)
    if (share === undefined) shares.set(pool, (share = new Share(pool.vmPath)))
    if (pool.vmId !== undefined) share.belongTo(pool.vmId)
    return share
  }
  const perform = async (tasks: AnyTasks, name: string, share: Share, input: unknown): Promise<unknown> => {
    await Promise.resolve()
    try {
      return tasks[name]?.(share, input)
    } catch (error) {
      if (currentProcess()?.isDead === true) return new Promise(() => undefined)
      throw fromPlainError(toPlainError(error))
    }
  }
  SharePool.prototype.run = function (this: SharePool, name: string, input: unknown) {
    if (this.isClosed) return new Promise(() => undefined)
    return perform(shareTasks as unknown as AnyTasks, name, shareOf(this), input)
  } as typeof SharePool.prototype.run
  CommitPool.prototype.run = function (this: CommitPool, name: string, input: object) {
    const given = name === 'encode' ? { known: this.known, ...input } : input
    return perform(commitTasks as unknown as AnyTasks, name, shareOf(this), given)
  } as typeof CommitPool.prototype.run
}
