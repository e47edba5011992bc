/**
 * What of a running session is on the share already, block by block, and the session's state at one instant.
 *
 * A block counts as sent while nothing of it has changed since its bytes were copied: no write (by the epochs of
 * session/change-ticks.ts), and none of what decides where its bytes come from - pages of the session, holes, the end of
 * the base, an upload that took its place.
 *
 * Invariants:
 * 1. Everything here is synchronous and on the thread that owns the session: no request is carried out in the middle of
 *    it, so a copy is of one instant, between two requests. What reads it later needs the session no more.
 * 2. The base of a session never changes; the bytes of a block below the session's pages may be read at any later time.
 */
import { BLOCK_BYTES, BLOCKS_PER_REGION, PAGE_BYTES, REGION_BYTES } from '../base/units.js'
import type { ManifestEntry } from '../format/manifest.js'
import type { BlockPlace } from '../format/place.js'
import type { Inode, UploadedBlock } from '../session/namespace-types.js'
import type { Session } from '../session/session.js'
import {
  bytesBelow,
  contentMayDiffer,
  type DirtyBlock,
  describeBlock,
  dirtyBlockNumbers,
  firstDroppedBlock,
  isSentAlready
} from './dirty.js'
import type { BlockResult } from './encode.js'
import { manifestEntries } from './manifest-of.js'
import { isStaleLock } from './stale-locks.js'

/** A block of a file, as it is now. */
export interface PendingBlock {
  readonly inode: Inode
  readonly block: number
}

/** What decides where a block's bytes come from. A block of a region is one word of page bits. */
interface Origin {
  readonly valid: number
  readonly punched: number
  readonly baseBytes: number
  readonly uploaded: UploadedBlock | undefined
}

interface SentBlock extends Origin {
  /** began before the bytes were copied; a change has this epoch or a later one */
  readonly epoch: number
  readonly result: BlockResult
}

/** A block with the bytes of its session's pages. */
export interface StagedBlock {
  readonly dirty: DirtyBlock
  readonly bytes: Uint8Array
  readonly epoch: number
  readonly origin: Origin
}

/** One file whose content may differ from the base's, at the instant. */
export interface FrozenFile {
  readonly inode: Inode
  readonly firstDroppedBlock: number
  readonly results: Map<number, BlockResult>
}

/** The session at one instant. */
export interface Frozen {
  readonly files: readonly FrozenFile[]
  /** of the blocks that were not sent */
  readonly staged: readonly StagedBlock[]
  /** with the maps of the base; without the locks of a VMM that runs */
  readonly entries: readonly ManifestEntry[]
  /** with them */
  readonly entriesWithLocks: readonly ManifestEntry[]
  readonly nextInode: number
}

export class SentBlocks {
  readonly #session: Session
  readonly #files = new Map<Inode, Map<number, SentBlock>>()

  constructor(session: Session) {
    this.#session = session
  }

  /** Whether the share has the block as it is now; of what reader threads write this moment nothing is known. */
  isSent(inode: Inode, block: number): boolean {
    return this.#resultOf(inode, block) !== undefined
  }

