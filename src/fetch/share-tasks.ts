/**
 * What share workers do, as plain functions over one VM's share. Everything that the daemon wants from the share
 * goes through here; inputs and outputs are plain data that can cross a thread.
 */
import fs from 'node:fs'
import { sha256 } from '../base/digest.js'
import { type PlainError, toPlainError } from '../base/errors.js'
import { BLOCK_BYTES, toGeneration } from '../base/units.js'
import { landBlock, type Landing } from '../cache/landing.js'
import { readMapObject, type ReadObject } from '../cache/map-object.js'
import { decodeBlock } from '../format/block-codec.js'
import { chunkName, readStored } from '../format/chunk.js'
import {
  digestOfGeneration,
  directoryOf,
  findSession,
  type FoundSession,
  type PublishedBranch,
  type PublishedGeneration,
  readBranch,
  readGeneration,
  readManifestBytes,
  readNewestGeneration
} from '../format/generations.js'
import type { BlockPlace, ObjectPlace } from '../format/place.js'
import { type Profile, readProfile, writeProfile } from '../format/profile.js'
import { readVmDescriptor, type VmDescriptor } from '../format/vm.js'
import {
  acquireLease,
  beatLease,
  type GenerationReference,
  type HeldLease,
  type LeaseHolder,
  leaseStillHeld,
  noteOnLease,
  releaseLease
} from '../share/lease.js'
import { beatPin, createPin, type Pin, pinBase, removePin, removeSessionPins } from '../share/pin.js'
import type { Share } from '../share/share.js'
import { idOfSibling } from './sibling.js'

/** blocks in one read of the share: 1 MiB */
export const RUN_BLOCKS_MAX = 8

/** Bytes in a local file that may be the wanted block: they count when their digest is right. */
export interface LocalCandidate {
  readonly path: string
  readonly offset: number
  /** not where this mount keeps the block */
  readonly isElsewhere?: boolean
}

export interface WantedBlock {
  readonly place: BlockPlace
  readonly candidate: LocalCandidate | undefined
  /** where the thread writes it; undefined: its bytes are handed over */
  readonly landing: Landing | undefined
}

export interface FoundBlock {
  readonly from: 'cache' | 'elsewhere' | 'share'
  /** it is where it was to land, and has taken so many more bytes there; undefined: it is in `plain` */
  readonly diskBytes: number | undefined
}

export interface FetchedBlocks {
  /** plain blocks, each at its place in the order in which they were wanted; empty when all have landed */
  readonly plain: ArrayBuffer
  readonly results: readonly (FoundBlock | { readonly error: PlainError })[]
  /** encoded bytes that were read from chunks */
  readonly encodedBytes: number
  /** how long the blocks took that came from the share, decoded and compared */
  readonly shareSeconds: number
}

type Lease = Pick<HeldLease, 'number' | 'token'>

export const shareTasks = {
  blocks: (share: Share, input: { wanted: readonly WantedBlock[] }): FetchedBlocks => fetchBlocks(share, input.wanted),
  object: (share: Share, input: { place: ObjectPlace; candidate: string | undefined }): ReadObject =>
    readMapObject(share, input.place, input.candidate),
  openVm: (share: Share): VmDescriptor => readVmDescriptor(share),
  newest: (share: Share): PublishedGeneration => readNewestGeneration(share),
  generation: (share: Share, input: { number: number }): PublishedGeneration =>
    readGeneration(share, toGeneration(input.number)),
  branch: (share: Share, input: { name: string }): PublishedBranch => readBranch(share, input.name),
  /** the bytes of the manifest of a generation or branch, while it has this digest */
  manifest: (share: Share, input: { name: string; digest: string }): Uint8Array | undefined =>
    readManifestBytes(share, directoryOf(input.name), input.digest),
  digestOf: (share: Share, input: { number: number }): string | undefined =>
    digestOfGeneration(share, toGeneration(input.number)),
  profile: (share: Share, input: { generation: number }): Profile | undefined => readProfile(share, input.generation),
  writeProfile: (share: Share, input: { generation: number; profile: Profile }): void => {
    writeProfile(share, input.generation, input.profile)
  },
  idOfSibling: (share: Share, input: { name: string }): string | undefined => idOfSibling(share, input.name),
  findSession: (share: Share, input: { sessionId: string; above: number }): FoundSession | undefined =>
    findSession(share, input.sessionId, input.above),
  acquireLease: (share: Share, input: { holder: LeaseHolder }): HeldLease => acquireLease(share, input.holder),
  leaseStillHeld: (share: Share, input: { held: Lease }): boolean => leaseStillHeld(share, input.held),
  beatLease: (share: Share, input: { held: Lease; beats: number }): boolean =>
    beatLease(share, input.held, input.beats),
  noteOnLease: (share: Share, input: { held: Lease; generation: GenerationReference }): void => {
    noteOnLease(share, input.held, input.generation)
  },
  /** keeps the base of a session that has published past it */
  pinBase: (share: Share, input: { holder: LeaseHolder; leaseNumber: number; generation: number }): void => {
    pinBase(share, input.holder, input.leaseNumber, input.generation)
  },
  releaseLease: (share: Share, input: { held: Lease; generation: GenerationReference | null }): void => {
    releaseLease(share, input.held, input.generation)
  },
  createPin: (share: Share, input: { holder: LeaseHolder; generation: number }): Pin =>
    createPin(share, input.holder, input.generation),
  beatPin: (share: Share, input: { pin: Pin; beats: number }): void => {
    beatPin(share, input.pin, input.beats)
  },
  removePin: (share: Share, input: { pin: Pin }): void => {
    removePin(share, input.pin)
  },
  removeSessionPins: (share: Share, input: { client: string }): void => {
    removeSessionPins(share, input.client)
  }
}

