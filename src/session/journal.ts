/**
 * The journal: append-only files of frames (frame.ts), sequenced and chained. One append is one write(2); a failed one
 * is cut off again, so the file never holds half a change that was not followed by a crash. Space is reserved ahead of
 * frames that carry bytes: a sync of a file that does not grow costs one write to the disk instead of three.
 *
 * Reading back: frames count up to the first that is not whole. What follows is a torn tail and is cut, unless a
 * later frame knows that the bad one had been durable: then it is damage, and nothing is changed.
 */
import fs from 'node:fs'
import path from 'node:path'
import { IntegrityError } from '../base/errors.js'
import { type Disk, diskError, writeFully } from './disk.js'
import { namesIn } from './durable-file.js'
import {
  encodeJournalHeader,
  findFrames,
  type Frame,
  FRAME_HEADER_BYTES,
  FRAME_TRAILER_BYTES,
  type FrameKind,
  JOURNAL_HEADER_BYTES,
  parseFrame,
  type JournalHeader,
  parseJournalHeader,
  sealFrame
} from './frame.js'
import { type ByteWriter, DamageError } from './bytes.js'

/** written as zeros: space that is allocated but unwritten would cost an update of the file's metadata at each sync */
const RESERVE = Buffer.alloc(1024 * 1024)

const NAME_PATTERN = /^journal-(\d+)$/

/** Where the chain stands. */
export interface JournalPosition {
  readonly sequence: number
  readonly checksum: number
}

export class Journal {
  readonly number: number
  readonly descriptor: number
  readonly #salt: number
  readonly #disk: Disk
  #bytes: number
  /** where the file ends: beyond the last frame there may be zeros */
  #reservedBytes: number
  #sequence: number
  #checksum: number

  constructor(options: {
    number: number
    descriptor: number
    salt: number
    disk: Disk
    bytes: number
    position: JournalPosition
  }) {
    this.number = options.number
    this.descriptor = options.descriptor
    this.#salt = options.salt
    this.#disk = options.disk
    this.#bytes = options.bytes
    this.#reservedBytes = options.bytes
    this.#sequence = options.position.sequence
    this.#checksum = options.position.checksum
  }

  /** Starts the file journal-<number>. */
  static create(directory: string, number: number, salt: number, position: JournalPosition, disk: Disk): Journal {
    const header = encodeJournalHeader(
      { number, firstSequence: position.sequence + 1, previousChecksum: position.checksum },
      salt
    )
    const file = path.join(directory, journalName(number))
    const descriptor = fs.openSync(file, fs.constants.O_RDWR | fs.constants.O_CREAT | fs.constants.O_TRUNC, 0o600)
    try {
      writeFully(disk, descriptor, header, 0, header.length, 0)
    } catch (error) {
      fs.closeSync(descriptor)
      fs.rmSync(file, { force: true })
      throw diskError(error, 'cannot start a journal')
    }
    return new Journal({ number, descriptor, salt, disk, bytes: header.length, position })
  }

  get bytes(): number {
    return this.#bytes
  }