  /** Blocks that may differ from the base and are not on the share as they are. */
  pending(): PendingBlock[] {
    const { namespace } = this.#session
    this.#session.beginEpoch() // what reader threads have written counts as changed, and they write no more in this step
    for (const inode of this.#files.keys()) if (namespace.get(inode.id) !== inode) this.#files.delete(inode)
    const found: PendingBlock[] = []
    for (const inode of changedFiles(this.#session)) {
      for (const block of dirtyBlockNumbers(inode)) {
        if (this.#resultOf(inode, block) === undefined) found.push({ inode, block })
      }
    }
    return found
  }

  /** Copies what the session has of these blocks; those that are gone meanwhile, or uploaded whole, are left out. */
  stage(blocks: readonly PendingBlock[]): StagedBlock[] {
    const epoch = this.#session.beginEpoch()
    const memory = new SharedArrayBuffer(blocks.length * BLOCK_BYTES)
    const staged: StagedBlock[] = []
    for (const { inode, block } of blocks) {
      if (this.#session.namespace.get(inode.id) !== inode || block * BLOCK_BYTES >= inode.sizeBytes) continue
      const dirty = describeBlock(inode, block)
      const origin = originOf(inode, block)
      if (isSentAlready(dirty)) {
        const place = dirty.uploaded?.place
        const result: BlockResult = place === undefined ? { state: 'zero' } : { state: 'placed', place }
        this.#ofFile(inode).set(block, { ...origin, epoch, result })
        continue
      }
      const bytes = new Uint8Array(memory, staged.length * BLOCK_BYTES, BLOCK_BYTES)
      this.#copy(dirty, bytes)
      staged.push({ dirty, bytes, epoch, origin })
    }
    return staged
  }

  /** The block was sent as it was staged. Returns the digest of bytes that it does not have any more. */
  note({ dirty: { inode, block }, epoch, origin }: StagedBlock, result: BlockResult): string | undefined {
    const sent = this.#ofFile(inode)
    const before = digestOf(sent.get(block)?.result)
    sent.set(block, { ...origin, epoch, result })
    return before === digestOf(result) ? undefined : before
  }

  /** After an error nobody knows what is still there: everything is looked at anew. */
  forget(): void {
    this.#files.clear()
  }

  /** The session as it is now; undefined when more than `blocksMax` blocks would have to be copied for it. */
  freeze(blocksMax: number): Frozen | undefined {
    const pending = this.pending()
    if (pending.length > blocksMax) return undefined
    const { namespace } = this.#session
    const staged = this.stage(pending)
    const files = [...changedFiles(this.#session)].map((inode): FrozenFile => {
      const results = new Map<number, BlockResult>()
      for (const block of dirtyBlockNumbers(inode)) {
        const result = this.#resultOf(inode, block)
        if (result !== undefined) results.set(block, result) // else it is staged
      }
      return { inode, firstDroppedBlock: firstDroppedBlock(inode), results }
    })
    const isLock = (name: string, inode: Inode): boolean => isStaleLock(namespace, name, inode)
    return {
      files,
      staged,
      entries: manifestEntries(namespace, new Map(), isLock),
      entriesWithLocks: manifestEntries(namespace, new Map()),
      nextInode: namespace.nextInode
    }
  }

  /** What was sent of the block, while it still is what the block is. */
  #resultOf(inode: Inode, block: number): BlockResult | undefined {
    const sent = this.#files.get(inode)?.get(block)
    if (sent === undefined) return undefined
    const region = Math.floor(block / BLOCKS_PER_REGION)
    if (this.#session.changeEpoch(inode.id, region, block % BLOCKS_PER_REGION) >= sent.epoch) return undefined
    const { valid, punched, baseBytes, uploaded } = originOf(inode, block)
    const isSame =
      valid === sent.valid && punched === sent.punched && baseBytes === sent.baseBytes && uploaded === sent.uploaded
    return isSame ? sent.result : undefined
  }

  /** Neighbouring pages are one read. Bytes past the end of the file are zeros, on the disk or not at all. */
  #copy({ inode, block, valid }: DirtyBlock, into: Uint8Array): void {
    for (let index = 0; index < valid.length;) {
      const first = valid[index] ?? 0
      let count = 1
      while (valid[index + count] === first + count) count++
      const start = first * PAGE_BYTES
      const end = Math.min(start + count * PAGE_BYTES, inode.sizeBytes - block * BLOCK_BYTES)
      if (end > start) this.#session.read(inode, into.subarray(start, end), block * BLOCK_BYTES + start)
      index += count
    }
  }

  #ofFile(inode: Inode): Map<number, SentBlock> {
    let sent = this.#files.get(inode)
    if (sent === undefined) this.#files.set(inode, (sent = new Map<number, SentBlock>()))
    return sent
  }
}

function* changedFiles({ namespace }: Session): Generator<Inode> {
  for (const inode of namespace.inodes()) {
    if (inode.type === 'file' && inode.parent !== 0 && contentMayDiffer(inode)) yield inode
  }
}

function originOf(inode: Inode, block: number): Origin {
  const pages = inode.regions.get(Math.floor((block * BLOCK_BYTES) / REGION_BYTES))
  const word = block % BLOCKS_PER_REGION
  return {
    valid: pages?.valid[word] ?? 0,
    punched: pages?.punched?.[word] ?? 0,
    baseBytes: bytesBelow(inode, block),
    uploaded: inode.uploaded.get(block)
  }
}

function digestOf(result: BlockResult | undefined): string | undefined {
  return result?.state === 'placed' ? result.place.digest.toString('hex') : undefined
}

/** The places of what was sent. */
export function placesOf(results: Iterable<BlockResult>): BlockPlace[] {
  return [...results].flatMap((result) => (result.state === 'placed' ? [result.place] : []))
}