export type ShareTasks = typeof shareTasks
export type ShareTaskName = keyof ShareTasks
export type ShareTaskInput<Name extends ShareTaskName> =
  Parameters<ShareTasks[Name]> extends [Share, infer Input] ? Input : Record<string, never>
export type ShareTaskOutput<Name extends ShareTaskName> = ReturnType<ShareTasks[Name]>

/** Local candidates first; what is left is read from the share, neighbours in one chunk with one read. */
function fetchBlocks(share: Share, wanted: readonly WantedBlock[]): FetchedBlocks {
  let plain: ArrayBuffer | undefined
  const found = (index: number, block: Buffer, from: FoundBlock['from']): FoundBlock => {
    const diskBytes = landed(wanted[index]?.landing, block, from)
    if (diskBytes === undefined) {
      plain ??= new ArrayBuffer(wanted.length * BLOCK_BYTES)
      Buffer.from(plain, index * BLOCK_BYTES, BLOCK_BYTES).set(block)
    }
    return { from, diskBytes }
  }
  const results: (FoundBlock | { error: PlainError })[] = []
  const missing: number[] = []
  for (const [index, { place, candidate }] of wanted.entries()) {
    if (candidate !== undefined && readCandidate(candidate, place, candidateBytes)) {
      results[index] = found(index, candidateBytes, candidate.isElsewhere === true ? 'elsewhere' : 'cache')
    } else missing.push(index)
  }
  let encodedBytes = 0
  const startedMs = performance.now()
  for (const run of runs(missing, wanted)) {
    const stored = readRun(
      share,
      run.map((index) => placeOf(wanted, index))
    )
    for (const [position, index] of run.entries()) {
      const place = placeOf(wanted, index)
      try {
        const bytes = stored?.[position] ?? readStored(share, place)
        encodedBytes += bytes.length
        results[index] = found(index, decodeBlock(bytes, place), 'share')
      } catch (error) {
        results[index] = { error: toPlainError(error) }
      }
    }
  }
  const shareSeconds = (performance.now() - startedMs) / 1000
  return { plain: plain ?? new ArrayBuffer(0), results, encodedBytes, shareSeconds }
}

/** Bytes that the block has taken in the file where it was to land; undefined: it is not there. */
function landed(landing: Landing | undefined, block: Buffer, from: FoundBlock['from']): number | undefined {
  if (landing === undefined) return undefined
  return from === 'cache' ? 0 : landBlock(landing, block) // the cache's own candidate is there already
}

/** A candidate's bytes, used until the next. */
const candidateBytes = Buffer.allocUnsafeSlow(BLOCK_BYTES)

function readCandidate(candidate: LocalCandidate, place: BlockPlace, target: Buffer): boolean {
  let fd: number | undefined
  try {
    fd = fs.openSync(candidate.path, fs.constants.O_RDONLY | fs.constants.O_NOFOLLOW)
    if (fs.readSync(fd, target, 0, BLOCK_BYTES, candidate.offset) !== BLOCK_BYTES) return false
    return sha256(target).equals(place.digest) // if not, the share's bytes replace them
  } catch {
    return false // the cache is disposable: the share has it
  } finally {
    if (fd !== undefined) fs.closeSync(fd)
  }
}

/** Stored bytes of one run, used until the next: a buffer for each read would wait for a collector that seldom runs here. */
const runBytes = Buffer.allocUnsafeSlow(RUN_BLOCKS_MAX * BLOCK_BYTES)

/** One read for neighbours; undefined when it fails, so that each block is tried and reported for itself. */
function readRun(share: Share, places: readonly BlockPlace[]): Buffer[] | undefined {
  const [first] = places
  const last = places.at(-1)
  if (first === undefined || last === undefined || places.length === 1) return undefined
  try {
    const length = last.offset + last.storedBytes - first.offset
    const bytes = share.readRange(chunkName(first.chunk), first.offset, length, runBytes)
    return places.map((place) =>
      bytes.subarray(place.offset - first.offset, place.offset - first.offset + place.storedBytes)
    )
  } catch {
    return undefined
  }
}

function runs(missing: readonly number[], wanted: readonly WantedBlock[]): number[][] {
  const all: number[][] = []
  let end = -1
  let chunk = ''
  for (const index of missing) {
    const place = placeOf(wanted, index)
    if (place.chunk === chunk && place.offset === end) all.at(-1)?.push(index)
    else all.push([index])
    chunk = place.chunk
    end = place.offset + place.storedBytes
  }
  return all
}

function placeOf(wanted: readonly WantedBlock[], index: number): BlockPlace {
  const block = wanted[index]
  if (block === undefined) throw new Error('no such block')
  return { ...block.place, digest: Buffer.from(block.place.digest) } // a Buffer arrives as Uint8Array
}
