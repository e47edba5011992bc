/**
 * The daemon's only way to the share: worker threads with synchronous calls, a queue with priorities before them,
 * and a list of what is waiting, so that a dead server blocks workers and is seen in `status`, and nothing else.
 */
import PQueue from 'p-queue'
import { Piscina } from 'piscina'
import { fromPlainError, IsrfsError, type PlainError } from '../base/errors.js'
import type { ShareTaskInput, ShareTaskName, ShareTaskOutput } from './share-tasks.js'

/** Who overtakes whom in the queue. Lease work is small and must not wait behind data. */
export const PRIORITY = { lease: 40, demand: 30, readahead: 20, warm: 0 } as const
export type Priority = keyof typeof PRIORITY

const IDLE_TIMEOUT_MS = 30_000

export interface Waiting {
  readonly what: string
  readonly sinceMs: number
}

export class SharePool {
  readonly counters = { fetchedBytes: 0, fetchedBlocks: 0, shareErrors: 0 }
  readonly vmPath: string
  readonly #threads: number
  #pool: Piscina | undefined
  readonly #queue: PQueue
  #closed = false
  readonly #running = new Map<symbol, { what: string; startedMs: number }>()

  constructor(vmPath: string, options: { readonly threads: number }) {
    this.vmPath = vmPath
    this.#threads = options.threads
    this.#queue = new PQueue({ concurrency: options.threads })
  }

  /** Runs one task; `what` describes it for people ("block 7 of disk.vmdk"). Rejects with the task's IsrfsError. */
  async run<Name extends ShareTaskName>(
    name: Name,
    input: ShareTaskInput<Name>,
    options: { readonly priority?: Priority; readonly what?: string } = {}
  ): Promise<ShareTaskOutput<Name>> {
    const id = Symbol(name)
    this.#running.set(id, { what: options.what ?? name, startedMs: Date.now() })
    try {
      const answer = (await this.#queue.add(() => this.#started().run({ name, input }), {
        priority: PRIORITY[options.priority ?? 'lease']
      })) as { ok: ShareTaskOutput<Name> } | { error: PlainError } // what share-worker.ts returns for this name
      if ('error' in answer) throw fromPlainError(answer.error)
      return answer.ok
    } catch (error) {
      if (error instanceof IsrfsError && error.code === 'SHARE') this.counters.shareErrors++
      throw error
    } finally {
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

  /** Ends the threads. One that hangs in the kernel cannot be ended: the caller decides how long it waits. */
  async close(): Promise<void> {
    this.#closed = true
    this.#queue.clear()
    await this.#pool?.destroy()
  }

  #started(): Piscina {
    this.#pool ??= new Piscina({
      filename: new URL('./share-worker.js', import.meta.url).href,
      minThreads: 1,
      maxThreads: this.#threads,
      idleTimeout: IDLE_TIMEOUT_MS,
      workerData: { vmPath: this.vmPath }
    })
    return this.#pool
  }
}
