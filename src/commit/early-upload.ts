/**
 * Space on a client's disk that the session itself has filled: regions that were not written for the longest time go to
 * the share as chunks that no generation names yet, and then their local bytes go.
 *
 *     coldest regions -> chunk, durable -> record in the journal, durable -> region files removed
 *
 * Invariants:
 * 1. A page's local bytes go only after the share has them and the journal says where, both durable.
 * 2. A region that has changed while it was sent keeps its bytes; the chunk then is one that nothing names (prune).
 * 3. After stop() the session is not changed any more: a commit may read it.
 */
import { anyBit } from '../base/bits.js'
import { messageOf } from '../base/errors.js'
import { BLOCK_BYTES, BLOCKS_PER_REGION } from '../base/units.js'
import type { Inode, UploadedBlock } from '../session/namespace-types.js'
import { SharedRun } from '../session/shared-run.js'
import { CommitPool } from './commit-pool.js'
import { type DirtyBlock, dirtyBlocksIn } from './dirty.js'
import { type DirtyLayers, sourceOf } from './dirty-source.js'
import { type BlockResult, UNIT_BLOCKS_MAX } from './encode.js'

const PAUSE_AFTER_TROUBLE_MS = 5000

export interface EarlyUploadOptions extends DirtyLayers {
  readonly vmPath: string
  /** whether there is space again: looked at before each unit */
  readonly isEnough: () => boolean
  readonly onWarning: (message: string) => void
  /** blocks have another place now */
  readonly onUploaded: (inode: Inode, blocks: readonly number[]) => void
}

interface DirtyRegion {
  readonly inode: Inode
  readonly region: number
  readonly tick: number
  readonly blocks: readonly DirtyBlock[]
}

export class EarlyUpload {
  sentBytes = 0
  /** set while a run goes on */
  runningSinceMs: number | undefined
  /** the last run has left nothing that could be sent */
  isExhausted = false
  readonly #options: EarlyUploadOptions
  readonly #run = new SharedRun(() => this.#upload())
  #pausedUntilMs = 0
  #stopped = false

  constructor(options: EarlyUploadOptions) {
    this.#options = options
  }

  /** Sends until there is space, or nothing is left, or the share is in trouble; a later call goes on. Never rejects. */
  makeSpace(): Promise<void> {
    if (this.#stopped || this.runningSinceMs !== undefined || Date.now() < this.#pausedUntilMs) return Promise.resolve()
    return this.#run.run()
  }

  stop(): void {
    this.#stopped = true
  }

  async #upload(): Promise<void> {
    this.runningSinceMs = Date.now()
    const { vmPath, session } = this.#options
    const { vmId } = session.identity
    const pool = new CommitPool(vmPath, { vmId, threads: 1, known: [...session.uploads.entries()] })
    try {
      while (!this.#stopped && !this.#options.isEnough()) {
        const regions = this.#coldest()
        this.isExhausted = regions.length === 0
        if (this.isExhausted || !(await this.#uploadRegions(pool, regions))) return
      }
    } catch (error) {
      this.#pausedUntilMs = Date.now() + PAUSE_AFTER_TROUBLE_MS
      this.#options.onWarning(`the client's disk is full, and changes cannot be sent to the share: ${messageOf(error)}`)
    } finally {
      this.runningSinceMs = undefined
      void pool.close() // a thread that hangs on the share must not keep anybody
    }
  }

  /** As many as one chunk takes. */
  #coldest(): DirtyRegion[] {
    const { session } = this.#options
    const dirty: { inode: Inode; region: number; tick: number }[] = []
    for (const inode of session.namespace.inodes()) {
      for (const [region, { valid }] of inode.regions) {
        if (anyBit(valid)) dirty.push({ inode, region, tick: session.changeTick(inode.id, region) })
      }
    }
    dirty.sort((first, second) => first.tick - second.tick)
    const chosen: DirtyRegion[] = []
    let blocks = 0
    for (const { inode, region, tick } of dirty) {
      const inRegion = dirtyBlocksIn(inode, region)
      if (blocks + inRegion.length > UNIT_BLOCKS_MAX) break
      blocks += inRegion.length
      chosen.push({ inode, region, tick, blocks: inRegion })
    }
    return chosen
  }

  /** False when all of them have changed meanwhile: whoever writes there needs the space that is left. */
  async #uploadRegions(pool: CommitPool, regions: readonly DirtyRegion[]): Promise<boolean> {
    const { session } = this.#options
    const sources = await Promise.all(
      regions.flatMap(({ blocks }) => blocks.map((block) => sourceOf(block, this.#options)))
    )
    if (!regions.some((region) => this.#isUnchanged(region))) return false
    const answer = await pool.run('encode', { blocks: sources })
    this.sentBytes += answer.sentBytes
    let position = 0
    let anyUnchanged = false
    for (const region of regions) {
      const results = answer.results.slice(position, (position += region.blocks.length))
      if (this.#stopped || !this.#isUnchanged(region)) continue
      anyUnchanged = true
      this.#record(region, results, sources.slice(position - region.blocks.length, position))
    }
    if (anyUnchanged) await session.dropEmptyRegions()
    return anyUnchanged
  }

  #isUnchanged({ inode, region, tick }: DirtyRegion): boolean {
    const { session } = this.#options
    return session.namespace.get(inode.id) === inode && session.changeTick(inode.id, region) === tick
  }

  #record(
    { inode, region, blocks }: DirtyRegion,
    results: readonly BlockResult[],
    sources: readonly { readonly kind: string; readonly base?: UploadedBlock['place'] }[]
  ): void {
    const uploaded = new Map<number, UploadedBlock>()
    for (const [index, { block }] of blocks.entries()) {
      const result = results[index]
      if (result === undefined) throw new Error('a commit worker returned fewer blocks than it was given')
      const place = placeOf(result, sources[index]?.base)
      uploaded.set(block % BLOCKS_PER_REGION, { place, limitBytes: BLOCK_BYTES })
    }
    this.#options.session.record({ kind: 'uploaded', inode: inode.id, region, blocks: uploaded })
    this.#options.onUploaded(
      inode,
      blocks.map(({ block }) => block)
    )
  }
}

/** A block that equals its base has its bytes where the base has them. */
function placeOf(result: BlockResult, base: UploadedBlock['place']): UploadedBlock['place'] {
  switch (result.state) {
    case 'zero':
      return undefined
    case 'same':
      return base
    case 'placed':
      return result.place
  }
}
