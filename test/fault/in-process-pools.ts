/**
 * The share's tasks without threads: in the process of their caller, so that its faults hit them. Everything else of a
 * mount is as it runs for users. Errors cross as they cross threads. A synchronous call cannot hang here without stopping
 * everything, so it is the task that hangs: what a thread has done of it before nobody but the share can see.
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
  const closed = new WeakSet<CommitPool>()
  const isClosed = (pool: SharePool | CommitPool): boolean =>
    pool instanceof SharePool ? pool.isClosed : closed.has(pool)
  const perform = async (
    tasks: AnyTasks,
    name: string,
    pool: SharePool | CommitPool,
    input: unknown
  ): Promise<unknown> => {
    const share = shareOf(pool)
    await Promise.resolve()
    try {
      const given: unknown = typeof input === 'function' ? input() : input
      const task = (): unknown => tasks[name]?.(share, given)
      const process = currentProcess()
      return process === undefined ? task() : await process.task(name, task, () => isClosed(pool))
    } catch (error) {
      if (currentProcess()?.isDead === true) return new Promise(() => undefined)
      throw fromPlainError(toPlainError(error))
    }
  }
  SharePool.prototype.run = function (this: SharePool, name: string, input: unknown) {
    if (this.isClosed) return new Promise(() => undefined)
    return perform(shareTasks as unknown as AnyTasks, name, this, input)
  } as typeof SharePool.prototype.run
  CommitPool.prototype.run = function (this: CommitPool, name: string, input: object) {
    const given = name === 'encode' ? { known: this.known, ...input } : input
    return perform(commitTasks as unknown as AnyTasks, name, this, given)
  } as typeof CommitPool.prototype.run
  const { close } = CommitPool.prototype
  CommitPool.prototype.close = function (this: CommitPool) {
    closed.add(this)
    return close.call(this)
  }
}
