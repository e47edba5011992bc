/**
 * `prune`: old generations become tombstones, and chunks that no kept generation uses go.
 *
 *     lease -> tombstones -> references of all that stays -> unused chunks older than the grace: trash/
 *                         -> trash older than the grace: references are listed again -> deleted, or put back
 *                         -> chunks that are mostly garbage: the newest generation once more without them (compact.ts)
 *
 * Invariants:
 * 1. Only the holder of the lease prunes, so nobody publishes meanwhile; the lease is looked at again before each step
 *    that removes.
 * 2. What a pin names stays. A pin of a session whose lease was broken keeps every chunk that nobody refers to: that
 *    session may have sent them. So does a pin that came while its generation was buried. (Who makes a pin looks afterwards
 *    whether its generation is still there.)
 * 3. Nothing is removed from a VM whose generations cannot all be read: what is damaged may be what refers to a chunk. One
 *    that a person gives up becomes a tombstone like any other.
 * 4. A crash between any two steps leaves a VM in which everything that is kept is whole; the next prune goes on.
 * All times are the server's: those of files on the share, compared with the one that a new file gets.
 */
import { FailedError, IntegrityError, IsrfsError, LeaseHeldError, UsageError } from '../base/errors.js'
import { BLOCKS_PER_MAP_PAGE, CHUNK_BYTES_MAX } from '../base/units.js'
import { acquireImportLease, checkPromised, type ImportClient, referenceTo } from '../commit/import-lease.js'
import { chunkName } from '../format/chunk.js'
import {
  branchDirectory,
  bury,
  buryDamaged,
  generationName,
  listBranches,
  listGenerations,
  type PublishedGeneration,
  readNewestGeneration,
  recordOf,
  removeManifest
} from '../format/generations.js'
import { readTombstone } from '../format/tombstone.js'
import { beatLease, type GenerationReference, type HeldLease, leaseStillHeld, releaseLease } from '../share/lease.js'
import { type PinState, readPins } from '../share/pin.js'
import type { Share } from '../share/share.js'
import { ChunkUse } from './chunk-use.js'
import { compact, findSparse, isCompactedInto } from './compact.js'
import { describePin, type HeldBack, isInForce, pinsOfUnknownChunks } from './pins-in-force.js'
import {
  addPages,
  type LiveGeneration,
  type ObjectUses,
  type PageUse,
  readLive,
  readPage,
  rootsOf,
  type Unreadable
} from './references.js'

const BEAT_INTERVAL_MS = 5000
const TRASH = 'trash'
/** one full chunk */
const COMPACT_BYTES_MIN = CHUNK_BYTES_MAX
/** of what is copied, with maps and room for whoever else writes */
const SPACE_FACTOR = 2
const CHUNK_DIRECTORY_PATTERN = /^[0-9a-f]{2}$/
const CHUNK_PATTERN = /^[0-9a-f]{64}$/

export interface PruneOptions {
  readonly share: Share
  readonly client: ImportClient
  /** how many of the newest generations stay; at least 1 */
  readonly keep: number
  /** branches to remove */
  readonly branches: readonly string[]
  readonly graceMs: number
  /** false: only say what would go */
  readonly yes: boolean
  /** damaged generations and branches that a person gives up */
  readonly giveUp?: readonly string[]
  /** so much garbage in chunks that are mostly garbage is worth a compaction */
  readonly compactBytesMin?: number
}

/** What became, or would become, of chunks that are mostly garbage. */
export interface Compaction {
  /** undefined: none was made */
  readonly generation: number | undefined
  readonly chunks: number
  readonly garbageBytes: number
  readonly usedBytes: number
  readonly why: string | undefined
}

export interface Pruned {
  /** names of generations and branches that became (or would become) tombstones */
  readonly removed: readonly string[]
  /** kept although old, and why */
  readonly kept: readonly { readonly name: string; readonly why: string }[]
  readonly trashedChunks: number
  readonly trashedBytes: number
  readonly deletedChunks: number
  readonly deletedBytes: number
  /** unused chunks that stay for now: younger than the grace, or perhaps of a session that is not published */
  readonly waitingChunks: number
  /** while there is one, no chunk is removed and nothing is compacted */
  readonly heldBack: readonly HeldBack[]
  /** undefined: too little garbage to do anything about it */
  readonly compaction: Compaction | undefined
}

export function prune(options: PruneOptions): Pruned {
  const { share, client } = options
  const held = acquireImportLease(share, client)
  let newest = held.generation
  try {
    const read = readNewestGeneration(share)
    checkPromised(share, held, read)
    newest = referenceTo(read)
    const pruning = new Prune(options, held)
    try {
      return pruning.run(read)
    } finally {
      newest = pruning.compacted ?? newest
    }
  } finally {
    releaseLease(share, held, newest)
  }
}

class Prune {
  readonly #options: PruneOptions
  readonly #share: Share
  readonly #held: HeldLease
  #beats = 0
  #beatMs = Date.now()
  readonly #counts = { trashedChunks: 0, trashedBytes: 0, deletedChunks: 0, deletedBytes: 0, waitingChunks: 0 }

