/**
 * `prune`: old generations become tombstones, and chunks that no kept generation uses go.
 *
 *     lease -> tombstones -> references of all that stays -> unused chunks older than the grace: trash/
 *                         -> trash older than the grace: references are listed again -> deleted, or put back
 *
 * Invariants:
 * 1. Only the holder of the lease prunes, so nobody publishes meanwhile; the lease is looked at again before each step
 *    that removes.
 * 2. What a pin names stays. A pin of a session whose lease was broken keeps every chunk that nobody refers to: that
 *    session may have sent them.
 * 3. Nothing is removed from a VM whose generations cannot all be read: what is damaged may be what refers to a chunk.
 * 4. A crash between any two steps leaves a VM in which everything that is kept is whole; the next prune goes on.
 * All times are the server's: those of files on the share, compared with the one that a new file gets.
 */
import { IntegrityError, LeaseHeldError } from '../base/errors.js'
import { BLOCKS_PER_MAP_PAGE } from '../base/units.js'
import { acquireImportLease, checkPromised, type ImportClient, referenceTo } from '../commit/import-lease.js'
import { chunkName } from '../format/chunk.js'
import { branchDirectory, bury, generationName, readNewestGeneration, recordOf } from '../format/generations.js'
import { beatLease, type HeldLease, leaseStillHeld, releaseLease } from '../share/lease.js'
import { type PinState, readPins } from '../share/pin.js'
import type { Share } from '../share/share.js'
import {
  addPages,
  type LiveGeneration,
  type ObjectUses,
  type PageUse,
  readLive,
  readPage,
  rootsOf
} from './references.js'

const BEAT_INTERVAL_MS = 5000
const TRASH = 'trash'
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
}

export function prune(options: PruneOptions): Pruned {
  const { share, client } = options
  const held = acquireImportLease(share, client)
  let newest = held.generation
  try {
    const read = readNewestGeneration(share)
    checkPromised(share, held, read)
    newest = referenceTo(read)
    return new Prune(options, held).run()
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

  run(): Pruned {
    const { yes } = this.#options
    const live = this.#readAll()
    const pins = readPins(this.#share)
    const { going, kept } = this.#choose(live, pins)
    if (yes) {
      for (const { name, published } of going) {
        this.#requireLease()
        bury(this.#share, directoryOf(name), recordOf(published))
      }
      this.#finishBurials()
    }
    const staying = live.filter((generation) => !going.includes(generation))
    const used = this.#references(staying)
    const unknownUsers = pins.some(({ isOfSession }) => isOfSession)
    this.#sortChunks(used, unknownUsers)
    if (yes) this.#emptyTrash(unknownUsers)
    if (yes) this.#sweepTemporary()
    return { removed: going.map(({ name }) => name), kept, ...this.#counts }
  }

  /** Invariant 3. */
  #readAll(): LiveGeneration[] {
    const { live, unreadable } = readLive(this.#share)
    const [bad] = unreadable
    if (bad === undefined) return live
    throw new IntegrityError(`nothing is removed from a damaged VM: ${bad.why}`, {
      hint: `isrfs check ${this.#share.root} lists what is damaged`
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
    const old = generations.slice(0, Math.max(0, generations.length - Math.max(1, keep)))
    const dropped = live.filter(({ name }) => name.includes('-') && branches.some((given) => name.startsWith(given)))
    const going: LiveGeneration[] = []
    const kept: { name: string; why: string }[] = []
    for (const generation of [...old, ...dropped]) {
      const pin = pins.find((each) => each.generation === generation.published.number && this.#isInForce(each))
      if (pin === undefined) going.push(generation)
      else kept.push({ name: generation.name, why: describePin(this.#share, pin) })
    }
    return { going, kept }
  }

  /** The pin of a mount that has not beaten for longer than the grace is of a mount that died. */
  #isInForce(pin: PinState): boolean {
    if (pin.isOfSession) return true
    const modifiedMs = this.#share.modifiedMs(`${pin.name}/beat.json`) ?? this.#share.modifiedMs(pin.name)
    return modifiedMs !== undefined && this.#share.serverNowMs() - modifiedMs < this.#options.graceMs
  }

  /** A prune that died between a tombstone and the removal of the manifest. */
  #finishBurials(): void {
    for (const name of this.#share.list('generations')) {
      const directory = `generations/${name}`
      if (!this.#share.list(directory).includes('tombstone.json')) continue
      for (const file of ['manifest.json', 'manifest.sha256']) this.#share.remove(`${directory}/${file}`)
    }
  }

  /** Names of all chunks that these generations need. Throws IntegrityError when that cannot be told. */
  #references(generations: readonly LiveGeneration[]): Set<string> {
    const used = new Set<string>()
    const pages = new Map<string, ObjectUses<PageUse>>()
    for (const root of rootsOf(generations).values()) {
      used.add(root.place.chunk)
      addPages(this.#share, root, pages)
      this.#beat()
    }
    for (const { place } of pages.values()) {
      used.add(place.chunk)
      const page = readPage(this.#share, place)
      for (let index = 0; index < BLOCKS_PER_MAP_PAGE; index++) {
        const block = page.place(index)
        if (block !== undefined) used.add(block.chunk)
      }
      this.#beat()
    }
    return used
  }

  #sortChunks(used: ReadonlySet<string>, unknownUsers: boolean): void {
    for (const directory of this.#share.list('chunks')) {
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
    const used = this.#references(this.#readAll())
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

function describePin(share: Share, { name, holder, taken, isOfSession }: PinState): string {
  const what = isOfSession
    ? `changes of ${holder.host} that are not published yet, made under a lease that was broken`
    : `in use by ${holder.host}, ${holder.mountpoint}`
  return `${what}, since ${taken}; when that client is gone for good, remove ${share.pathOf(name)}`
}
