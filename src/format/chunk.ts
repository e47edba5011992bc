/**
 * Chunks: immutable files of at most 16 MiB with encoded blocks and map objects one after another and nothing else.
 * Their name is the SHA-256 of their bytes.
 */
import assert from 'node:assert'
import { sha256, sha256Hex } from '../base/digest.js'
import { errnoOf, IntegrityError, ShareError } from '../base/errors.js'
import { CHUNK_BYTES_MAX } from '../base/units.js'
import type { Share } from '../share/share.js'
import { type Encoded, encodeObject } from './block-codec.js'
import type { BlockPlace, ObjectPlace } from './place.js'

export function chunkName(digestHex: string): string {
  return `chunks/${digestHex.slice(0, 2)}/${digestHex}`
}

/** The stored bytes of a block or map object. A chunk that is not there is damage of the VM, not an absent file. */
export function readStored(share: Share, place: BlockPlace | ObjectPlace): Buffer {
  try {
    return share.readRange(chunkName(place.chunk), place.offset, place.storedBytes)
  } catch (error) {
    if (errnoOf(error) !== 'ENOENT') throw error
    refuseIfAway(share, error)
    throw new IntegrityError(`chunk ${place.chunk} is missing on the share`, {
      hint: 'restore it from a backup of the share, or use an older generation with --generation',
      cause: error
    })
  }
}

/** Where vm.json is gone too, it is the share that is missing (unmounted?): away is not damaged. */
function refuseIfAway(share: Share, cause: unknown): void {
  if (share.size('vm.json') !== undefined) return
  throw new ShareError('ENODEV', share.root, `${share.root} is not there: is the share mounted?`, { cause })
}

interface Piece {
  readonly encoded: Encoded
  readonly offset: number
}

/** Collects encoded pieces for one chunk; `write` sends it and only then the places are known. */
export class ChunkBuilder {
  readonly #pieces: Piece[] = []
  #bytes = 0

  get bytes(): number {
    return this.#bytes
  }

  fits(encoded: Encoded): boolean {
    return this.#bytes + encoded.bytes.length <= CHUNK_BYTES_MAX
  }

  /** Returns the piece's index in the list that `write` returns. */
  add(encoded: Encoded): number {
    assert(this.fits(encoded), 'a chunk is full')
    this.#pieces.push({ encoded, offset: this.#bytes })
    this.#bytes += encoded.bytes.length
    return this.#pieces.length - 1
  }

  /** Makes the chunk durable on the share. Returns where each piece lies and the bytes that were sent. */
  write(share: Share): { readonly chunk: string; readonly offsets: readonly number[]; readonly sentBytes: number } {
    assert(this.#pieces.length > 0, 'a chunk without content')
    const content = Buffer.concat(this.#pieces.map((piece) => piece.encoded.bytes))
    const chunk = sha256Hex(content)
    const sent = share.writeContentNamed(chunkName(chunk), content)
    return { chunk, offsets: this.#pieces.map((piece) => piece.offset), sentBytes: sent ? content.length : 0 }
  }
}

/** Writes plain objects (map pages, roots) into as few chunks as they need. Places come in the order of the objects. */
export function writeObjects(share: Share, objects: readonly Buffer[]): { places: ObjectPlace[]; sentBytes: number } {
  const places: ObjectPlace[] = []
  let sentBytes = 0
  let builder = new ChunkBuilder()
  let waiting: { plain: Buffer; encoded: Encoded }[] = []
  const flush = (): void => {
    if (waiting.length === 0) return
    const written = builder.write(share)
    sentBytes += written.sentBytes
    for (const [index, { plain, encoded }] of waiting.entries()) {
      places.push({
        encoding: encoded.encoding,
        chunk: written.chunk,
        offset: written.offsets[index] ?? 0,
        storedBytes: encoded.bytes.length,
        plainBytes: plain.length,
        digest: sha256Hex(plain)
      })
    }
    builder = new ChunkBuilder()
    waiting = []
  }
  for (const plain of objects) {
    const encoded = encodeObject(plain)
    if (!builder.fits(encoded)) flush()
    builder.add(encoded)
    waiting.push({ plain, encoded })
  }
  flush()
  return { places, sentBytes }
}

/** Makes a block's place once its chunk is written. */
export function blockPlace(chunk: string, offset: number, encoded: Encoded, plain: Buffer): BlockPlace {
  return { encoding: encoded.encoding, chunk, offset, storedBytes: encoded.bytes.length, digest: sha256(plain) }
}
