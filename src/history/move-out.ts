/**
 * `check --repair`, when damaged or missing chunks cannot be put back as they were: what this client's cache has of
 * them is written into new chunks, and a generation with the same content as the newest one names those.
 *
 *     lease -> newest generation -> what is damaged of its blocks and maps, from the cache
 *           -> published as a compaction is (compact.ts)
 *
 * Manifests never change, so older generations go on needing the damaged chunks. What is intact in a damaged chunk stays
 * there, and so does what this client does not have: a later repair by another client may bring it.
 */
import { IsrfsError, LeaseHeldError } from '../base/errors.js'
import type { CachedBytes } from '../cache/find-cached.js'
import { acquireImportLease, checkPromised, type ImportClient, referenceTo } from '../commit/import-lease.js'
import { decodeBlock, decodeObject, encodeBlock } from '../format/block-codec.js'
import { decodeMapRoot, MapPage } from '../format/block-map.js'
import { readStored } from '../format/chunk.js'
import { type PublishedGeneration, readNewestGeneration } from '../format/generations.js'
import { beatLease, type HeldLease, leaseStillHeld, releaseLease } from '../share/lease.js'
import type { Share } from '../share/share.js'
import { moveOut, type Origin } from './compact.js'
import { readOrCached } from './repair.js'

const BEAT_INTERVAL_MS = 5000
/** places of moved blocks are in memory; what is left is done by the next generation */
const MOVED_BLOCKS_MAX = 131_072

export interface MovingOut {
  readonly share: Share
  /** names of chunks that cannot be put back */
  readonly chunks: ReadonlySet<string>
  readonly cached: CachedBytes
  readonly client: ImportClient
}

/** The new generation, or why there is none. What the newest one needs is all that is moved. */
export function moveOutOfDamaged(options: MovingOut): PublishedGeneration | { readonly why: string } {
  const { share, client } = options
  try {
    const held = acquireImportLease(share, client)
    let newest = held.generation
    try {
      const read = readNewestGeneration(share)
      checkPromised(share, held, read)
      newest = referenceTo(read)
      const published = publish(options, held, read)
      if (published === undefined) return { why: 'this client has nothing of what is damaged in the newest generation' }
      newest = referenceTo(published)
      return published
    } finally {
      releaseLease(share, held, newest)
    }
  } catch (error) {
    if (error instanceof IsrfsError) return { why: [error.message, error.hint].filter(Boolean).join('; ') }
    throw error
  }
}

function publish(
  { share, chunks, cached, client }: MovingOut,
  held: HeldLease,
  newest: PublishedGeneration
): PublishedGeneration | undefined {
  let beats = 0
  let beatMs = Date.now()
  const onStep = (): void => {
    if (Date.now() - beatMs < BEAT_INTERVAL_MS) return
    beatMs = Date.now()
    beatLease(share, held, ++beats)
  }
  const beforePublish = (): void => {
    if (leaseStillHeld(share, held)) return
    throw new LeaseHeldError(`the lease of ${share.root} was taken by somebody else during the repair`)
  }
  const origin = originOf(share, cached)
  return moveOut({ share, newest, sparse: { chunks }, origin, client, onStep, beforePublish })
}

/** What is intact stays where it is: only what this client can mend is a reason for another generation. */
function originOf(share: Share, cached: CachedBytes): Origin {
  let blocks = 0
  return {
    root: (place) => {
      const bytes = readOrCached(share, place, cached)
      return bytes && decodeMapRoot(bytes)
    },
    page: (place) => {
      const bytes = readOrCached(share, place, cached)
      return bytes && new MapPage(bytes)
    },
    mayStay: (place) => isIntact(() => decodeObject(readStored(share, place), place)),
    block: (place) => {
      if (blocks === MOVED_BLOCKS_MAX || isIntact(() => decodeBlock(readStored(share, place), place))) return undefined
      const plain = cached.block(place.digest.toString('hex'))
      if (plain === undefined) return undefined
      blocks++
      return encodeBlock(plain)
    }
  }
}

function isIntact(read: () => Buffer): boolean {
  try {
    read()
    return true
  } catch (error) {
    if (error instanceof IsrfsError) return false
    throw error
  }
}
