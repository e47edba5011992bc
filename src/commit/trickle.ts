/**
 * Trickle: blocks that were changed and then left alone for a while go to the share while the guest runs, so that the
 * suspend has only the rest to send.
 *
 *     dirty and quiet -> chunk, durable -> "bytes with this digest are there", durable      (the suspend looks there first)
 *
 * Invariants:
 * 1. The session is read and never changed: its bytes stay, and whatever goes wrong here only costs the suspend its head
 *    start. A block is recorded by the digest of the bytes that were sent (session/uploads.ts), never by its position; the
 *    suspend puts every dirty block together anew and sends nothing only when those bytes have a recorded place whose
 *    chunk is there. So a block that was written while it was read, or later, or torn between two writes, is sent again.
 * 2. A place is recorded only after its chunk is durable. A crash, of the machine too, leaves records that are true or
 *    none.
 * 3. No generation names such a chunk before the publish. Those that none names then are removed by prune, which the
 *    lease of the mount holds off.
 * 4. Bounded: one unit at a time, nothing new while somebody waits for the share, and a pause as long as each unit took,
 *    so at most half of the link. What is changed again waits twice as long each time.
 */
import { anyBit } from '../base/bits.js'
import { messageOf } from '../base/errors.js'
import { BLOCKS_PER_REGION, PAGES_PER_BLOCK } from '../base/units.js'
import type { BlockPlace } from '../format/place.js'
import type { Inode } from '../session/namespace-types.js'
import { CommitPool } from './commit-pool.js'
import { type DirtyBlock, dirtyBlock } from './dirty.js'
import { type DirtyLayers, sourceOf } from './dirty-source.js'

const INTERVAL_MS = 3000
export const QUIET_MS = 10_000
const QUIET_DOUBLINGS_MAX = 6
/** 4 MiB before compression: what a suspend that comes meanwhile has to send again */
const UNIT_BLOCKS = 32
const BLOCKS_PER_PASS_MAX = 1024
/** passes that fewer blocks than a unit wait for company */
const PASSES_TO_WAIT = 2
const BUSY_PAUSE_MS = 100
const PAUSE_AFTER_TROUBLE_MS = 30_000

export interface TrickleOptions extends DirtyLayers {
  readonly vmPath: string
  /** somebody waits for the share, or it does not answer */
  readonly isBusy: () => boolean
  /** brings the base of blocks of which only a part was changed into the cache; the suspend needs it too. Never rejects. */
  readonly bring: (inode: Inode, blocks: readonly number[]) => Promise<unknown>
  readonly onWarning: (message: string) => void
  /** tests have a clock of their own */
  readonly nowMs?: () => number
  readonly pause?: (durationMs: number) => Promise<void>
}

interface RegionState {
  /** epoch that began before the block was read for sending; 0: never sent */
  readonly sentEpochs: Uint32Array
  /** how often it was sent */
  readonly sends: Uint8Array
  readonly digests: Map<number, string>
}

interface Candidate {
  readonly dirty: DirtyBlock
  readonly state: RegionState
  readonly index: number
}

export class Trickle {
  sentBytes = 0
  /** how long that took, from the session's files to the share's */
  sendingSeconds = 0
  readonly #options: TrickleOptions
  readonly #nowMs: () => number
  readonly #pause: (durationMs: number) => Promise<void>
  readonly #states = new Map<Inode, Map<number, RegionState>>()
  /** epochs and when they began, oldest first */
  readonly #epochs: { readonly epoch: number; readonly beganMs: number }[] = []
  readonly #timer: NodeJS.Timeout
  #running = false
  #stopped = false
  #fewPasses = 0
  #pausedUntilMs = 0

  constructor(options: TrickleOptions) {
    this.#options = options
    this.#nowMs = options.nowMs ?? (() => performance.now())
    this.#pause = options.pause ?? ((durationMs) => new Promise((resolve) => setTimeout(resolve, durationMs)))
    this.#timer = setInterval(() => void this.pass(), INTERVAL_MS)
    this.#timer.unref()
  }

