/**
 * The daemon's only way to the share: worker threads with synchronous calls, a queue with priorities before them,
 * and a list of what is waiting, so that a dead server blocks workers and is seen in `status`, and nothing else.
 */
import PQueue from 'p-queue'
import type { Piscina } from 'piscina'
import { fromPlainError, IsrfsError, type PlainError } from '../base/errors.js'
import { type Priority, PRIORITY, Turn } from '../base/turn.js'
import { BACKGROUND_IN_FLIGHT_MAX, startShareThreads } from './share-threads.js'
import type { ShareTaskInput, ShareTaskName, ShareTaskOutput } from './share-tasks.js'

export { type Priority, PRIORITY, Turn } from '../base/turn.js'

export interface Waiting {
  readonly what: string
  readonly sinceMs: number
}

type Answer<Name extends ShareTaskName> = { ok: ShareTaskOutput<Name> } | { error: PlainError }

export class SharePool {
  /**
   * `busySeconds`: how long at least one fetch of blocks was on its way. `shareSeconds`: how long workers had the share for them, all
   * together. `lookasideBlocks`: came from another cache of this client.
   */
  readonly counters = {
    fetchedBytes: 0,
    fetchedBlocks: 0,
    lookasideBlocks: 0,
    shareErrors: 0,
    busySeconds: 0,
    shareSeconds: 0
  }
  readonly vmPath: string
  /** what has to be at `vmPath` (Share.belongTo); known once the VM was opened */
  vmId: string | undefined
  readonly #threads: number
  #pool: Piscina | undefined
  readonly #queue: PQueue
  readonly #background = new PQueue({ concurrency: BACKGROUND_IN_FLIGHT_MAX })
  #closed = false
  readonly #running = new Map<symbol, { what: string; startedMs: number }>()

  constructor(vmPath: string, options: { readonly threads: number }) {
    this.vmPath = vmPath
    this.#threads = options.threads
    this.#queue = new PQueue({ concurrency: options.threads })
    this.#queue.on('active', () => this.#background.pause())
    this.#queue.on('idle', () => this.#background.start())
  }

  /**
   * Runs one task; `what` describes it for people ("block 7 of disk.vmdk"). Rejects with the task's IsrfsError. While the
   * task waits in the queue, `turn` lets it overtake. An input that is a function is asked for once, when a thread is to
   * have it; what it throws rejects.
   */
  async run<Name extends ShareTaskName>(
    name: Name,
    input: ShareTaskInput<Name> | (() => ShareTaskInput<Name>),
    options: { readonly priority?: Priority; readonly what?: string; readonly turn?: Turn } = {}
  ): Promise<ShareTaskOutput<Name>> {
    const { priority = 'lease', what = name, turn = new Turn(priority) } = options
    const id = Symbol(name)
    const isWaitedFor = (): boolean => !isBackground(turn.priority)
    try {
      const answer = await new Promise<Answer<Name>>((resolve, reject) => {
        let begun = false
        const begin = async (): Promise<void> => {
          if (begun) return // it was raised, and has had its turn
          begun = true
          try {
            const given = isMaker(input) ? input() : input
            resolve((await this.#started().run({ name, input: given, vmId: this.vmId })) as Answer<Name>) // what share-worker.ts returns for this name
          } catch (error) {
            reject(error instanceof Error ? error : new Error(String(error)))
          }
        }
        const enqueue = (): void => {
          const queue = isWaitedFor() ? this.#queue : this.#background
          if (isWaitedFor()) this.#running.set(id, { what, startedMs: Date.now() })
          void queue.add(begin, { priority: PRIORITY[turn.priority] })
        }
        turn.onRaised(enqueue)
        enqueue()
      })
      if ('error' in answer) throw fromPlainError(answer.error)
      return answer.ok
    } catch (error) {
      if (error instanceof IsrfsError && error.code === 'SHARE') this.counters.shareErrors++
      throw error
    } finally {
      turn.onRaised(() => undefined)
      this.#running.delete(id)
    }
  }

  /** Something waits for the share between two questions; the returned function ends that. */
  noteWaiting(what: string): () => void {
    const id = Symbol(what)
    this.#running.set(id, { what, startedMs: Date.now() })
    return () => void this.#running.delete(id)
  }

  get isClosed(): boolean {
    return this.#closed
  }

  /** What waits for the share now, oldest first. */
  waiting(): Waiting[] {
    const now = Date.now()
    return [...this.#running.values()].map(({ what, startedMs }) => ({ what, sinceMs: now - startedMs }))
  }

  /** Tasks that threads work on, and those that wait: because somebody waits for them, and in the background. */
  queues(): { readonly running: number; readonly demand: number; readonly background: number } {
    return {
      running: this.#queue.pending + this.#background.pending,
      demand: this.#queue.size,
      background: this.#background.size
    }
  }

  /** Ends the threads. One that hangs in the kernel cannot be ended: the caller decides how long it waits. */
  async close(): Promise<void> {
    this.#closed = true
    this.#queue.clear()
    this.#background.clear()
    await this.#pool?.destroy()
  }

  #started(): Piscina {
    this.#pool ??= startShareThreads(this.vmPath, this.#threads)
    return this.#pool
  }
}

function isMaker<Input>(input: Input | (() => Input)): input is () => Input {
  return typeof input === 'function'
}

function isBackground(priority: Priority): boolean {
  return PRIORITY[priority] < PRIORITY.readahead
}
