/**
 * Makes a copy of a damaged session one that can be opened: everything from the first damaged change on is left out.
 *
 *     newest snapshot that is whole (else what can be told of the newest one, else the base)
 *       -> journals behind it, up to the first frame that is damaged, does not follow, or does not fit
 *       -> what is left out is counted, and barriers in it are kept: they vouch for bytes of pages before the damage
 *
 * Never called with the session itself: what is cut here would be gone.
 */
import fs from 'node:fs'
import path from 'node:path'
import { closeQuietly } from '../base/close-quietly.js'
import { FailedError, IntegrityError, messageOf } from '../base/errors.js'
import type { InodeId } from '../base/units.js'
import { ByteWriter, DamageError } from './bytes.js'
import { salvageSnapshot } from './damaged-snapshot.js'
import { realDisk } from './disk.js'
import {
  encodeJournalHeader,
  findFrames,
  type Frame,
  FRAME_KINDS,
  JOURNAL_HEADER_BYTES,
  type JournalHeader,
  parseFrame,
  parseJournalHeader
} from './frame.js'
import { readSessionFile } from './identity.js'
import { beginFrame, followFrames, Journal, journalName, journalNumbers, type JournalPosition } from './journal.js'
import { decodeBarrier } from './journaled-pages.js'
import { LOST_FILE, LostWrites } from './lost-writes.js'
import { type BaseImage, Namespace } from './namespace.js'
import { recordsOf, snapshotName, snapshotNumbers } from './recovery.js'
import { decodeSnapshot, encodeSnapshot, hasChecksum } from './snapshot.js'

const NAMES_MAX = 20

/** What the copy has lost, for people; nothing when it was not damaged. */
export function salvageCopy(directory: string, base: BaseImage): string[] {
  const file = readSessionFile(directory)
  if (file === undefined) throw new FailedError(`there is no session in ${directory}`)
  return new Salvaging(directory, file.salt, base).run()
}

/** A frame that is left out. */
interface LeftOut {
  readonly bytes: Buffer
  readonly frame: Frame
}

interface Read {
  readonly number: number
  readonly bytes: Buffer
  /** good frames end here */
  readonly endBytes: number
  readonly position: JournalPosition
}

class Salvaging {
  readonly #directory: string
  readonly #salt: number
  readonly #base: BaseImage
  readonly #lost: string[] = []
  #namespace: Namespace
  #doesNotFit = false

  constructor(directory: string, salt: number, base: BaseImage) {
    this.#directory = directory
    this.#salt = salt
    this.#base = base
    this.#namespace = new Namespace(base)
  }

  run(): string[] {
    const first = this.#chooseStart()
    this.#followJournals(first)
    this.#readLostWrites()
    return this.#lost
  }

