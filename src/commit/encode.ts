/**
 * One unit of a commit or an import: up to 128 blocks are put together from where their bytes lie, compared with
 * their base, and what is new travels as one chunk. Runs in a worker thread; every call blocks.
 *
 * Invariants:
 * 1. A place is returned only for bytes that are durable on the share, in this VM's directory: not in one that has its path on the
 *    local disk while the share is not mounted (Share, invariant 4).
 * 2. Bytes of the base count only after their digest was checked, wherever they were read.
 * 3. A zero block, a block equal to its base and a block that is on the share already send nothing.
 */
import assert from 'node:assert/strict'
import { sha256 } from '../base/digest.js'
import { BLOCK_BYTES, BLOCKS_PER_REGION } from '../base/units.js'
import { type Compression, COMPRESSION_LEVEL_DEFAULT, encodeBlock, isZeroBlock } from '../format/block-codec.js'
import { ChunkBuilder, chunkName } from '../format/chunk.js'
import type { BlockPlace } from '../format/place.js'
import { landBlock, type Landing } from '../cache/landing.js'
import type { Share } from '../share/share.js'
import type { UnitTimes } from './compression-choice.js'
import { assembleBlock, type BlockSource } from './encode-source.js'
import { OpenFiles } from './encode-files.js'

export type { BlockSource, FilePart } from './encode-source.js'

/** most blocks of one unit: raw, they fill a chunk */
export const UNIT_BLOCKS_MAX = BLOCKS_PER_REGION

/** Places from an earlier try, by digest in hexadecimal; one counts only while its chunk is there. */
export type KnownPlaces = ReadonlyMap<string, BlockPlace> | readonly (readonly [string, BlockPlace])[]

export interface EncodeInput {
  readonly blocks: readonly BlockSource[]
  /** digest of the block in the previous generation, by position; for sources that do not carry their base */
  readonly baseDigests?: readonly (Uint8Array | undefined)[]
  readonly known?: KnownPlaces
  /** level 1 unless given: whoever wants the same chunks from the same blocks again leaves it at that */
  readonly compression?: Compression
}

/**
 * What became of a block. 'same' is for blocks that the previous generation's map shows already: nothing about them
 * changes. 'zero' has no bytes anywhere.
 */
export type BlockResult =
  { readonly state: 'zero' } | { readonly state: 'same' } | { readonly state: 'placed'; readonly place: BlockPlace }

export interface EncodeOutput {
  /** by position of the block in the input */
  readonly results: readonly BlockResult[]
  /** bytes that went to the share; chunks that were there already are not sent */
  readonly sentBytes: number
  readonly times: UnitTimes
}

/** Encodes a unit and makes its chunk durable. */
export function encodeUnit(share: Share, input: EncodeInput): EncodeOutput {
  assert(input.blocks.length <= UNIT_BLOCKS_MAX, 'a unit has more blocks than a chunk can hold')
  const compression = input.compression ?? COMPRESSION_LEVEL_DEFAULT
  const startedMs = nowMs()
  let compressMs = 0
  const known: ReadonlyMap<string, BlockPlace> = input.known instanceof Map ? input.known : new Map(input.known)
  const results: (BlockResult | undefined)[] = []
  const builder = new ChunkBuilder()
  const pieces = new Map<string, { piece: number; place: (chunk: string, offset: number) => BlockPlace }>()
  const inChunk: { index: number; digest: string }[] = []
  const files = new OpenFiles()
  try {
    for (const [index, source] of input.blocks.entries()) {
      const plain = assembleBlock(share, source, files)
      const early = withoutSending(share, plain, source, input.baseDigests?.[index], known)
      results.push(early.result)
      if (early.result !== undefined) continue
      inChunk.push({ index, digest: early.digestHex })
      if (pieces.has(early.digestHex)) continue // the same bytes twice in one unit
      const compressStartedMs = nowMs()
      const encoded = encodeBlock(plain, compression)
      compressMs += nowMs() - compressStartedMs
      const digest = early.digest
      const place = (chunk: string, offset: number): BlockPlace => ({
        encoding: encoded.encoding,
        chunk,
        offset,
        storedBytes: encoded.bytes.length,
        digest
      })
      pieces.set(early.digestHex, { piece: builder.add(encoded), place })
    }
  } finally {
    files.close()
  }
  const sendStartedMs = nowMs()
  const written = pieces.size === 0 ? undefined : builder.write(share)
  share.requireVm() // places that are taken from earlier tries are this VM's, too
  for (const { index, digest } of inChunk) {
    const entry = pieces.get(digest)
    const offset = written?.offsets[entry?.piece ?? -1]
    assert(written !== undefined && entry !== undefined && offset !== undefined, 'a block of the unit is in no chunk')
    results[index] = { state: 'placed', place: entry.place(written.chunk, offset) }
  }
  const sentBytes = written?.sentBytes ?? 0
  const plainBytes = sentBytes === 0 ? 0 : pieces.size * BLOCK_BYTES
  const times = {
    compression,
    startedMs,
    compressMs,
    sendStartedMs,
    endedMs: nowMs(),
    plainBytes,
    storedBytes: sentBytes
  }
  return { results: results.map(present), sentBytes, times }
}

