/**
 * `check --repair`: puts damaged or missing chunks back from blocks that this client has in its cache.
 *
 *     references of all generations -> pieces of each bad chunk -> the good ones as they are, the others encoded anew from
 *     the cache -> SHA-256 of the whole is the chunk's name: written, else nothing
 *
 * A chunk's name is the digest of its bytes, so a repair is right or it is not made; encoding is deterministic, but a
 * chunk that another version of the encoder has written may not come out the same. The blocks of a chunk have one level of
 * compression, which nobody has written down, or several, after a compaction: each is tried. Pieces that no generation uses (any
 * more) belong to it all the same, and only the present file has them. Where that is not enough, move-out.ts goes on.
 */
import { sha256Hex } from '../base/digest.js'
import { errnoOf, IntegrityError } from '../base/errors.js'
import { BLOCK_BYTES, BLOCKS_PER_MAP_PAGE, CHUNK_BYTES_MAX } from '../base/units.js'
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
  const usedBytes = pieces.reduce((end, { offset, storedBytes }) => Math.max(end, offset + storedBytes), 0)
  const present = readDamaged(share, chunk)
  const content = Buffer.concat([present], Math.max(present.length, usedBytes))
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
  // a file that has grown has bytes at its end that were never the chunk's
  const candidates = [content, content.subarray(0, usedBytes)]
  const attempt = (level: Compression): Buffer | undefined => {
    for (const { place, encoded } of lost) (encoded.get(level) ?? [...encoded.values()][0])?.copy(place)
    return candidates.find((bytes) => sha256Hex(bytes) === chunk)
  }
  let whole: Buffer | undefined
  for (const level of COMPRESSION_LEVELS) whole ??= attempt(level)
  if (whole === undefined)
    return 'what the cache has does not come out as the same bytes (an older version wrote it, or pieces that no generation uses are lost or damaged)'
  share.writeContentNamed(chunkName(chunk), whole)
  return undefined
}

/** As much as can be read of it; zeros are where nothing can. */
function readDamaged(share: Share, chunk: string): Buffer {
  const name = chunkName(chunk)
  const sizeBytes = Math.min(orNothing(() => share.size(name)) ?? 0, CHUNK_BYTES_MAX)
  const content = Buffer.alloc(sizeBytes)
  const read = (from: number, to: number): boolean =>
    orNothing(() => share.readRange(name, from, to - from).copy(content, from)) !== undefined
  if (sizeBytes === 0 || read(0, sizeBytes)) return content
  // a broken sector costs what is read together with it
  for (let at = 0; at < sizeBytes; at += BLOCK_BYTES) read(at, Math.min(at + BLOCK_BYTES, sizeBytes))
  return content
}

function orNothing<Result>(read: () => Result): Result | undefined {
  try {
    return read()
  } catch (error) {
    if (error instanceof IntegrityError || errnoOf(error) !== undefined) return undefined
    throw error
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

/** Plain bytes of a map page or root, wherever they can be had. */
export function readOrCached(share: Share, place: ObjectPlace, cached: CachedBytes): Buffer | undefined {
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
