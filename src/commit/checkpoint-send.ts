/** Sends what a running session has, from copies, until what is left can be copied in one step. See checkpoint.ts. */
import { NotPublishedError } from '../base/errors.js'
import { BLOCK_BYTES } from '../base/units.js'
import type { ObjectPlace } from '../format/place.js'
import type { CommitProgress } from './commit.js'
import type { CommitPool } from './commit-pool.js'
import type { CommitTaskInput, CommitTaskName, CommitTaskOutput } from './commit-tasks.js'
import { type DirtyLayers, sourceOf } from './dirty-source.js'
import type { BlockResult } from './encode.js'
import { type Frozen, type PendingBlock, placesOf, type SentBlocks, type StagedBlock } from './sent-blocks.js'

/** 4 MiB that are copied in one step */
const UNIT_BLOCKS = 32
const UNITS_IN_FLIGHT = 2
const ROUNDS_MAX = 6
/** a round that leaves more than this of the one before is the last: the guest changes faster than the share takes it */
const WORTH_ANOTHER_ROUND = 0.75

export interface CheckpointLimits {
  /** with so few blocks left no more rounds are worth it */
  readonly restBlocks: number
  /** blocks that may be copied in one step: 64 MiB, about 50 ms */
  readonly instantBlocks: number
  /** how long writes are held when more is left */
  readonly holdMs: number
}

export const LIMITS: CheckpointLimits = { restBlocks: 64, instantBlocks: 512, holdMs: 10_000 }

export type CheckpointProgress = Omit<CommitProgress, 'phase'> & {
  readonly phase: CommitProgress['phase'] | 'flush' | 'hold'
}

/** What one checkpoint asks of the mount that it belongs to. */
export interface Surroundings {
  readonly pool: CommitPool
  ask<Name extends CommitTaskName>(name: Name, input: CommitTaskInput<Name>): Promise<CommitTaskOutput<Name>>
  requireRunning(): void
  pin(): Promise<void>
  publishing(publishing: Promise<unknown>): void
  noteSent(bytes: number): void
}

export interface SenderOptions extends DirtyLayers {
  readonly holdWrites: () => () => void
}

export class CheckpointSender {
  sentBytes = 0
  doneBytes = 0
  totalBytes = 0
  readonly #options: SenderOptions
  readonly #limits: CheckpointLimits
  readonly #sent: SentBlocks
  readonly #around: Surroundings
  readonly #onProgress: (progress: CheckpointProgress) => void

  constructor(
    options: SenderOptions,
    limits: CheckpointLimits,
    sent: SentBlocks,
    around: Surroundings,
    onProgress: (progress: CheckpointProgress) => void
  ) {
    this.#options = options
    this.#limits = limits
    this.#sent = sent
    this.#around = around
    this.#onProgress = onProgress
  }

  /** Map objects, in durable chunks. */
  async sendObjects(objects: readonly Buffer[]): Promise<ObjectPlace[]> {
    const written = await this.#around.ask('objects', { objects })
    this.#note(written.sentBytes)
    return written.places
  }

  /** Sends what has changed, and what has changed meanwhile, until little is left or it does not get less. */
  async sendRounds(): Promise<void> {
    let before = Infinity
    for (let round = 0; round < ROUNDS_MAX; round++) {
      const pending = this.#sent.pending()
      if (pending.length <= this.#limits.restBlocks || pending.length > before * WORTH_ANOTHER_ROUND) return
      before = pending.length
      await this.#sendPending(pending)
    }
  }

  async #sendPending(pending: readonly PendingBlock[]): Promise<void> {
    this.totalBytes += pending.length * BLOCK_BYTES
    const running = new Set<Promise<void>>()
    try {
      for (let first = 0; first < pending.length; first += UNIT_BLOCKS) {
        const unit = pending.slice(first, first + UNIT_BLOCKS)
        const staged = this.#sent.stage(unit)
        this.doneBytes += (unit.length - staged.length) * BLOCK_BYTES
        const sent = this.#send(staged).finally(() => running.delete(sent))
        running.add(sent)
        if (running.size >= UNITS_IN_FLIGHT) await Promise.race(running)
      }
      await Promise.all(running)
    } finally {
      for (const sent of running) sent.catch(() => undefined)
    }
  }

