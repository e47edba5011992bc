/** The checkpoints of one mount: one at a time, ordered with the mount's end. What one does is in checkpoint.ts. */
import { IsrfsError, messageOf, NotPublishedError } from '../base/errors.js'
import type { Inode } from '../session/namespace-types.js'
import { Checkpoint, type CheckpointOptions, type CheckpointResult, type CheckpointRun } from './checkpoint.js'
import { CommitPool } from './commit-pool.js'
import { SentBlocks } from './sent-blocks.js'

export class Checkpointer {
  /** of all checkpoints */
  sentBytes = 0
  readonly #options: CheckpointOptions
  readonly #sent: SentBlocks
  readonly #stopped: Promise<never>
  #stop: (error: Error) => void = () => undefined
  #isStopped = false
  #isPinned = false
  #running: Promise<CheckpointResult> | undefined
  #publishing: Promise<unknown> | undefined

  constructor(options: CheckpointOptions) {
    this.#options = options
    this.#sent = new SentBlocks(options.session)
    this.#stopped = new Promise((_, reject) => (this.#stop = reject))
    this.#stopped.catch(() => undefined)
  }

  get isRunning(): boolean {
    return this.#running !== undefined
  }

  /** Whether a checkpoint has sent the block as it is now. */
  isSent(inode: Inode, block: number): boolean {
    return this.#sent.isSent(inode, block)
  }

  /** Publishes the next generation, or rejects with NotPublishedError; the session is whole either way. One at a time. */
  run(how: CheckpointRun): Promise<CheckpointResult> {
    if (this.#isStopped) return Promise.reject(new Ended())
    if (this.#running !== undefined) {
      return Promise.reject(new NotPublishedError('a checkpoint of this mount is under way', { hint: 'wait for it' }))
    }
    const running = this.#run(how).finally(() => {
      this.#running = undefined
      this.#publishing = undefined
    })
    this.#running = running
    running.catch(() => undefined)
    return Promise.race([running, this.#stopped])
  }

  /** Resolves when nothing of a checkpoint changes the session or publishes any more. Never rejects. */
  async stop(): Promise<void> {
    this.#isStopped = true
    if (this.#publishing !== undefined) await this.#running?.catch(() => undefined)
    this.#stop(new Ended())
  }

  async #run(how: CheckpointRun): Promise<CheckpointResult> {
    const { vmPath, session } = this.#options
    const { vmId } = session.identity
    const pool = new CommitPool(vmPath, { vmId, known: [...session.uploads.entries()] })
    try {
      return await new Checkpoint(this.#options, how, this.#sent, {
        ask: async (name, input) => {
          this.#requireRunning()
          const answer = await pool.run(name, input)
          this.#requireRunning()
          return answer
        },
        pool,
        requireRunning: () => this.#requireRunning(),
        pin: async () => {
          if (!this.#isPinned) await this.#options.pinBase()
          this.#isPinned = true
        },
        publishing: (publishing) => {
          this.#publishing = publishing
        },
        noteSent: (bytes) => {
          this.sentBytes += bytes
        }
      }).run()
    } catch (error) {
      this.#sent.forget()
      if (error instanceof NotPublishedError) throw error
      const hint = error instanceof IsrfsError ? error.hint : undefined
      throw new NotPublishedError(messageOf(error), { cause: error, ...(hint === undefined ? {} : { hint }) })
    } finally {
      void pool.close() // a thread that hangs on the share must not keep anybody
    }
  }

  #requireRunning(): void {
    if (this.#isStopped) throw new Ended()
  }
}

class Ended extends NotPublishedError {
  constructor() {
    super('the mount is being ended', { hint: 'the suspend publishes everything' })
  }
}
