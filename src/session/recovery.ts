/**
 * Recovery: base image, newest snapshot, journals after it -> the state that the mount had. After a power cut (another
 * boot) the bytes of pages that no barrier vouches for count only when they have the checksum of their record.
 */
import fs from 'node:fs'
import path from 'node:path'
import { crc32 } from 'node:zlib'
import { errnoOf, FailedError, IsrfsError, messageOf } from '../base/errors.js'
import { type InodeId, PAGE_BYTES, PAGES_PER_BLOCK } from '../base/units.js'
import { ByteReader, DamageError } from './bytes.js'
import { decodeBarrier, JournaledPages } from './journaled-pages.js'
import { namesIn } from './durable-file.js'
import { type Frame, FRAME_KINDS } from './frame.js'
import {
  damage,
  type JournalContent,
  journalName,
  journalNumbers,
  type JournalPosition,
  readJournal
} from './journal.js'
import { type BaseImage, Namespace } from './namespace.js'
import type { ChangeRecord } from './namespace-types.js'
import { decodeRecord } from './record-codec.js'
import { decodeSnapshot } from './snapshot.js'

const SNAPSHOT_PATTERN = /^snapshot-(\d+)$/

export interface Recovered {
  readonly namespace: Namespace
  /** the journal to go on with; undefined when there is none that can be */
  readonly last: { readonly number: number; readonly bytes: number; readonly isCurrent: boolean } | undefined
  readonly nextNumber: number
  readonly position: JournalPosition
  readonly records: number
  readonly cutBytes: number
  readonly droppedPages: number
  /** files with page records that no barrier covers -> sequence of the last of them */
  readonly uncovered: ReadonlyMap<InodeId, number>
  /** pages whose newest durable bytes are in the journal */
  readonly journaled: JournaledPages
}

export function snapshotName(number: number): string {
  return `snapshot-${String(number)}`
}

export function recoverState(options: {
  readonly directory: string
  readonly salt: number
  readonly base: BaseImage
  readonly powerCut: boolean
  readonly regionPath: (inode: InodeId, region: number) => string
}): Recovered {
  const { directory, salt, base } = options
  const snapshot = newestSnapshot(directory)
  const namespace = new Namespace(snapshot === undefined ? base : readSnapshot(directory, snapshot, salt, base))
  const numbers = journalNumbers(directory).filter((number) => number >= (snapshot ?? 0))
  // The journal that goes on from the base or from the snapshot is durable before either counts.
  const first = snapshot ?? 0
  if (numbers[0] !== first) throw damage(path.join(directory, journalName(first)), 'it is missing')
  const contents = new Map<number, JournalContent>()
  let position: JournalPosition | undefined
  let cutBytes = 0
  let last: Recovered['last']
  for (const [index, number] of numbers.entries()) {
    if (index > 0 && number !== (numbers[index - 1] ?? 0) + 1)
      throw damage(path.join(directory, journalName(number)), 'a journal before it is missing')
    const content = readJournal(directory, number, salt, position)
    contents.set(number, content)
    position = content.position
    cutBytes += content.tornBytes
    if (content.endBytes > 0) last = { number, bytes: content.endBytes, isCurrent: content.isCurrent }
    else if (number === first) throw damage(path.join(directory, journalName(first)), 'it does not begin as a journal')
  }
  const barriers = readBarriers(contents)
  let records = 0
  const dropped = new DroppedPages()
  const uncovered = new Map<InodeId, number>()
  const journaled = new JournaledPages()
  for (const [number, content] of contents) {
    for (const frame of content.frames) {
      try {
        if (frame.kind === FRAME_KINDS.bytes) journaled.add(content.bytes, frame)
        if (frame.kind === FRAME_KINDS.barrier) {
          const { inode, through } = decodeBarrier(content.bytes, frame)
          journaled.supersede(inode, through)
        }
        if (frame.kind !== FRAME_KINDS.change) continue
        for (const record of recordsOf(content.bytes, frame)) {
          const isUncovered = record.kind === 'pages' && !barriers.cover(record.inode, frame.sequence)
          if (isUncovered) uncovered.set(record.inode, frame.sequence)
          const kept: ChangeRecord[] =
            options.powerCut && isUncovered ? keepWrittenPages(record, options.regionPath) : [record]
          if (record.kind === 'pages' && kept[0] !== record) dropped.add(record, kept)
          else if (record.kind === 'uploaded') dropped.remove(record)
          journaled.change(record)
          for (const part of kept) namespace.apply(part)
          records++
        }
      } catch (error) {
        if (error instanceof IsrfsError) throw error
        throw damage(
          path.join(directory, journalName(number)),
          `change ${String(frame.sequence)} does not fit: ${messageOf(error)}`
        )
      }
    }
  }
  return {
    namespace,
    last,
    nextNumber: Math.max(first, ...numbers) + 1,
    position: position ?? { sequence: 0, checksum: 0 },
    records,
    cutBytes,
    droppedPages: dropped.count,
    uncovered,
    journaled
  }
}

