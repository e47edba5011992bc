/**
 * Fetching blocks of one mount: one fetch per block at a time, everyone else waits for it; neighbours travel
 * together. A fetched block goes into the cache, by the thread that has fetched it where that may be; whoever waits finds it
 * there, or is handed its bytes.
 */
import { BLOCK_BYTES, type InodeId, regionOf } from '../base/units.js'
import { FailedError, fromPlainError, IsrfsError } from '../base/errors.js'
import type { Landed } from '../cache/cache.js'
import type { Landing } from '../cache/landing.js'
import type { BlockPlace } from '../format/place.js'
import { askAgain, mayPass } from './patience.js'
import { type Priority, type SharePool, Turn } from './share-pool.js'
import { type FetchedBlocks, type LocalCandidate, RUN_BLOCKS_MAX, type WantedBlock } from './share-tasks.js'

export interface BlockRequest {
  readonly inode: InodeId
  readonly block: number
  readonly place: BlockPlace
  readonly candidate: LocalCandidate | undefined
}

/** Where fetched blocks are kept; the cache, seen from here. */
export interface BlockKeeper {
  /** How a thread may keep the block by itself, which ends with endLanding; undefined: it may not. */
  beginLanding(inode: InodeId, region: number, blockInRegion: number): Landing | undefined
  endLanding(inode: InodeId, region: number, blockInRegion: number, landed: Landed | undefined): void
  confirm(inode: InodeId, region: number, blockInRegion: number, plain: Uint8Array, digest: Buffer): void
  place(inode: InodeId, region: number, blockInRegion: number, plain: Uint8Array, digest: Buffer): void
}

interface Running {
  readonly block: Promise<Buffer | undefined>
  readonly turn: Turn
  readonly request: BlockRequest
  /** its bytes come in any case */
  readonly handsOver: boolean
}

/** A run of blocks, as its thread has left it. */
interface Answer {
  readonly fetched: FetchedBlocks
  readonly wanted: readonly WantedBlock[]
}

export class Fetcher {
  readonly #pool: SharePool
  readonly #keeper: BlockKeeper
  readonly #running = new Map<string, Running>()
  /** runs of blocks that are on their way, and since when there was one */
  #runs = 0
  #busySinceMs = 0

  constructor(pool: SharePool, keeper: BlockKeeper) {
    this.#pool = pool
    this.#keeper = keeper
  }

  /** Blocks that are wanted and not here yet. */
  *inFlight(): Generator<Pick<BlockRequest, 'inode' | 'block'>> {
    for (const { request } of this.#running.values()) yield request
  }

  /**
   * Promises of the plain blocks, in the order of the requests; of undefined for a block that is in the cache now, unless it is
   * lost again meanwhile: who has seen that asks with `handOver`. Each rejects for itself. A block that waits in the queue with a
   * lower priority overtakes with this one.
   */
  fetch(
    requests: readonly BlockRequest[],
    priority: Priority,
    what: string,
    { handOver = false } = {}
  ): Promise<Buffer | undefined>[] {
    const fresh = new Map<string, BlockRequest>()
    for (const request of requests) {
      const key = keyOf(request)
      const running = this.#running.get(key)
      if (running === undefined) fresh.set(key, request)
      else running.turn.raise(priority)
    }
    for (const run of neighbours([...fresh.values()])) this.#start(run, { priority, what, handOver })
    return requests.map((request) => {
      const running = this.#running.get(keyOf(request))
      if (running === undefined) return Promise.reject(new FailedError('a fetch ended before it was waited for'))
      if (!handOver || running.handsOver) return running.block
      const handed = running.block.then((plain) => plain ?? this.fetch([request], priority, what, { handOver })[0])
      handed.catch(() => undefined) // whoever waits may not have come to it yet
      return handed
    })
  }

  #start(
    run: readonly BlockRequest[],
    { priority, what, handOver }: { readonly priority: Priority; readonly what: string; readonly handOver: boolean }
  ): void {
    const turn = new Turn(priority)
    if (this.#runs++ === 0) this.#busySinceMs = performance.now()
    const answer = this.#request(run, { turn, what, handOver }).finally(() => {
      if (--this.#runs === 0) this.#pool.counters.busySeconds += (performance.now() - this.#busySinceMs) / 1000
    })
    for (const [index, request] of run.entries()) {
      const key = keyOf(request)
      const block = answer.then((all) => this.#deliver(all, index, request)).finally(() => this.#running.delete(key))
      block.catch(() => undefined) // whoever waits sees the error; a readahead that nobody waits for may fail quietly
      this.#running.set(key, { block, turn, request, handsOver: handOver })
    }
  }

  #deliver(answer: Answer, index: number, request: BlockRequest): Buffer | undefined {
    this.#endLanding(request, answer, index)
    const { fetched } = answer
    const result = fetched.results[index]
    if (result === undefined) throw new FailedError('a share worker returned fewer blocks than wanted')
    if ('error' in result) throw fromPlainError(result.error)
    if (result.from === 'share') this.#pool.counters.fetchedBlocks++
    else if (result.from === 'elsewhere') this.#pool.counters.lookasideBlocks++
    if (result.diskBytes !== undefined) return undefined
    const { inode, block, place } = request
    const plain = Buffer.from(fetched.plain, index * BLOCK_BYTES, BLOCK_BYTES)
    const { region, blockInRegion } = regionOf(block)
    if (result.from === 'cache') this.#keeper.confirm(inode, region, blockInRegion, plain, place.digest)
    else this.#keeper.place(inode, region, blockInRegion, plain, place.digest)
    return plain
  }

