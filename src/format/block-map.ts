/**
 * The block map of one VM file, a two-level tree: a root lists pages, a page covers 1,024 blocks (docs/format.md,
 * "Block maps"). Pages are read in place, without an object for each block.
 */
import assert from 'node:assert'
import { IntegrityError } from '../base/errors.js'
import { BLOCK_BYTES, BLOCKS_PER_MAP_PAGE, CHUNK_BYTES_MAX, FILE_BYTES_MAX } from '../base/units.js'
import { OBJECT_BYTES_MAX } from './block-codec.js'
import type { BlockPlace, Encoding, ObjectPlace } from './place.js'

const PAGE_MAGIC = 0x504d5349 // "ISMP"
const ROOT_MAGIC = 0x524d5349 // "ISMR"
const MAP_VERSION = 1
const HEADER_BYTES = 16
const DIGEST_BYTES = 32
const ENTRY_BYTES = 44
const ROOT_ENTRY_BYTES = 56
const PAGES_MAX = FILE_BYTES_MAX / BLOCK_BYTES / BLOCKS_PER_MAP_PAGE

export class MapPage {
  readonly bytes: Buffer
  readonly #entries: number
  readonly #entriesAt: number

  /** Takes decoded and verified bytes; throws IntegrityError when they are not a page. */
  constructor(bytes: Buffer) {
    const { count, chunks } = header(bytes, PAGE_MAGIC, 'map page')
    if (count > BLOCKS_PER_MAP_PAGE || bytes.length !== HEADER_BYTES + chunks * DIGEST_BYTES + count * ENTRY_BYTES) {
      throw new IntegrityError('a map page has a length that does not fit its header')
    }
    this.bytes = bytes
    this.#entries = count
    this.#entriesAt = HEADER_BYTES + chunks * DIGEST_BYTES
    for (let index = 0; index < count; index++) this.#check(index, chunks)
  }

  /** Where block `index` of this page lies; undefined when it is all zero. */
  place(index: number): BlockPlace | undefined {
    const at = this.#at(index)
    if (at === undefined) return undefined
    const chunkAt = HEADER_BYTES + this.bytes.readUInt16LE(at) * DIGEST_BYTES
    return {
      encoding: encodingOf(this.bytes.readUInt8(at + 2)),
      chunk: this.bytes.toString('hex', chunkAt, chunkAt + DIGEST_BYTES),
      offset: this.bytes.readUInt32LE(at + 4),
      storedBytes: this.bytes.readUInt32LE(at + 8),
      digest: this.bytes.subarray(at + 12, at + ENTRY_BYTES)
    }
  }

  /** The block's digest without anything else; undefined when it is all zero. */
  digest(index: number): Buffer | undefined {
    const at = this.#at(index)
    return at === undefined ? undefined : this.bytes.subarray(at + 12, at + ENTRY_BYTES)
  }

  isZero(index: number): boolean {
    return this.#at(index) === undefined
  }

  #at(index: number): number | undefined {
    if (index >= this.#entries) return undefined
    const at = this.#entriesAt + index * ENTRY_BYTES
    return this.bytes.readUInt8(at + 2) === 0 ? undefined : at
  }

  #check(index: number, chunks: number): void {
    const at = this.#entriesAt + index * ENTRY_BYTES
    const encoding = this.bytes.readUInt8(at + 2)
    if (encoding === 0) return
    const storedBytes = this.bytes.readUInt32LE(at + 8)
    const end = this.bytes.readUInt32LE(at + 4) + storedBytes
    const fits = encoding <= 2 && storedBytes >= 1 && storedBytes <= BLOCK_BYTES && end <= CHUNK_BYTES_MAX
    if (!fits || this.bytes.readUInt16LE(at) >= chunks) {
      throw new IntegrityError(`entry ${String(index)} of a map page points outside of what a chunk can hold`)
    }
  }
}

/** Encodes 1,024 or fewer block places (undefined: all zero) as a page's plain bytes; undefined when all are zero. */
export function encodeMapPage(places: readonly (BlockPlace | undefined)[]): Buffer | undefined {
  assert(places.length <= BLOCKS_PER_MAP_PAGE)
  let count = places.length
  while (count > 0 && places[count - 1] === undefined) count--
  if (count === 0) return undefined
  const chunks = new Map<string, number>()
  for (const place of places) if (place !== undefined && !chunks.has(place.chunk)) chunks.set(place.chunk, chunks.size)
  const bytes = Buffer.alloc(HEADER_BYTES + chunks.size * DIGEST_BYTES + count * ENTRY_BYTES)
  writeHeader(bytes, PAGE_MAGIC, count, chunks)
  const entriesAt = HEADER_BYTES + chunks.size * DIGEST_BYTES
  for (const [index, place] of places.entries()) {
    if (place === undefined) continue
    const at = entriesAt + index * ENTRY_BYTES
    bytes.writeUInt16LE(chunks.get(place.chunk) ?? 0, at)
    bytes.writeUInt8(encodingNumber(place.encoding), at + 2)
    bytes.writeUInt32LE(place.offset, at + 4)
    bytes.writeUInt32LE(place.storedBytes, at + 8)
    place.digest.copy(bytes, at + 12)
  }
  return bytes
}