/** performance.now() begins anew in each thread. */
function nowMs(): number {
  return Number(process.hrtime.bigint()) / 1e6
}

/** A block that was published, for the cache. */
export interface KeptBlock {
  readonly source: BlockSource
  readonly landing: Landing
}

/**
 * Puts blocks together once more and writes them into the cache, unverified: whoever reads them compares. Returns for each the bytes that it
 * has taken there; undefined: it is not there.
 */
export function keepUnit(share: Share, blocks: readonly KeptBlock[]): (number | undefined)[] {
  const files = new OpenFiles()
  try {
    return blocks.map(({ source, landing }) => landBlock(landing, assembleBlock(share, source, files)))
  } finally {
    files.close()
  }
}

interface Early {
  readonly result: BlockResult | undefined
  readonly digest: Buffer
  readonly digestHex: string
}

/** Invariant 3: a result for a block that needs no transfer, undefined for one that does. */
function withoutSending(
  share: Share,
  plain: Buffer,
  source: BlockSource,
  baseDigest: Uint8Array | undefined,
  known: ReadonlyMap<string, BlockPlace>
): Early {
  const base = source.kind === 'layers' ? source.base : undefined
  if (isZeroBlock(plain)) {
    const wasZero = source.kind === 'layers' && base === undefined && !source.baseIsNew
    return { result: { state: wasZero ? 'same' : 'zero' }, digest: EMPTY, digestHex: '' }
  }
  const digest = sha256(plain)
  const digestHex = digest.toString('hex')
  const found = (result: BlockResult | undefined): Early => ({ result, digest, digestHex })
  if (baseDigest !== undefined && digest.equals(baseDigest)) return found({ state: 'same' })
  if (source.kind === 'layers' && base !== undefined && digest.equals(base.digest)) {
    // Written again above a truncate, the block is not in what the new map takes over from the old one: it needs its
    // place, though no transfer.
    const isSame = source.baseBytesMax > 0 && !source.baseIsNew
    return found(isSame ? { state: 'same' } : { state: 'placed', place: { ...base, digest } })
  }
  const earlier = known.get(digestHex)
  if (earlier !== undefined && stillThere(share, earlier)) {
    return found({ state: 'placed', place: { ...earlier, digest } })
  }
  return found(undefined)
}

const EMPTY = Buffer.alloc(0)

/**
 * Whether an earlier try's chunk can be reused. It is re-dated, so that prune's grace period starts anew; one that
 * cannot be looked at or re-dated (it belongs to somebody else) is not reused, and its blocks are sent again.
 */
function stillThere(share: Share, place: BlockPlace): boolean {
  const name = chunkName(place.chunk)
  try {
    if ((share.size(name) ?? 0) < place.offset + place.storedBytes) return false
    share.touch(name)
    return true
  } catch {
    return false
  }
}

function present(result: BlockResult | undefined): BlockResult {
  assert(result !== undefined, 'a block of the unit has no result')
  return result
}
