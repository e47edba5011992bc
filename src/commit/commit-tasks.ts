/**
 * What commit workers do, as plain functions over one VM's share: the heavy and the blocking part of commits, imports
 * and exports. Inputs and outputs are plain data that can cross a thread (Buffers arrive as Uint8Arrays and are made
 * Buffers again by what needs them, or by CommitPool on the way back).
 */
import { IntegrityError } from '../base/errors.js'
import { toGeneration } from '../base/units.js'
import { readMapObject } from '../cache/map-object.js'
import { decodeBlock, decodeObject } from '../format/block-codec.js'
import { chunkName, readStored, writeObjects } from '../format/chunk.js'
import {
  digestOfGeneration,
  findSession,
  type FoundSession,
  publishBranch,
  type PublishedBranch,
  publishGeneration,
  type PublishedGeneration,
  readGeneration,
  readNewestGeneration
} from '../format/generations.js'
import type { Manifest } from '../format/manifest.js'
import type { BlockPlace, ObjectPlace } from '../format/place.js'
import { damageIn } from '../share/broken.js'
import { beatLease, type HeldLease, leaseStillHeld } from '../share/lease.js'
import type { Share } from '../share/share.js'
import { encodeUnit, type EncodeInput, type EncodeOutput, type KeptBlock, keepUnit } from './encode.js'
import { type ExportUnit, writeExportUnit } from './export-blocks.js'

interface Places {
  readonly places: readonly BlockPlace[]
  readonly objects?: readonly ObjectPlace[]
}

type Lease = Pick<HeldLease, 'number' | 'token'>

export const commitTasks = {
  /** blocks -> one durable chunk */
  encode: (share: Share, input: EncodeInput): EncodeOutput => encodeUnit(share, input),
  /** published blocks -> the client's cache */
  keep: (share: Share, input: { blocks: readonly KeptBlock[] }): (number | undefined)[] =>
    keepUnit(share, input.blocks),
  /** map pages and roots -> durable chunks */
  objects: (share: Share, input: { objects: readonly Uint8Array[] }): { places: ObjectPlace[]; sentBytes: number } =>
    writeObjects(share, input.objects.map(asBuffer)),
  /** verified plain bytes of a map page or root: from the local file if it is that, else from the share */
  mapObject: (share: Share, input: { place: ObjectPlace; candidate: string | undefined }): Uint8Array =>
    readMapObject(share, input.place, input.candidate).bytes,
  publish: (share: Share, input: { manifest: Manifest }): PublishedGeneration =>
    publishGeneration(share, input.manifest),
  publishBranch: (share: Share, input: { manifest: Manifest }): PublishedBranch => publishBranch(share, input.manifest),
  /** reads blocks and map objects back and checks their digests */
  verify: (share: Share, input: Places): void => {
    verifyPlaces(share, input)
  },
  /** which of these blocks are not what their digests say, and why */
  examine: (share: Share, input: { places: readonly BlockPlace[] }): { position: number; why: string }[] =>
    examine(share, input.places),
  /** looks through a fresh open whether each chunk is there with the bytes that are expected in it */
  checkChunks: (share: Share, input: Places): void => {
    checkChunks(share, [...input.places, ...(input.objects ?? [])])
  },
  /** bytes of each chunk, through a fresh open; undefined for one that is missing */
  chunkSizes: (share: Share, input: { chunks: readonly string[] }): (number | undefined)[] =>
    input.chunks.map((chunk) => share.size(chunkName(chunk))),
  freeBytes: (share: Share): number => share.freeBytes(),
  newest: (share: Share): PublishedGeneration => readNewestGeneration(share),
  digestOf: (share: Share, input: { number: number }): string | undefined =>
    digestOfGeneration(share, toGeneration(input.number)),
  generation: (share: Share, input: { number: number }): PublishedGeneration =>
    readGeneration(share, toGeneration(input.number)),
  findSession: (share: Share, input: { sessionId: string; above: number }): FoundSession | undefined =>
    findSession(share, input.sessionId, input.above),
  leaseStillHeld: (share: Share, input: { held: Lease }): boolean => leaseStillHeld(share, input.held),
  beatLease: (share: Share, input: { held: Lease; beats: number }): boolean =>
    beatLease(share, input.held, input.beats),
  /** verified blocks -> a plain file */
  export: (share: Share, input: ExportUnit): { readonly readBytes: number } => writeExportUnit(share, input)
}

export type CommitTasks = typeof commitTasks
export type CommitTaskName = keyof CommitTasks
export type CommitTaskInput<Name extends CommitTaskName> =
  Parameters<CommitTasks[Name]> extends [Share, infer Input] ? Input : Record<string, never>
export type CommitTaskOutput<Name extends CommitTaskName> = ReturnType<CommitTasks[Name]>

function verifyPlaces(share: Share, { places, objects = [] }: Places): void {
  for (const place of places) {
    readBack(share, place, (stored) => decodeBlock(stored, { ...place, digest: asBuffer(place.digest) }))
  }
  for (const place of objects) readBack(share, place, (stored) => decodeObject(stored, place))
}

function examine(share: Share, places: readonly BlockPlace[]): { position: number; why: string }[] {
  return places.flatMap((place, position) => {
    try {
      decodeBlock(readStored(share, place), { ...place, digest: asBuffer(place.digest) })
      return []
    } catch (error) {
      const why = damageIn(share, error)
      if (why === undefined) throw error // trouble of the share says nothing of the block
      return [{ position, why }]
    }
  })
}

/** A chunk that an earlier try has recorded is not sent again while its size is right: somebody has to move a damaged one. */
function readBack(share: Share, place: BlockPlace | ObjectPlace, decode: (stored: Buffer) => unknown): void {
  const stored = readStored(share, place)
  try {
    decode(stored)
  } catch (error) {
    if (!(error instanceof IntegrityError)) throw error
    throw new IntegrityError(error.message, {
      hint: `move ${share.pathOf(chunkName(place.chunk))} out of the way, then it is sent anew`,
      cause: error
    })
  }
}

function checkChunks(share: Share, places: readonly (BlockPlace | ObjectPlace)[]): void {
  const ends = new Map<string, number>()
  for (const { chunk, offset, storedBytes } of places) {
    ends.set(chunk, Math.max(ends.get(chunk) ?? 0, offset + storedBytes))
  }
  for (const [chunk, end] of ends) {
    const size = share.size(chunkName(chunk))
    if (size === undefined) throw new IntegrityError(`chunk ${chunk} is missing on the share`)
    if (size < end) throw new IntegrityError(`chunk ${chunk} has ${size} bytes on the share, ${end} were written`)
  }
}

function asBuffer(bytes: Uint8Array): Buffer {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)
}