  /** sequence of the last frame */
  get position(): JournalPosition {
    return { sequence: this.#sequence, checksum: this.#checksum }
  }

  /** Makes room for a frame that carries bytes. A disk that has none left says so when the frame is appended. */
  reserve(frameBytes: number): void {
    if (this.#bytes + frameBytes <= this.#reservedBytes) return
    try {
      writeFully(this.#disk, this.descriptor, RESERVE, 0, RESERVE.length, this.#reservedBytes)
      this.#reservedBytes += RESERVE.length
    } catch {
      fs.ftruncateSync(this.descriptor, this.#reservedBytes)
    }
  }

  /** Appends the frame whose payload the writer holds from FRAME_HEADER_BYTES on. Throws with nothing appended. */
  append(writer: ByteWriter, kind: FrameKind, recordCount: number, durableSequence: number): void {
    writer.reserve(FRAME_TRAILER_BYTES)
    const sequence = this.#sequence + 1
    const fields = { salt: this.#salt, previousChecksum: this.#checksum, sequence, durableSequence, kind, recordCount }
    const checksum = sealFrame(writer.bytes, writer.length, fields)
    try {
      writeFully(this.#disk, this.descriptor, writer.bytes, 0, writer.length, this.#bytes)
    } catch (error) {
      fs.ftruncateSync(this.descriptor, this.#bytes)
      this.#reservedBytes = this.#bytes
      throw diskError(error, 'cannot write the journal')
    }
    this.#bytes += writer.length
    this.#reservedBytes = Math.max(this.#reservedBytes, this.#bytes)
    this.#sequence = sequence
    this.#checksum = checksum
  }
}

/** Makes a writer ready for a frame's payload. */
export function beginFrame(writer: ByteWriter): void {
  writer.length = 0
  writer.reserve(FRAME_HEADER_BYTES)
}

export function journalName(number: number): string {
  return `journal-${String(number)}`
}

/** Numbers of the journals in a directory, ascending. */
export function journalNumbers(directory: string): number[] {
  return namesIn(directory)
    .flatMap((name) => NAME_PATTERN.exec(name)?.[1] ?? [])
    .map(Number)
    .sort((first, second) => first - second)
}

export interface JournalContent {
  readonly bytes: Buffer
  readonly frames: readonly Frame[]
  /** where good frames end; what follows was cut or has to be */
  readonly endBytes: number
  /** of what follows: up to the last byte that is not zero */
  readonly tornBytes: number
  readonly isCurrent: boolean
  readonly position: JournalPosition
}

/** Reads one journal. `expected` is where the chain stood before it, undefined for the first that is read. */
export function readJournal(
  directory: string,
  number: number,
  salt: number,
  expected: JournalPosition | undefined
): JournalContent {
  const file = path.join(directory, journalName(number))
  const bytes = fs.readFileSync(file)
  const header = readHeader(file, bytes, salt)
  if (header === undefined) {
    refuseIfDurable(file, bytes, 0, salt, expected?.sequence ?? 0)
    return nothingOf(bytes, expected ?? { sequence: 0, checksum: 0 })
  }
  let position: JournalPosition = { sequence: header.firstSequence - 1, checksum: header.previousChecksum }
  if (expected !== undefined && (expected.sequence !== position.sequence || expected.checksum !== position.checksum)) {
    refuseIfDurable(file, bytes, 0, salt, expected.sequence) // else the end of the journal before it was lost, and this with it
    return nothingOf(bytes, expected)
  }
  const followed = followFrames(bytes, salt, position)
  const { frames, endBytes: at } = followed
  position = followed.position
  if (at < bytes.length) refuseIfDurable(file, bytes, at, salt, position.sequence)
  return { bytes, frames, endBytes: at, tornBytes: tornBytes(bytes, at), isCurrent: header.isCurrent, position }
}

/** Good frames of a journal behind its header, as far as the chain holds. */
export function followFrames(
  bytes: Buffer,
  salt: number,
  before: JournalPosition
): Pick<JournalContent, 'frames' | 'endBytes' | 'position'> {
  const frames: Frame[] = []
  let position = before
  let at = JOURNAL_HEADER_BYTES
  for (;;) {
    const frame = parseFrame(bytes, at, salt)
    if (frame?.sequence !== position.sequence + 1 || frame.previousChecksum !== position.checksum) break
    frames.push(frame)
    position = { sequence: frame.sequence, checksum: frame.checksum }
    at = frame.end
  }
  return { frames, endBytes: at, position }
}

function readHeader(file: string, bytes: Buffer, salt: number): JournalHeader | undefined {
  try {
    return parseJournalHeader(bytes, salt)
  } catch (error) {
    if (error instanceof DamageError) throw damage(file, error.message)
    throw error
  }
}

function nothingOf(bytes: Buffer, position: JournalPosition): JournalContent {
  return { bytes, frames: [], endBytes: 0, tornBytes: tornBytes(bytes, 0), isCurrent: true, position }
}

function tornBytes(bytes: Buffer, from: number): number {
  let end = bytes.length
  while (end > from && bytes[end - 1] === 0) end--
  return end - from
}

/** A frame after the bad place that knows the bad one to have been durable makes it damage instead of a torn tail. */
function refuseIfDurable(file: string, bytes: Buffer, from: number, salt: number, lastGood: number): void {
  for (const frame of findFrames(bytes, from, salt)) {
    if (frame.durableSequence > lastGood) throw damage(file, `the change after number ${String(lastGood)} is damaged`)
  }
}

/** Of the journal or a snapshot, which `recover --salvage` reads as far as they are intact. */
export function damage(file: string, why: string): IntegrityError {
  return new IntegrityError(`the session's ${file} is damaged: ${why}`, { hint: salvageHint(path.dirname(file)) })
}

export function salvageHint(directory: string): string {
  return `nothing was changed. isrfs recover <vm> --salvage publishes what is intact as a branch, and keeps ${directory}; isrfs recover <vm> --discard gives these changes up`
}