  /** What was sent until now counts; what is on its way does not. */
  stop(): void {
    this.#stopped = true
    clearInterval(this.#timer)
  }

  /**
   * Whether the share has the block as it is now, for people who look: a request thread's write of this moment shows in the next pass,
   * and what a crash has left behind counts as not sent.
   */
  isSent(inode: Inode, block: number): boolean {
    const region = Math.floor(block / BLOCKS_PER_REGION)
    const index = block % BLOCKS_PER_REGION
    const sentEpoch = this.#states.get(inode)?.get(region)?.sentEpochs[index] ?? 0
    return sentEpoch > this.#options.session.changeEpoch(inode.id, region, index)
  }

  /** Sends what has been quiet for long enough. Never rejects. */
  async pass(): Promise<void> {
    if (this.#stopped || this.#running) return
    this.#beginEpoch()
    if (this.#options.isBusy() || this.#nowMs() < this.#pausedUntilMs) return
    const candidates = this.#candidates()
    this.#fewPasses = candidates.length === 0 || candidates.length >= UNIT_BLOCKS ? 0 : this.#fewPasses + 1
    if (candidates.length === 0 || (candidates.length < UNIT_BLOCKS && this.#fewPasses <= PASSES_TO_WAIT)) return
    this.#fewPasses = 0
    this.#running = true
    const { vmPath, session } = this.#options
    const { vmId } = session.identity
    const pool = new CommitPool(vmPath, { vmId, threads: 1, known: [...session.uploads.entries()] })
    try {
      for (let first = 0; first < candidates.length && !this.#isStopped(); first += UNIT_BLOCKS) {
        while (this.#options.isBusy() && !this.#isStopped()) await this.#pause(BUSY_PAUSE_MS)
        const startedMs = this.#nowMs()
        await this.#send(pool, candidates.slice(first, first + UNIT_BLOCKS))
        await this.#pause(this.#nowMs() - startedMs)
      }
    } catch (error) {
      this.#pausedUntilMs = this.#nowMs() + PAUSE_AFTER_TROUBLE_MS
      this.#options.onWarning(`changes are not sent ahead of the suspend for now: ${messageOf(error)}`)
    } finally {
      this.#running = false
      void pool.close() // a thread that hangs on the share must not keep anybody
    }
  }

  async #send(pool: CommitPool, unit: readonly Candidate[]): Promise<void> {
    const { session, bring } = this.#options
    for (const { dirty } of unit) {
      if (dirty.valid.length < PAGES_PER_BLOCK && dirty.uploaded === undefined) await bring(dirty.inode, [dirty.block])
    }
    const epoch = session.beginEpoch()
    const current = unit.flatMap((candidate) => {
      const { inode, block } = candidate.dirty
      const dirty = session.namespace.get(inode.id) === inode ? dirtyBlock(inode, block) : undefined
      return dirty === undefined || dirty.valid.length === 0 ? [] : [{ ...candidate, dirty }]
    })
    if (current.length === 0 || this.#isStopped()) return
    const startedMs = this.#nowMs()
    const sources = await Promise.all(current.map(({ dirty }) => sourceOf(dirty, this.#options)))
    const answer = await pool.run('encode', { blocks: sources })
    this.sentBytes += answer.sentBytes
    this.sendingSeconds += (this.#nowMs() - startedMs) / 1000
    if (this.#isStopped()) return
    const placed: BlockPlace[] = []
    for (const [position, { state, index }] of current.entries()) {
      const result = answer.results[position]
      state.sentEpochs[index] = epoch
      state.sends[index] = Math.min((state.sends[index] ?? 0) + 1, QUIET_DOUBLINGS_MAX)
      this.#supersede(state, index, result?.state === 'placed' ? result.place.digest.toString('hex') : undefined)
      if (result?.state === 'placed') placed.push(result.place)
    }
    if (placed.length > 0) await session.uploads.addLater(placed)
  }

  /** Bytes that the block does not have any more need no record. */
  #supersede(state: RegionState, index: number, digest: string | undefined): void {
    const old = state.digests.get(index)
    if (old !== undefined && old !== digest) this.#options.session.uploads.forget(old)
    if (digest === undefined) state.digests.delete(index)
    else state.digests.set(index, digest)
  }

  /** Blocks with changes that were not sent, quiet for long enough, in the order of their files. */
  #candidates(): Candidate[] {
    const { session } = this.#options
    const found: Candidate[] = []
    for (const inode of this.#states.keys()) if (session.namespace.get(inode.id) !== inode) this.#states.delete(inode)
    const limits = Array.from({ length: QUIET_DOUBLINGS_MAX + 1 }, (_, sends) =>
      this.#epochBefore(QUIET_MS * 2 ** sends)
    )
    for (const inode of session.namespace.inodes()) {
      if (inode.parent === 0) continue // deleted: no suspend sends it
      for (const [region, { valid }] of inode.regions) {
        if (!anyBit(valid)) continue
        const state = this.#stateOf(inode, region)
        for (let index = 0; index < BLOCKS_PER_REGION; index++) {
          if ((valid[index] ?? 0) === 0) continue // a block is one word
          const epoch = session.changeEpoch(inode.id, region, index)
          const sentEpoch = state.sentEpochs[index] ?? 0
          if (sentEpoch > epoch || epoch >= (limits[state.sends[index] ?? 0] ?? 0)) continue
          const dirty = dirtyBlock(inode, region * BLOCKS_PER_REGION + index)
          if (dirty !== undefined) found.push({ dirty, state, index })
          if (found.length >= BLOCKS_PER_PASS_MAX) return found
        }
      }
    }
    return found
  }

  #stateOf(inode: Inode, region: number): RegionState {
    let regions = this.#states.get(inode)
    if (regions === undefined) this.#states.set(inode, (regions = new Map<number, RegionState>()))
    let state = regions.get(region)
    if (state === undefined) {
      const sends = new Uint8Array(BLOCKS_PER_REGION)
      state = { sentEpochs: new Uint32Array(BLOCKS_PER_REGION), sends, digests: new Map() }
      regions.set(region, state)
    }
    return state
  }

  #beginEpoch(): void {
    const nowMs = this.#nowMs()
    this.#epochs.push({ epoch: this.#options.session.beginEpoch(), beganMs: nowMs })
    const horizonMs = nowMs - QUIET_MS * 2 ** QUIET_DOUBLINGS_MAX
    // one from before the horizon stays, so that there is an answer for it
    while ((this.#epochs[1]?.beganMs ?? Infinity) <= horizonMs) this.#epochs.shift()
  }

  /** Whatever changed in an epoch before this one has been quiet for that long; 0 when nothing can be said. */
  #epochBefore(durationMs: number): number {
    const beganMsMax = this.#nowMs() - durationMs
    return this.#epochs.findLast(({ beganMs }) => beganMs <= beganMsMax)?.epoch ?? 0
  }

  #isStopped(): boolean {
    return this.#stopped
  }
}
