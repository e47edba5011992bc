/**
 * Lookaside: blocks that another cache of this client holds are copied from there instead of fetched, when the share is slow. Those
 * of the same VM (other slots, other places) and of other VMs beside it on the share that belong to the same people
 * (fetch/sibling.ts).
 *
 * What it says is a guess: who reads the block compares its digest, and fetches it when it is not that. The index is made once for a mount,
 * in the background, as soon as the share has shown that it is slow; nobody waits for it, and local files are all that it takes,
 * but for one look at each other VM's vm.json.
 */
import fs from 'node:fs'
import path from 'node:path'
import { BLOCK_BYTES, BLOCKS_PER_REGION } from '../base/units.js'
import { DigestIndex } from '../cache/digest-index.js'
import { readOrigin } from '../cache/origin.js'
import { digestAt, isNoDigest, readFooterLater } from '../cache/region-file.js'
import type { SharePool } from '../fetch/share-pool.js'
import type { LocalCandidate } from '../fetch/share-tasks.js'

/**
 * Bytes of blocks a second that one worker gets from the share: 0.65 ms for a block. Reading one from another file of the client's disk takes 0.2
 * to 0.3 ms, its digest included, and writing it to the own cache costs the same in both ways.
 */
export const SLOW_BYTES_PER_SECOND = 200e6
/** blocks that tell how fast the share is; the answer holds until as many more have come */
const TELLING_BLOCKS = 32
/** region files that are looked into: 64 GiB of blocks. The index takes 8 MiB then. */
const FILES_MAX = 4096
const INDEX_SLOTS = 2 * FILES_MAX * BLOCKS_PER_REGION
const VMS_MAX = 64

export interface LookasideParts {
  readonly pool: SharePool
  /** the slot that this mount owns: <cache directory>/<vm id>/<slot> */
  readonly slot: string
  readonly isStopped: () => boolean
  /** a share that is faster is asked itself */
  readonly slowBytesPerSecond?: number | undefined
}

export class Lookaside {
  readonly #parts: LookasideParts
  readonly #files: string[] = []
  #index: DigestIndex | undefined
  #filled: Promise<void> = Promise.resolve()
  #isSlow = false
  #asOf = { blocks: 0, seconds: 0 }

  constructor(parts: LookasideParts) {
    this.#parts = parts
  }

  /** Settles when everything that there was has been looked into. For tests. */
  get filled(): Promise<void> {
    return this.#filled
  }

  /** Where the block may be found on this client. */
  candidate(digest: Buffer): LocalCandidate | undefined {
    if (!this.#pays()) return undefined
    if (this.#index === undefined) {
      this.#index = new DigestIndex(INDEX_SLOTS)
      this.#filled = this.#fill(this.#index).catch(() => undefined) // what was found counts
    }
    const location = this.#index.find(digest)
    if (location === undefined) return undefined
    const file = this.#files[Math.floor((location - 1) / BLOCKS_PER_REGION)]
    if (file === undefined) return undefined
    return { path: file, offset: ((location - 1) % BLOCKS_PER_REGION) * BLOCK_BYTES, isElsewhere: true }
  }

  /** Whether the share was slow lately; not known is no. */
  #pays(): boolean {
    const { fetchedBlocks: blocks, shareSeconds: seconds } = this.#parts.pool.counters
    if (blocks - this.#asOf.blocks >= TELLING_BLOCKS) {
      const bytesPerSecond = ((blocks - this.#asOf.blocks) * BLOCK_BYTES) / (seconds - this.#asOf.seconds)
      this.#isSlow = bytesPerSecond < (this.#parts.slowBytesPerSecond ?? SLOW_BYTES_PER_SECOND)
      this.#asOf = { blocks, seconds }
    }
    return this.#isSlow
  }

  async #fill(index: DigestIndex): Promise<void> {
    for await (const slot of this.#slots()) {
      for (const name of await namesIn(slot)) {
        if (this.#files.length >= FILES_MAX || this.#parts.isStopped()) return
        if (/^\d+-\d+$/.test(name)) await this.#addRegion(index, path.join(slot, name))
      }
    }
  }

  /** The most telling first: the same VM as other mounts have it, other VMs, the same VM at other places. */
  async *#slots(): AsyncGenerator<string> {
    const { slot, pool } = this.#parts
    const own = path.dirname(slot)
    for (const other of await slotsIn(own)) if (other !== slot) yield other
    const vms = (await namesIn(path.dirname(own))).filter((vm) => vm !== path.basename(own))
    let asked = 0
    for (const vm of vms) {
      const ids = new Map<string, string | undefined>()
      for (const other of await slotsIn(path.join(path.dirname(own), vm))) {
        const origin = await readOrigin(other)
        if (origin === undefined || path.dirname(origin) !== path.dirname(pool.vmPath)) continue
        const name = path.basename(origin)
        if (!ids.has(name) && asked++ < VMS_MAX) ids.set(name, await this.#idOf(name))
        if (ids.get(name) === vm) yield other
      }
    }
    yield slot
  }

  #idOf(name: string): Promise<string | undefined> {
    const what = 'whether another VM is on the share'
    return this.#parts.pool.run('idOfSibling', { name }, { priority: 'readahead', what })
  }

  async #addRegion(index: DigestIndex, file: string): Promise<void> {
    const digests = await readFooterLater(file).catch(() => undefined) // a mount may be evicting it
    if (digests === undefined) return
    const first = this.#files.push(file) * BLOCKS_PER_REGION - BLOCKS_PER_REGION + 1
    for (let block = 0; block < BLOCKS_PER_REGION; block++) {
      const digest = digestAt(digests, block)
      if (!isNoDigest(digest)) index.add(digest, first + block)
    }
  }
}

async function slotsIn(directory: string): Promise<string[]> {
  return (await namesIn(directory)).filter((name) => /^\d+$/.test(name)).map((name) => path.join(directory, name))
}

async function namesIn(directory: string): Promise<string[]> {
  return fs.promises.readdir(directory).catch(() => [])
}