/** Page index -> where the page lies. Pages that are all zero are not listed. */
export type MapRoot = ReadonlyMap<number, ObjectPlace>

export function encodeMapRoot(pages: MapRoot): Buffer {
  const chunks = new Map<string, number>()
  for (const place of pages.values()) if (!chunks.has(place.chunk)) chunks.set(place.chunk, chunks.size)
  const bytes = Buffer.alloc(HEADER_BYTES + chunks.size * DIGEST_BYTES + pages.size * ROOT_ENTRY_BYTES)
  writeHeader(bytes, ROOT_MAGIC, pages.size, chunks)
  let at = HEADER_BYTES + chunks.size * DIGEST_BYTES
  for (const [page, place] of [...pages].sort(([first], [second]) => first - second)) {
    bytes.writeUInt32LE(page, at)
    bytes.writeUInt32LE(chunks.get(place.chunk) ?? 0, at + 4)
    bytes.writeUInt8(encodingNumber(place.encoding), at + 8)
    bytes.writeUInt32LE(place.offset, at + 12)
    bytes.writeUInt32LE(place.storedBytes, at + 16)
    bytes.writeUInt32LE(place.plainBytes, at + 20)
    bytes.write(place.digest, at + 24, 'hex')
    at += ROOT_ENTRY_BYTES
  }
  return bytes
}

export function decodeMapRoot(bytes: Buffer): MapRoot {
  const { count, chunks } = header(bytes, ROOT_MAGIC, 'map root')
  if (count > PAGES_MAX || bytes.length !== HEADER_BYTES + chunks * DIGEST_BYTES + count * ROOT_ENTRY_BYTES) {
    throw new IntegrityError('a map root has a length that does not fit its header')
  }
  const pages = new Map<number, ObjectPlace>()
  let previous = -1
  for (let index = 0; index < count; index++) {
    const at = HEADER_BYTES + chunks * DIGEST_BYTES + index * ROOT_ENTRY_BYTES
    const page = bytes.readUInt32LE(at)
    const chunk = bytes.readUInt32LE(at + 4)
    if (page <= previous || page >= PAGES_MAX || chunk >= chunks) {
      throw new IntegrityError('a map root lists a page that cannot be')
    }
    previous = page
    const chunkAt = HEADER_BYTES + chunk * DIGEST_BYTES
    const place: ObjectPlace = {
      encoding: encodingOf(bytes.readUInt8(at + 8)),
      chunk: bytes.toString('hex', chunkAt, chunkAt + DIGEST_BYTES),
      offset: bytes.readUInt32LE(at + 12),
      storedBytes: bytes.readUInt32LE(at + 16),
      plainBytes: bytes.readUInt32LE(at + 20),
      digest: bytes.toString('hex', at + 24, at + ROOT_ENTRY_BYTES)
    }
    assertObjectPlace(place)
    pages.set(page, place)
  }
  return pages
}

/** Bounds of an object's place, wherever it was read. */
export function assertObjectPlace(place: ObjectPlace): void {
  const fits =
    place.storedBytes >= 1 &&
    place.offset + place.storedBytes <= CHUNK_BYTES_MAX &&
    place.plainBytes >= HEADER_BYTES &&
    place.plainBytes <= OBJECT_BYTES_MAX
  if (!fits) throw new IntegrityError('a map object points outside of what a chunk can hold')
}

function header(bytes: Buffer, magic: number, what: string): { count: number; chunks: number } {
  if (bytes.length < HEADER_BYTES || bytes.readUInt32LE(0) !== magic) {
    throw new IntegrityError(`bytes that should be a ${what} are none`)
  }
  const version = bytes.readUInt32LE(4)
  if (version !== MAP_VERSION) {
    throw new IntegrityError(
      `a ${what} has version ${String(version)}, but this isrfs reads version ${String(MAP_VERSION)}`
    )
  }
  const count = bytes.readUInt32LE(8)
  const chunks = bytes.readUInt32LE(12)
  if (chunks > count) throw new IntegrityError(`a ${what} lists more chunks than places`)
  return { count, chunks }
}

function writeHeader(bytes: Buffer, magic: number, count: number, chunks: ReadonlyMap<string, number>): void {
  bytes.writeUInt32LE(magic, 0)
  bytes.writeUInt32LE(MAP_VERSION, 4)
  bytes.writeUInt32LE(count, 8)
  bytes.writeUInt32LE(chunks.size, 12)
  for (const [chunk, index] of chunks) bytes.write(chunk, HEADER_BYTES + index * DIGEST_BYTES, 'hex')
}

function encodingNumber(encoding: Encoding): number {
  return encoding === 'raw' ? 1 : 2
}

function encodingOf(value: number): Encoding {
  if (value === 1) return 'raw'
  if (value === 2) return 'zstd'
  throw new IntegrityError(`encoding ${String(value)} is unknown`)
}
