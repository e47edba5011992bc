/**
 * Fetching blocks of one mount: one fetch per block at a time, everyone else waits for it; neighbours travel
 * together; a fetched block goes into the cache and to everyone who waits.
 */
import { BLOCK_BYTES, BLOCKS_PER_REGION, type InodeId } from '../base/units.js'
import { FailedError, fromPlainError, IsrfsError } from '../base/errors.js'
import type { BlockPlace } from '../format/place.js'
import { askAgain, mayPass } from './patience.js'
import { type Priority, type SharePool, Turn } from './share-pool.js'
import { type FetchedBlocks, type LocalCandidate, RUN_BLOCKS_MAX } from './share-tasks.js'

export interface BlockRequest {
  readonly inode: InodeId
  readonly block: number
  readonly place: BlockPlace
  readonly candidate: LocalCandidate | undefined
}

/** Where fetched blocks are kept; the cache, seen from here. */
export interface BlockKeeper {
  confirm(inode: InodeId, region: number, blockInRegion: number, plain: Uint8Array, digest: Buffer): void
  place(inode: InodeId, region: number, blockInRegion: number, plain: Uint8Array, digest: Buffer): void
}

interface Running {
  readonly block: Promise<Buffer>
  readonly turn: Turn
  readonly request: BlockRequest
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
   * Promises of the plain blocks, in the order of the requests. Each rejects for itself. A block that waits in the queue
   * with a lower priority overtakes with this one.
   */
  fetch(requests: readonly BlockRequest[], priority: Priority, what: string): Promise<Buffer>[] {
    const fresh = new Map<string, BlockRequest>()
    for (const request of requests) {
      const key = keyOf(request)
      const running = this.#running.get(key)
      if (running === undefined) fresh.set(key, request)
      else running.turn.raise(priority)
    }
    for (const run of neighbours([...fresh.values()])) this.#start(run, priority, what)
    return requests.map((request) => {
      const running = this.#running.get(keyOf(request))
      return running?.block ?? Promise.reject(new FailedError('a fetch ended before it was waited for'))
    })
  }

  #start(run: readonly BlockRequest[], priority: Priority, what: string): void {
    const turn = new Turn(priority)
    if (this.#runs++ === 0) this.#busySinceMs = performance.now()
    const answer = this.#request(run, turn, what).finally(() => {
      if (--this.#runs === 0) this.#pool.counters.busySeconds += (performance.now() - this.#busySinceMs) / 1000
    })
    for (const [index, request] of run.entries()) {
      const key = keyOf(request)
      const block = answer
        .then((fetched) => this.#deliver(fetched, index, request))
        .finally(() => this.#running.delete(key))
      block.catch(() => undefined) // whoever waits sees the error; a readahead that nobody waits for may fail quietly
      this.#running.set(key, { block, turn, request })
    }
  }

  #deliver(fetched: FetchedBlocks, index: number, request: BlockRequest): Buffer {
    const result = fetched.results[index]
    if (result === undefined) throw new FailedError('a share worker returned fewer blocks than wanted')
    if ('error' in result) throw fromPlainError(result.error)
    const plain = Buffer.from(fetched.plain, index * BLOCK_BYTES, BLOCK_BYTES)
    const region = Math.floor(request.block / BLOCKS_PER_REGION)
    const blockInRegion = request.block % BLOCKS_PER_REGION
    if (result.from === 'cache') {
      this.#keeper.confirm(request.inode, region, blockInRegion, plain, request.place.digest)
    } else {
      if (result.from === 'share') this.#pool.counters.fetchedBlocks++
      else this.#pool.counters.lookasideBlocks++
      this.#keeper.place(request.inode, region, blockInRegion, plain, request.place.digest)
    }
    return plain
  }

  async #request(run: readonly BlockRequest[], turn: Turn, what: string): Promise<FetchedBlocks> {
    const wanted = run.map(({ place, candidate }) => ({ place: { ...place, digest: alone(place.digest) }, candidate }))
    for (let attempt = 0; ; attempt++) {
      const fetched = await this.#pool.run('blocks', { wanted }, { turn, what })
      this.#pool.counters.fetchedBytes += fetched.encodedBytes
      this.#pool.counters.shareSeconds += fetched.shareSeconds
      const trouble = fetched.results.find((result) => 'error' in result && result.error.code === 'SHARE')
      if (trouble === undefined) return fetched
      this.#pool.counters.shareErrors++
      if (!(await askAgain(this.#pool, what, attempt))) return fetched
    }
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