  async #send(staged: readonly StagedBlock[], into?: Map<StagedBlock, BlockResult>): Promise<void> {
    if (staged.length === 0) return
    const { session } = this.#options
    const blocks = await Promise.all(
      staged.map(async ({ dirty, bytes }) => ({
        ...(await sourceOf(dirty, this.#options)),
        session: null,
        staged: bytes
      }))
    )
    const answer = await this.#around.ask('encode', { blocks })
    for (const [index, each] of staged.entries()) {
      const result = answer.results[index]
      if (result === undefined) throw new Error('a commit worker returned fewer blocks than it was given')
      const superseded = this.#sent.note(each, result)
      if (superseded !== undefined) session.uploads.forget(superseded)
      into?.set(each, result)
    }
    this.#note(answer.sentBytes)
    this.doneBytes += staged.length * BLOCK_BYTES
    this.report('upload')
    const places = placesOf(answer.results)
    // Only saves the suspend from sending these again: a full disk is no reason to give this up.
    if (places.length > 0) await session.uploads.addLater(places).catch(() => undefined)
    this.#around.requireRunning()
  }

  /** Invariants 1 and 2. */
  async freeze(): Promise<{ frozen: Frozen; holdMs: number }> {
    const startedMs = performance.now()
    const at = this.#sent.freeze(this.#limits.instantBlocks)
    if (at !== undefined) return { frozen: at, holdMs: performance.now() - startedMs }
    this.report('hold')
    const letGo = this.#options.holdWrites()
    let timer: NodeJS.Timeout | undefined
    let isLate = false
    try {
      const late = new Promise<never>((_, reject) => {
        timer = setTimeout(() => {
          isLate = true
          reject(
            new NotPublishedError(
              `the share did not take what was changed within ${String(this.#limits.holdMs)} ms, while writes were held`,
              { hint: 'the mount goes on; try again when the share is faster or the guest writes less' }
            )
          )
        }, this.#limits.holdMs)
      })
      const frozen = await Promise.race([this.#sendUntilFrozen(() => isLate), late])
      return { frozen, holdMs: performance.now() - startedMs }
    } finally {
      clearTimeout(timer)
      letGo()
    }
  }

  /** Holes and cuts come also while writes are held, but no loop is for ever. */
  async #sendUntilFrozen(isLate: () => boolean): Promise<Frozen> {
    for (;;) {
      await this.#sendPending(this.#sent.pending())
      const frozen = isLate() ? undefined : this.#sent.freeze(this.#limits.instantBlocks)
      if (frozen !== undefined) return frozen
      if (isLate()) return new Promise(() => undefined) // nobody waits any more
    }
  }

  async sendRest({ files, staged }: Frozen): Promise<void> {
    const byInode = new Map(files.map((file) => [file.inode, file]))
    this.totalBytes += staged.length * BLOCK_BYTES
    for (let first = 0; first < staged.length; first += UNIT_BLOCKS) {
      const results = new Map<StagedBlock, BlockResult>()
      await this.#send(staged.slice(first, first + UNIT_BLOCKS), results)
      for (const [{ dirty }, result] of results) byInode.get(dirty.inode)?.results.set(dirty.block, result)
    }
    this.#takeRecordedPlaces(files)
  }

  /** The same bytes may lie in two chunks: the place that the suspend will take counts, so that it finds nothing changed. */
  #takeRecordedPlaces(files: Frozen['files']): void {
    const { uploads } = this.#options.session
    for (const { results } of files) {
      for (const [block, result] of results) {
        if (result.state !== 'placed') continue
        const place = uploads.get(result.place.digest.toString('hex'))
        if (place !== undefined) results.set(block, { state: 'placed', place })
      }
    }
  }

  #note(bytes: number): void {
    this.sentBytes += bytes
    this.#around.noteSent(bytes)
  }

  report(phase: CheckpointProgress['phase']): void {
    const { doneBytes, totalBytes, sentBytes } = this
    this.#onProgress({ phase, doneBytes, totalBytes, sentBytes })
  }
}