function newestSnapshot(directory: string): number | undefined {
  return snapshotNumbers(directory).at(-1)
}

/** Numbers of the snapshots in a directory, ascending. */
export function snapshotNumbers(directory: string): number[] {
  return namesIn(directory)
    .flatMap((name) => SNAPSHOT_PATTERN.exec(name)?.[1] ?? [])
    .map(Number)
    .sort((first, second) => first - second)
}

function readSnapshot(directory: string, number: number, salt: number, base: BaseImage): BaseImage {
  const file = path.join(directory, snapshotName(number))
  try {
    return decodeSnapshot(fs.readFileSync(file), salt, base)
  } catch (error) {
    if (error instanceof DamageError) throw damage(file, error.message)
    throw error
  }
}

function readBarriers(contents: ReadonlyMap<number, JournalContent>): {
  cover(inode: InodeId, sequence: number): boolean
} {
  const through = new Map<number, number>()
  for (const { bytes, frames } of contents.values()) {
    for (const frame of frames) {
      if (frame.kind !== FRAME_KINDS.barrier && frame.kind !== FRAME_KINDS.bytes) continue
      const barrier = decodeBarrier(bytes, frame)
      through.set(barrier.inode, Math.max(through.get(barrier.inode) ?? 0, barrier.through))
    }
  }
  return { cover: (inode, sequence) => sequence <= Math.max(through.get(inode) ?? 0, through.get(0) ?? 0) }
}

export function* recordsOf(bytes: Buffer, frame: Frame): Generator<ChangeRecord> {
  const reader = new ByteReader(bytes, frame.payloadStart, frame.payloadEnd)
  for (let index = 0; index < frame.recordCount; index++) yield decodeRecord(reader)
}

type PagesRecord = Extract<ChangeRecord, { kind: 'pages' }>

/** The record's pages whose bytes are on the disk, as records of one page each. */
function keepWrittenPages(record: PagesRecord, regionPath: (inode: InodeId, region: number) => string): PagesRecord[] {
  const kept: PagesRecord[] = []
  const file = regionPath(record.inode, record.region)
  let descriptor: number | undefined
  try {
    descriptor = fs.openSync(file, 'r')
    const page = Buffer.alloc(PAGE_BYTES)
    for (const [index, checksum] of record.checksums.entries()) {
      const firstPage = record.firstPage + index
      const count = fs.readSync(descriptor, page, 0, PAGE_BYTES, firstPage * PAGE_BYTES)
      if (count === PAGE_BYTES && crc32(page) === checksum)
        kept.push({ ...record, firstPage, checksums: Uint32Array.of(checksum) })
    }
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return [] // none of its pages has reached the disk
    throw new FailedError(`cannot read the session's ${file}: ${messageOf(error)}`, {
      hint: 'nothing was changed; mend the cause (a broken disk, too many open files?), then try again',
      cause: error
    })
  } finally {
    if (descriptor !== undefined) fs.closeSync(descriptor)
  }
  return kept
}

/** Pages whose bytes have not reached the disk; those that were uploaded after all are not missed. */
class DroppedPages {
  readonly #pages = new Set<string>()

  get count(): number {
    return this.#pages.size
  }

  add(record: PagesRecord, kept: readonly ChangeRecord[]): void {
    const found = new Set(kept.map((part) => (part.kind === 'pages' ? part.firstPage : -1)))
    for (let page = record.firstPage; page < record.firstPage + record.checksums.length; page++) {
      if (!found.has(page)) this.#pages.add(keyOf(record, page))
    }
  }

  remove(record: Extract<ChangeRecord, { kind: 'uploaded' }>): void {
    for (const block of record.blocks.keys()) {
      for (let page = 0; page < PAGES_PER_BLOCK; page++)
        this.#pages.delete(keyOf(record, block * PAGES_PER_BLOCK + page))
    }
  }
}

function keyOf({ inode, region }: { inode: InodeId; region: number }, page: number): string {
  return `${String(inode)}-${String(region)}-${String(page)}`
}