  constructor(options: PruneOptions, held: HeldLease) {
    this.#options = options
    this.#share = options.share
    this.#held = held
  }

  /** the newest generation, when this prune has made it */
  compacted: GenerationReference | undefined

  run(newest: PublishedGeneration): Pruned {
    const { yes } = this.#options
    const { live, givenUp } = this.#readAll(this.#options.giveUp)
    const { going, kept } = this.#choose(live, readPins(this.#share))
    if (yes) this.#bury(going, givenUp)
    const staying = live.filter((generation) => !going.includes(generation))
    const use = this.#references(staying)
    const heldBack = this.#heldBack(staying)
    const unknownUsers = heldBack.length > 0
    this.#sortChunks(use, unknownUsers)
    if (yes) this.#emptyTrash(unknownUsers)
    if (yes) this.#sweepTemporary()
    const compaction = unknownUsers ? undefined : this.#compact(newest, use)
    const removed = [...going, ...givenUp].map(({ name }) => name)
    return { removed, kept, ...this.#counts, heldBack, compaction }
  }

  #bury(going: readonly LiveGeneration[], givenUp: readonly Unreadable[]): void {
    for (const { name, published } of going) {
      this.#requireLease()
      bury(this.#share, directoryOf(name), recordOf(published))
    }
    for (const { name } of givenUp) {
      this.#requireLease()
      buryDamaged(this.#share, directoryOf(name), Number.parseInt(name, 10))
    }
    this.#finishBurials()
  }

  /** Invariant 2, with the pins as they are after the burials. */
  #heldBack(staying: readonly LiveGeneration[]): HeldBack[] {
    const numbers = new Set<number>(staying.map(({ published }) => published.number))
    return pinsOfUnknownChunks(this.#share, numbers, this.#options.graceMs)
  }

  /** Invariant 3. */
  #readAll(giveUp: readonly string[] = []): { readonly live: LiveGeneration[]; readonly givenUp: Unreadable[] } {
    const { root } = this.#share
    const { live, unreadable } = readLive(this.#share)
    const givenUp = unreadable.filter(({ name, isDamaged }) => isDamaged && giveUp.includes(name))
    const whole = giveUp.find((name) => !givenUp.some((each) => each.name === name))
    if (whole !== undefined) {
      throw new UsageError(`${whole} is no damaged generation of ${root}`, {
        hint: `isrfs check ${root} lists those that are; others go with --keep and --branch`
      })
    }
    const bad = unreadable.find((each) => !givenUp.includes(each))
    if (bad === undefined) return { live, givenUp }
    if (!bad.isDamaged) throw new FailedError(`nothing is removed: ${bad.why}`)
    throw new IntegrityError(`nothing is removed from a damaged VM: ${bad.why}`, {
      hint: `isrfs check ${root} lists what is damaged. Restore it from a backup of the share, or give it up, with all that it alone needs: isrfs prune ${root} --give-up ${bad.name}`
    })
  }

  /** Invariant 2. */
  #choose(
    live: readonly LiveGeneration[],
    pins: readonly PinState[]
  ): {
    readonly going: LiveGeneration[]
    readonly kept: { readonly name: string; readonly why: string }[]
  } {
    const { keep, branches } = this.#options
    const generations = live.filter(({ name }) => !name.includes('-'))
    const compacted = generations.filter((each) => generations.some((later) => isCompactedInto(each, later)))
    const others = generations.filter((each) => !compacted.includes(each))
    const old = [...compacted, ...others.slice(0, Math.max(0, others.length - Math.max(1, keep)))]
    const dropped = live.filter(({ name }) => name.includes('-') && branches.some((given) => name.startsWith(given)))
    const going: LiveGeneration[] = []
    const kept: { name: string; why: string }[] = []
    for (const generation of [...old, ...dropped]) {
      const { number } = generation.published
      const pin = pins.find((each) => each.generation === number && isInForce(this.#share, each, this.#options.graceMs))
      if (pin === undefined) going.push(generation)
      else kept.push({ name: generation.name, why: describePin(this.#share, pin) })
    }
    return { going, kept }
  }

  /** A prune that died between a tombstone and the removal of the manifest. */
  #finishBurials(): void {
    for (const name of [...listGenerations(this.#share).map(String), ...listBranches(this.#share)]) {
      const directory = directoryOf(name)
      if (readTombstone(this.#share, directory) === undefined) continue
      removeManifest(this.#share, directory)
    }
  }

  /** What these generations need of all chunks. Throws IntegrityError when that cannot be told. */
  #references(generations: readonly LiveGeneration[]): ChunkUse {
    const use = new ChunkUse()
    const pages = new Map<string, ObjectUses<PageUse>>()
    for (const root of rootsOf(generations).values()) {
      use.add(root.place)
      this.#understand(() => addPages(this.#share, root, pages))
      this.#beat()
    }
    for (const { place } of pages.values()) {
      use.add(place)
      const page = this.#understand(() => readPage(this.#share, place))
      for (let index = 0; index < BLOCKS_PER_MAP_PAGE; index++) {
        const block = page.place(index)
        if (block !== undefined) use.add(block)
      }
      this.#beat()
    }
    return use
  }

  #understand<Result>(read: () => Result): Result {
    try {
      return read()
    } catch (error) {
      if (!(error instanceof IntegrityError)) throw error
      throw new IntegrityError(`nothing is removed from a damaged VM: ${error.message}`, {
        hint: `isrfs check ${this.#share.root} lists what is damaged; isrfs check ${this.#share.root} --repair may put it back`,
        cause: error
      })
    }
  }

  #sortChunks(used: ChunkUse, unknownUsers: boolean): void {
    for (const directory of this.#share.list('chunks')) {
      if (!CHUNK_DIRECTORY_PATTERN.test(directory)) continue
      for (const chunk of this.#share.list(`chunks/${directory}`)) {
        if (!CHUNK_PATTERN.test(chunk) || used.has(chunk)) continue
        if (unknownUsers || !this.#isOlderThanGrace(chunkName(chunk))) this.#counts.waitingChunks++
        else this.#trash(chunk)
        this.#beat()
      }
    }
  }

  #trash(chunk: string): void {
    this.#counts.trashedChunks++
    this.#counts.trashedBytes += this.#share.size(chunkName(chunk)) ?? 0
    if (!this.#options.yes) return
    this.#requireLease()
    this.#share.touch(chunkName(chunk)) // the grace in the trash begins now
    this.#share.move(chunkName(chunk), `${TRASH}/${chunk}`)
  }

  /** References are listed again: what was kept when a chunk went to the trash need not be what is kept now. */
  #emptyTrash(unknownUsers: boolean): void {
    const trash = this.#share.list(TRASH).filter((name) => CHUNK_PATTERN.test(name))
    if (trash.length === 0) return
    const used = this.#references(this.#readAll().live)
    for (const chunk of trash) {
      this.#requireLease()
      const name = `${TRASH}/${chunk}`
      if (used.has(chunk)) {
        if (this.#share.size(chunkName(chunk)) === undefined) this.#share.move(name, chunkName(chunk))
      } else if (!unknownUsers && this.#isOlderThanGrace(name)) {
        this.#counts.deletedChunks++
        this.#counts.deletedBytes += this.#share.size(name) ?? 0
        this.#share.remove(name)
      }
    }
  }

  /** Where it fails, what has been pruned is pruned, and nothing is lost: the next prune tries again. */
  #compact(newest: PublishedGeneration, use: ChunkUse): Compaction | undefined {
    const { client, yes, compactBytesMin = COMPACT_BYTES_MIN } = this.#options
    const onStep = (): void => this.#beat()
    const sparse = findSparse(this.#share, use, newest, onStep)
    if (sparse.garbageBytes < compactBytesMin || sparse.chunks.size === 0) return undefined
    const { garbageBytes, usedBytes } = sparse
    const found = { generation: undefined, chunks: sparse.chunks.size, garbageBytes, usedBytes, why: undefined }
    if (!yes) return found
    const freeBytes = this.#share.freeBytes()
    // 0 is what file systems say that do not know
    if (freeBytes !== 0 && freeBytes < usedBytes * SPACE_FACTOR) return { ...found, why: 'the share is too full' }
    try {
      const beforePublish = (): void => this.#requireLease()
      const published = compact({ share: this.#share, newest, sparse, client, onStep, beforePublish })
      this.compacted = referenceTo(published)
      return { ...found, generation: published.number }
    } catch (error) {
      if (error instanceof IsrfsError) return { ...found, why: error.message }
      throw error
    }
  }

  /** Nothing in tmp/ is ever read as data. What is younger may belong to somebody who is writing now. */
  #sweepTemporary(): void {
    for (const name of this.#share.list('tmp')) {
      if (this.#isOlderThanGrace(`tmp/${name}`)) this.#share.removeQuietly(`tmp/${name}`)
    }
  }

  #isOlderThanGrace(name: string): boolean {
    const modifiedMs = this.#share.modifiedMs(name)
    return modifiedMs !== undefined && this.#share.serverNowMs() - modifiedMs >= this.#options.graceMs
  }

  /** Invariant 1. */
  #requireLease(): void {
    if (leaseStillHeld(this.#share, this.#held)) return
    throw new LeaseHeldError(`the lease of ${this.#share.root} was taken by somebody else during the prune`, {
      hint: 'what is left is whole; repeat the prune later'
    })
  }

  #beat(): void {
    if (Date.now() - this.#beatMs < BEAT_INTERVAL_MS) return
    this.#beatMs = Date.now()
    beatLease(this.#share, this.#held, ++this.#beats)
  }
}

function directoryOf(name: string): string {
  return name.includes('-') ? branchDirectory(name) : generationName(Number(name))
}
