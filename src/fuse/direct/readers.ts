/**
 * The reader threads, seen from the owner: starts them, serves what they hand over, and gets them to end.
 *
 * `ended` resolves when every reader has ended and everything they handed over was begun. While a reader waits in the
 * kernel, process.exit() waits for it for ever: end the mount first, or use stop(), or SIGKILL.
 *
 * A thread takes 50 ms to start. prepareReaders() starts them while the VM is being opened; what they read from they are told
 * when there is a mount.
 */
import { once } from 'node:events'
import { availableParallelism } from 'node:os'
import { Worker } from 'node:worker_threads'
import { programUrl } from '../../base/program-files.js'
import { THREADS_MAX } from '../../base/thread-counters.js'
import type { Message } from './answers.js'
import { Polling } from './polling.js'
import { LARGE_SLOTS_PER_READER, RequestQueue } from './request-queue.js'
import type { SharedState } from './thread-answers.js'

const READERS_MIN = 2
const READERS = Math.max(READERS_MIN, Math.min(THREADS_MAX, availableParallelism()))
/** after so many requests other events have their turn */
const REQUESTS_PER_TURN = 64

/** What a thread is told once there is something to read. */
export interface ReaderData {
  readonly descriptor: number
  readonly memory: SharedArrayBuffer
  readonly reader: number
  readonly readers: number
  /** what threads may answer themselves from; undefined: nothing */
  readonly shared: SharedState | undefined
}

/**
 * Serves one request. The promise, when there is one, says when its bytes are not needed any more; with `mayKeep` false
 * there must be none.
 */
export type Serve = (request: Message, lengthBytes: number, mayKeep: boolean) => Promise<unknown> | undefined

interface StartedThreads {
  readonly queue: RequestQueue
  readonly threads: readonly Worker[]
}

let prepared: StartedThreads | undefined

/** Starts the threads of this process's next mount. They do not keep the process from ending until then. */
export function prepareReaders(): void {
  if (prepared !== undefined) return
  prepared = startThreads()
  for (const thread of prepared.threads) {
    thread.unref()
    thread.on('error', () => (prepared = undefined)) // whoever mounts starts others, and says what is wrong with those
  }
}

function startThreads(): StartedThreads {
  const threads = Array.from({ length: READERS }, () => new Worker(programUrl('fuse/direct/reader.js')))
  return { queue: new RequestQueue(READERS), threads }
}

export class Readers {
  readonly ended: Promise<void>
  readonly #queue: RequestQueue
  readonly #serve: Serve
  readonly #isIdle: () => boolean
  readonly #polling = new Polling()
  #kept = 0
  #running = READERS

  /** `isIdle`: no request that was begun is without its answer */
  constructor(descriptor: number, serve: Serve, isIdle: () => boolean, shared?: SharedState) {
    this.#serve = serve
    this.#isIdle = isIdle
    const { queue, threads } = prepared ?? startThreads()
    prepared = undefined
    this.#queue = queue
    const data = { descriptor, memory: queue.memory, readers: READERS, shared }
    const ends = threads.map((thread, reader) => this.#start(thread, { ...data, reader }))
    this.ended = Promise.all(ends).then(() => this.#drainAll())
  }

  get haveEnded(): boolean {
    return this.#running === 0
  }

  /** From now on a reader ends after its next request. */
  stop(): void {
    this.#queue.stop()
  }

  async #start(thread: Worker, data: ReaderData): Promise<void> {
    thread.ref()
    thread.on('message', () => {
      this.#polling.noteWake()
      this.#drain()
    })
    thread.on('error', (error) => {
      throw error // a defect: what the thread had in its hands would never be answered
    })
    thread.postMessage(data)
    await once(thread, 'exit')
    this.#running--
  }

  #drain(): void {
    for (let count = 0; count < REQUESTS_PER_TURN; count++) {
      const slot = this.#queue.next()
      if (slot !== undefined) this.#serveSlot(slot)
      else if (!this.#pollOrSleep(count > 0)) return
    }
    setImmediate(() => this.#drain())
  }

  /**
   * True when there may be a request now. Answers of this turn that wait for a promise come after it: only when they are out is there
   * anything to poll for, so then there is a second turn.
   */
  #pollOrSleep(hasServed: boolean): boolean {
    if (this.#polling.isWorthwhile) {
      if (this.#isIdle()) {
        if (this.#polling.poll(() => this.#queue.hasNext)) return true
      } else if (hasServed) {
        setImmediate(() => this.#drain())
        return false
      }
    }
    if (!this.#queue.fallAsleep()) return true
    this.#polling.noteSleep()
    return false
  }

  #drainAll(): void {
    for (let slot = this.#queue.next(); slot !== undefined; slot = this.#queue.next()) this.#serveSlot(slot)
  }

  #serveSlot(slot: number): void {
    const request = this.#queue.slots[slot]
    if (request === undefined) return
    // Requests that wait must not hold every slot of a reader: it would not read the next one.
    const mayKeep = this.#kept < LARGE_SLOTS_PER_READER / 2
    const kept = this.#serve(request, this.#queue.lengthOf(slot), mayKeep)
    if (kept === undefined) {
      this.#queue.release(slot)
      return
    }
    this.#kept++
    const release = (): void => {
      this.#kept--
      this.#queue.release(slot)
    }
    kept.then(release, release)
  }
}
