/**
 * `check --repair`: puts damaged or missing chunks back from blocks that this client has in its cache.
 *
 *     references of all generations -> pieces of each bad chunk -> the good ones as they are, the others encoded anew from
 *     the cache -> SHA-256 of the whole is the chunk's name: written, else nothing
 *
 * A chunk's name is the digest of its bytes, so a repair is right or it is not made; encoding is deterministic, but a
 * chunk that another version of the encoder has written may not come out the same. The blocks of a chunk have one level of
 * compression, which nobody has written down, or several, after a compaction: each is tried.
 */
import { sha256Hex } from '../base/digest.js'
import { errnoOf, IntegrityError } from '../base/errors.js'
import { BLOCKS_PER_MAP_PAGE } from '../base/units.js'
import type { CachedBytes } from '../cache/find-cached.js'
import { decodeMapRoot, MapPage } from '../format/block-map.js'
import {
  type Compression,
  COMPRESSION_LEVELS,
  decodeBlock,
  decodeObject,
  encodeBlock,
  encodeObject
} from '../format/block-codec.js'
import { chunkName, readStored } from '../format/chunk.js'
import type { BlockPlace, ObjectPlace } from '../format/place.js'
import type { Share } from '../share/share.js'
import { readLive, rootsOf } from './references.js'

/** Bytes of a chunk that some generation needs. */
interface Piece {
  readonly offset: number
  readonly storedBytes: number
  /** throws when the stored bytes are not these */
  readonly verify: (stored: Buffer) => void
  /** what the stored bytes may be, by how they were compressed: those of the right length; none when this client does not have them */
  readonly encode: () => ReadonlyMap<Compression, Buffer>
}

export interface Repaired {
  /** paths of chunks that are whole again */
  readonly repaired: readonly string[]
  readonly failed: readonly { readonly path: string; readonly why: string }[]
}

/** `badPaths` are paths of objects on the share, as a check has listed them. */
export function repairChunks(share: Share, badPaths: readonly string[], cached: CachedBytes): Repaired {
  const pieces = piecesOfChunks(share, cached)
  const repaired: string[] = []
  const failed: { path: string; why: string }[] = []
  for (const path of badPaths) {
    const chunk = path.split('/').at(-1) ?? ''
    if (path !== share.pathOf(chunkName(chunk))) {
      failed.push({ path, why: 'only chunks can be put back from a cache' })
      continue
    }
    const why = repairChunk(share, chunk, [...(pieces.get(chunk)?.values() ?? [])])
    if (why === undefined) repaired.push(path)
    else failed.push({ path, why })
  }
  return { repaired, failed }
}

/** Why the chunk cannot be put back; undefined when it was. */
function repairChunk(share: Share, chunk: string, pieces: readonly Piece[]): string | undefined {
  const lengthBytes = Math.max(0, ...pieces.map(({ offset, storedBytes }) => offset + storedBytes))
  const content = Buffer.alloc(lengthBytes)
  readDamaged(share, chunk, content)
  const lost: { readonly place: Buffer; readonly encoded: ReadonlyMap<Compression, Buffer> }[] = []
  for (const { offset, storedBytes, verify, encode } of pieces) {
    const place = content.subarray(offset, offset + storedBytes)
    try {
      verify(place)
    } catch {
      lost.push({ place, encoded: encode() })
    }
  }
  const missing = lost.filter(({ encoded }) => encoded.size === 0).length
  if (missing > 0) return `this client's cache lacks ${String(missing)} of its ${String(pieces.length)} pieces`
  const isWhole = COMPRESSION_LEVELS.some((level) => {
    for (const { place, encoded } of lost) (encoded.get(level) ?? [...encoded.values()][0])?.copy(place)
    return sha256Hex(content) === chunk
  })
  if (!isWhole)
    return 'what the cache has does not come out as the same bytes (an older version wrote it, or it has pieces that no generation uses)'
  share.writeContentNamed(chunkName(chunk), content)
  return undefined
}

/** As much as can be read of it. */
function readDamaged(share: Share, chunk: string, into: Buffer): void {
  try {
    const size = Math.min(share.size(chunkName(chunk)) ?? 0, into.length)
    if (size > 0) share.readRange(chunkName(chunk), 0, size).copy(into)
  } catch (error) {
    if (!(error instanceof IntegrityError) && errnoOf(error) === undefined) throw error
  }
}

/** Everything that the generations need, by chunk and offset. Map objects that the share has lost come from the cache. */
function piecesOfChunks(share: Share, cached: CachedBytes): Map<string, Map<number, Piece>> {
  const chunks = new Map<string, Map<number, Piece>>()
  const add = (chunk: string, piece: Piece): void => {
    const known = chunks.get(chunk)
    if (known === undefined) chunks.set(chunk, new Map([[piece.offset, piece]]))
    else known.set(piece.offset, piece)
  }
  const seen = new Set<string>()
  for (const { place } of rootsOf(readLive(share).live).values()) {
    add(place.chunk, objectPiece(place, cached))
    const root = readOrCached(share, place, cached)
    if (root === undefined) continue
    for (const page of decodeMapRoot(root).values()) {
      const key = `${page.chunk}:${String(page.offset)}`
      if (seen.has(key)) continue
      seen.add(key)
      add(page.chunk, objectPiece(page, cached))
      const bytes = readOrCached(share, page, cached)
      if (bytes === undefined) continue
      const map = new MapPage(bytes)
      for (let index = 0; index < BLOCKS_PER_MAP_PAGE; index++) {
        const block = map.place(index)
        if (block !== undefined) add(block.chunk, blockPiece(block, cached))
      }
    }
  }
  return chunks
}

function readOrCached(share: Share, place: ObjectPlace, cached: CachedBytes): Buffer | undefined {
  try {
    return decodeObject(readStored(share, place), place)
  } catch {
    return cached.mapObject(place.digest)
  }
}

function objectPiece(place: ObjectPlace, cached: CachedBytes): Piece {
  return {
    offset: place.offset,
    storedBytes: place.storedBytes,
    verify: (stored) => void decodeObject(stored, place),
    encode: () => {
      const plain = cached.mapObject(place.digest)
      return ofLength(place.storedBytes, plain === undefined ? [] : [[1, encodeObject(plain).bytes]])
    }
  }
}

function blockPiece(place: BlockPlace, cached: CachedBytes): Piece {
  const { offset, storedBytes } = place
  return {
    offset,
    storedBytes,
    verify: (stored) => void decodeBlock(stored, place),
    encode: () => {
      const plain = cached.block(place.digest.toString('hex'))
      if (plain === undefined) return new Map()
      const compressions = place.encoding === 'raw' ? (['raw'] as const) : COMPRESSION_LEVELS
      const encoded = compressions.map((compression) => [compression, encodeBlock(plain, compression).bytes] as const)
      return ofLength(storedBytes, encoded)
    }
  }
}

function ofLength(
  storedBytes: number,
  encoded: readonly (readonly [Compression, Buffer])[]
): ReadonlyMap<Compression, Buffer> {
  return new Map(encoded.filter(([, { length }]) => length === storedBytes))
}