  /** The journal to begin with; snapshots that are not used are removed. */
  #chooseStart(): number {
    const numbers = snapshotNumbers(this.#directory)
    const damaged: number[] = []
    for (const number of numbers.toReversed()) {
      const image = this.#readSnapshot(number)
      if (image !== undefined && (damaged.length === 0 || this.#hasJournal(number))) {
        this.#namespace = new Namespace(image)
        this.#dropSnapshots(damaged, `${snapshotName(number)} and the journals behind it have what was in it`)
        return number
      }
      damaged.push(number)
    }
    const [newest] = damaged
    if (newest === undefined) return 0
    if (this.#hasJournal(0)) {
      this.#dropSnapshots(damaged, 'the journals have what was in it')
      return 0
    }
    this.#dropSnapshots(damaged.slice(1))
    const file = this.#path(snapshotName(newest))
    const { image, inodes, isComplete, moved } = salvageSnapshot(fs.readFileSync(file), this.#base)
    this.#namespace = new Namespace(image)
    fs.writeFileSync(file, encodeSnapshot(this.#namespace, this.#salt))
    const end = isComplete ? '' : '; behind that it makes no sense, and what was created or changed there is lost'
    const names = moved.length === 0 ? '' : `; what had no place any more has a name in the root: ${listed(moved)}`
    this.#lost.push(
      `${snapshotName(newest)} is damaged, nobody knows where: ${String(inodes)} files and directories were read from it${end}${names}. Any name, size or attribute may be wrong, and any page old`
    )
    return newest
  }

  /** undefined: it is damaged. */
  #readSnapshot(number: number): BaseImage | undefined {
    const bytes = fs.readFileSync(this.#path(snapshotName(number)))
    try {
      return decodeSnapshot(bytes, this.#salt, this.#base)
    } catch (error) {
      if (!(error instanceof DamageError)) throw error
      if (hasChecksum(bytes)) throw this.#refusal(snapshotName(number), error)
      return undefined
    }
  }

  #dropSnapshots(numbers: readonly number[], instead?: string): void {
    for (const number of numbers) {
      fs.rmSync(this.#path(snapshotName(number)))
      if (instead !== undefined) this.#lost.push(`${snapshotName(number)} is damaged; ${instead}`)
    }
  }

  #followJournals(first: number): void {
    const numbers = journalNumbers(this.#directory).filter((number) => number >= first)
    let read: Read = { number: first, bytes: Buffer.alloc(0), endBytes: 0, position: { sequence: 0, checksum: 0 } }
    for (let number = first; ; number++) {
      if (!numbers.includes(number)) {
        if (number === first || numbers.some((each) => each > number)) this.#cut(read, numbers)
        return
      }
      read = this.#readJournal(number, number === first ? undefined : read.position)
      if (this.#isDamagedAfter(read, numbers, first)) {
        this.#cut(read, numbers)
        return
      }
    }
  }

  /** `expected` is where the chain stood before it. */
  #readJournal(number: number, expected: JournalPosition | undefined): Read {
    const bytes = fs.readFileSync(this.#path(journalName(number)))
    const header = this.#headerOf(number, bytes, expected)
    if (header === undefined || (expected !== undefined && !isSame(expected, beforeFirst(header)))) {
      return { number, bytes, endBytes: 0, position: expected ?? { sequence: 0, checksum: 0 } }
    }
    return this.#replay(number, bytes, beforeFirst(header))
  }

  /** As opening a session decides: else what follows is a torn tail. */
  #isDamagedAfter(read: Read, numbers: readonly number[], first: number): boolean {
    if (this.#doesNotFit || (read.endBytes === 0 && read.number === first)) return true
    if (read.endBytes === read.bytes.length) return false
    return this.#framesAfter(read, numbers).some(({ frame }) => frame.durableSequence > read.position.sequence)
  }

  /** The journal's header; one that is damaged is made anew when the first frame tells what was in it. */
  #headerOf(number: number, bytes: Buffer, position: JournalPosition | undefined): JournalHeader | undefined {
    try {
      const header = parseJournalHeader(bytes, this.#salt)
      if (header !== undefined) return header
    } catch (error) {
      if (error instanceof DamageError) throw this.#refusal(journalName(number), error)
      throw error
    }
    const frame = parseFrame(bytes, JOURNAL_HEADER_BYTES, this.#salt)
    if (frame === undefined) return undefined
    const before = { sequence: frame.sequence - 1, checksum: frame.previousChecksum }
    if (position !== undefined && !isSame(position, before)) return undefined
    const made = { number, firstSequence: frame.sequence, previousChecksum: frame.previousChecksum }
    encodeJournalHeader(made, this.#salt).copy(bytes)
    fs.writeFileSync(this.#path(journalName(number)), bytes)
    this.#lost.push(`the beginning of ${journalName(number)} was damaged, and was mended: nothing of it is lost`)
    return { isCurrent: true, ...made }
  }

  #replay(number: number, bytes: Buffer, before: JournalPosition): Read {
    const followed = followFrames(bytes, this.#salt, before)
    let endBytes = JOURNAL_HEADER_BYTES
    let position = before
    for (const frame of followed.frames) {
      if (frame.kind === FRAME_KINDS.change && !this.#apply(bytes, frame)) return { number, bytes, endBytes, position }
      endBytes = frame.end
      position = { sequence: frame.sequence, checksum: frame.checksum }
    }
    return { number, bytes, endBytes, position }
  }

  /** Whether all of its records fit. */
  #apply(bytes: Buffer, frame: Frame): boolean {
    try {
      for (const record of recordsOf(bytes, frame)) this.#namespace.apply(record)
      return true
    } catch (error) {
      this.#doesNotFit = true
      this.#lost.push(`change ${String(frame.sequence)} does not fit: ${messageOf(error)}`)
      return false
    }
  }

  /** All whole frames behind the good ones, in this journal and in later ones. */
  #framesAfter({ number, bytes, endBytes }: Read, numbers: readonly number[]): LeftOut[] {
    const here = [...findFrames(bytes, endBytes, this.#salt)].map((frame) => ({ bytes, frame }))
    const later = numbers
      .filter((each) => each > number)
      .flatMap((each) => {
        const content = fs.readFileSync(this.#path(journalName(each)))
        return [...findFrames(content, 0, this.#salt)].map((frame) => ({ bytes: content, frame }))
      })
    return [...here, ...later]
  }

  #cut(read: Read, numbers: readonly number[]): void {
    const { number, endBytes, position } = read
    const left = this.#framesAfter(read, numbers)
    const changes = left.filter(({ frame }) => frame.kind === FRAME_KINDS.change)
    const names = new Set(changes.flatMap((each) => this.#namesIn(each)))
    const bytes = left.reduce((total, { frame }) => total + frame.payloadEnd - frame.payloadStart, 0)
    const about = names.size === 0 ? '' : `, of: ${listed([...names])}`
    this.#lost.push(
      `${journalName(number)} is damaged behind change ${String(position.sequence)} (byte ${String(endBytes)}): what was there, and ${String(changes.length)} later changes that are whole (${String(bytes)} bytes of the journal)${about}, were left out. Bytes that were written later into parts of files that had been changed before are there`
    )
    for (const later of journalNumbers(this.#directory)) {
      if (later > number) fs.rmSync(this.#path(journalName(later)))
    }
    const journal = this.#journalCutAt(read)
    try {
      for (const [inode, through] of barriersOf(left))
        appendBarrier(journal, inode, Math.min(through, position.sequence))
    } finally {
      closeQuietly(journal.descriptor)
    }
  }

  #journalCutAt({ number, endBytes, position }: Read): Journal {
    if (endBytes < JOURNAL_HEADER_BYTES) return Journal.create(this.#directory, number, this.#salt, position, realDisk)
    const descriptor = fs.openSync(this.#path(journalName(number)), 'r+')
    fs.ftruncateSync(descriptor, endBytes)
    return new Journal({ number, descriptor, salt: this.#salt, disk: realDisk, bytes: endBytes, position })
  }

  #namesIn({ bytes, frame }: LeftOut): string[] {
    try {
      return [...recordsOf(bytes, frame)].flatMap((record) => {
        if ('name' in record) return record.name
        const name = 'inode' in record ? this.#namespace.get(record.inode)?.name : undefined
        return name === undefined || name === '' ? [] : name
      })
    } catch {
      return []
    }
  }

  /** Writes that were lost before are told with it. A list of them that cannot be read is damage, too. */
  #readLostWrites(): void {
    try {
      const before = new LostWrites(this.#directory).all()
      if (this.#lost.length > 0) this.#lost.push(...before.map((why) => `lost before: ${why}`))
    } catch (error) {
      if (!(error instanceof IntegrityError)) throw error
      fs.rmSync(this.#path(LOST_FILE))
      this.#lost.push(
        `${LOST_FILE} is damaged: writes that programs had been told of were lost, and nobody knows which`
      )
    }
  }

  #hasJournal(number: number): boolean {
    return fs.existsSync(this.#path(journalName(number)))
  }

  #path(name: string): string {
    return path.join(this.#directory, name)
  }

  #refusal(name: string, { message }: DamageError): FailedError {
    return new FailedError(`${name} of the session is not damaged, and cannot be read: ${message}`, {
      hint: 'use the isrfs that has made it; nothing was changed'
    })
  }
}

function beforeFirst({ firstSequence, previousChecksum }: JournalHeader): JournalPosition {
  return { sequence: firstSequence - 1, checksum: previousChecksum }
}

function isSame(one: JournalPosition, other: JournalPosition): boolean {
  return one.sequence === other.sequence && one.checksum === other.checksum
}

/** For each inode (0: all) the last sequence that a barrier vouches for. */
function barriersOf(left: readonly LeftOut[]): Map<number, number> {
  const found = new Map<number, number>()
  for (const { bytes, frame } of left) {
    if (frame.kind !== FRAME_KINDS.barrier && frame.kind !== FRAME_KINDS.bytes) continue
    const { inode, through } = decodeBarrier(bytes, frame)
    found.set(inode, Math.max(found.get(inode) ?? 0, through))
  }
  return found
}

function appendBarrier(journal: Journal, inode: InodeId | number, through: number): void {
  const writer = new ByteWriter(JOURNAL_HEADER_BYTES * 2)
  beginFrame(writer)
  writer.u64(inode)
  writer.u64(through)
  journal.append(writer, FRAME_KINDS.barrier, 0, 0)
}

function listed(names: readonly string[]): string {
  const more = names.length > NAMES_MAX ? ` and ${String(names.length - NAMES_MAX)} more` : ''
  return names.slice(0, NAMES_MAX).join(', ') + more
}