  /** Whoever gets the answer ends the landings that are in it. */
  async #request(
    run: readonly BlockRequest[],
    { turn, what, handOver }: { readonly turn: Turn; readonly what: string; readonly handOver: boolean }
  ): Promise<Answer> {
    for (let attempt = 0; ; attempt++) {
      const wanted: WantedBlock[] = []
      const input = (): { wanted: WantedBlock[] } => {
        for (const request of run) wanted.push(this.#wanted(request, handOver))
        return { wanted }
      }
      let fetched: FetchedBlocks
      try {
        fetched = await this.#pool.run('blocks', input, { turn, what })
      } catch (error) {
        // of a pool that was closed a thread may still be writing: those landings stay as they are
        if (!this.#pool.isClosed) this.#endLandings(run, { wanted })
        throw error
      }
      this.#pool.counters.fetchedBytes += fetched.encodedBytes
      this.#pool.counters.shareSeconds += fetched.shareSeconds
      const trouble = fetched.results.find((result) => 'error' in result && result.error.code === 'SHARE')
      if (trouble === undefined) return { fetched, wanted }
      this.#pool.counters.shareErrors++
      this.#endLandings(run, { fetched, wanted }) // before a wait that may be long
      if (!(await askAgain(this.#pool, what, attempt))) return { fetched, wanted: [] }
    }
  }

  #wanted({ inode, block, place, candidate }: BlockRequest, handOver: boolean): WantedBlock {
    const { region, blockInRegion } = regionOf(block)
    return {
      place: { ...place, digest: alone(place.digest) },
      candidate,
      landing: handOver ? undefined : this.#keeper.beginLanding(inode, region, blockInRegion)
    }
  }

  #endLandings(run: readonly BlockRequest[], answer: Partial<Answer>): void {
    for (const [index, request] of run.entries()) this.#endLanding(request, answer, index)
  }

  #endLanding({ inode, block, place }: BlockRequest, { fetched, wanted }: Partial<Answer>, index: number): void {
    if (wanted?.[index]?.landing === undefined) return
    const result = fetched?.results[index]
    const diskBytes = result === undefined || 'error' in result ? undefined : result.diskBytes
    const { region, blockInRegion } = regionOf(block)
    const landed = diskBytes === undefined ? undefined : { digest: place.digest, diskBytes }
    this.#keeper.endLanding(inode, region, blockInRegion, landed)
  }
}

/** Repeats what a share that is in trouble has refused, as fetches of blocks do. */
export async function withRetries<Result>(pool: SharePool, what: string, ask: () => Promise<Result>): Promise<Result> {
  for (let attempt = 0; ; attempt++) {
    try {
      return await ask()
    } catch (error) {
      if (!mayPass(error) || !(await askAgain(pool, what, attempt))) throw error
    }
  }
}

/** Requests whose blocks lie one after another in one chunk, at most RUN_BLOCKS_MAX together. */
function neighbours(requests: readonly BlockRequest[]): BlockRequest[][] {
  const all: BlockRequest[][] = []
  let previous: BlockRequest | undefined
  for (const request of requests) {
    const run = all.at(-1)
    const adjacent =
      previous !== undefined &&
      request.place.chunk === previous.place.chunk &&
      request.place.offset === previous.place.offset + previous.place.storedBytes
    if (run !== undefined && adjacent && run.length < RUN_BLOCKS_MAX) run.push(request)
    else all.push([request])
    previous = request
  }
  return all
}

/** A digest is a view into its map page, and whatever crosses a thread takes all of the memory along that it is a view of. */
function alone(digest: Buffer): Buffer {
  const copy = Buffer.allocUnsafeSlow(digest.length)
  digest.copy(copy)
  return copy
}

/** With the place: a block that a session uploads while its base is fetched has two. */
function keyOf({ inode, block, place }: BlockRequest): string {
  return `${String(inode)}:${String(block)}:${place.chunk}:${String(place.offset)}`
}

/** Whether a failed read means damage (EIO for this block, others go on) rather than a share that is away. */
export function isDamage(error: unknown): boolean {
  return error instanceof IsrfsError && error.code === 'INTEGRITY'
}
