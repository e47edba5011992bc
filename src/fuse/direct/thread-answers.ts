/**
 * What a reader thread answers itself: READs of pages that the owner has published and WRITEs into pages that the session has
 * (base/region-table.ts). Everything else, and whatever goes wrong here, is the owner's. Nothing is allocated for a request, and nothing waits but for the local disk.
 */
import fs from 'node:fs'
import { readShared, writeShared } from '../../base/region-table.js'
import { count } from '../../base/thread-counters.js'
import { BODY_BYTES_MAX, createMessage, HEADER_BYTES, type Message } from './answers.js'
import { writeAnswer } from './connection.js'
import { IN_HEADER, OPCODES, OUT_HEADER, READ_IN, WRITE_IN, WRITE_OUT } from './protocol.js'

const WORD = 2 ** 32
const LENGTH_AT = IN_HEADER.offsetOf('len')
const OPCODE_AT = IN_HEADER.offsetOf('opcode')
const UNIQUE_AT = IN_HEADER.offsetOf('unique')
const INODE_AT = IN_HEADER.offsetOf('nodeid')
const EXTENSIONS_AT = IN_HEADER.offsetOf('totalExtlen')
const READ_OFFSET_AT = IN_HEADER.bytes + READ_IN.offsetOf('offset')
const READ_SIZE_AT = IN_HEADER.bytes + READ_IN.offsetOf('size')
const WRITE_OFFSET_AT = IN_HEADER.bytes + WRITE_IN.offsetOf('offset')
const WRITE_SIZE_AT = IN_HEADER.bytes + WRITE_IN.offsetOf('size')
const WRITE_BYTES_AT = IN_HEADER.bytes + WRITE_IN.bytes
const WRITTEN_AT = HEADER_BYTES + WRITE_OUT.offsetOf('size')
const OUT_LENGTH_AT = OUT_HEADER.offsetOf('len')
const OUT_ERROR_AT = OUT_HEADER.offsetOf('error')
const OUT_UNIQUE_AT = OUT_HEADER.offsetOf('unique')

/** What the owner shares with its threads. */
export interface SharedState {
  readonly table: Int32Array
  readonly counters: Float64Array
}

export class ThreadAnswers {
  readonly #descriptor: number
  readonly #thread: number
  readonly #table: Int32Array
  readonly #counters: Float64Array
  readonly #message = createMessage(BODY_BYTES_MAX)

  constructor(descriptor: number, thread: number, { table, counters }: SharedState) {
    this.#descriptor = descriptor
    this.#thread = thread
    this.#table = table
    this.#counters = counters
  }

  /** Whether it has answered the request; otherwise the owner has to do all of it. */
  answer(request: Message, lengthBytes: number): boolean {
    switch (request.view.getUint32(OPCODE_AT, true)) {
      case OPCODES.READ:
        return this.#read(request, lengthBytes)
      case OPCODES.WRITE:
        return this.#write(request, lengthBytes)
      default:
        return false
    }
  }

  #read({ view }: Message, lengthBytes: number): boolean {
    if (lengthBytes !== IN_HEADER.bytes + READ_IN.bytes || !isPlain(view, lengthBytes)) return false
    const size = view.getUint32(READ_SIZE_AT, true)
    if (size > BODY_BYTES_MAX) return false
    const low = view.getInt32(INODE_AT, true)
    const high = view.getInt32(INODE_AT + 4, true)
    const offset = offsetAt(view, READ_OFFSET_AT)
    const { bytes } = this.#message
    if (!readShared(this.#table, low, high, bytes, HEADER_BYTES, offset, size, readFully)) return false
    this.#send(view, size)
    count(this.#counters, this.#thread, 'reads', 1)
    count(this.#counters, this.#thread, 'readBytes', size)
    return true
  }

  #write({ bytes, view }: Message, lengthBytes: number): boolean {
    if (lengthBytes < WRITE_BYTES_AT || !isPlain(view, lengthBytes)) return false
    const size = view.getUint32(WRITE_SIZE_AT, true)
    if (WRITE_BYTES_AT + size !== lengthBytes) return false
    const low = view.getInt32(INODE_AT, true)
    const high = view.getInt32(INODE_AT + 4, true)
    const offset = offsetAt(view, WRITE_OFFSET_AT)
    if (!writeShared(this.#table, low, high, bytes, WRITE_BYTES_AT, offset, size, writeFully)) return false
    this.#message.bytes.fill(0, HEADER_BYTES, HEADER_BYTES + WRITE_OUT.bytes)
    this.#message.view.setUint32(WRITTEN_AT, size, true)
    this.#send(view, WRITE_OUT.bytes)
    count(this.#counters, this.#thread, 'writes', 1)
    count(this.#counters, this.#thread, 'writtenBytes', size)
    return true
  }

  /** Whether anybody still waits for it is of no interest: what was done is done. */
  #send(request: DataView, bodyBytes: number): void {
    const { bytes, view } = this.#message
    const length = HEADER_BYTES + bodyBytes
    view.setUint32(OUT_LENGTH_AT, length, true)
    view.setInt32(OUT_ERROR_AT, 0, true)
    view.setUint32(OUT_UNIQUE_AT, request.getUint32(UNIQUE_AT, true), true)
    view.setUint32(OUT_UNIQUE_AT + 4, request.getUint32(UNIQUE_AT + 4, true), true)
    writeAnswer(this.#descriptor, bytes, length)
  }
}

/** of a READ or WRITE; what is beyond 2^53 is beyond every region */
function offsetAt(view: DataView, at: number): number {
  return view.getUint32(at + 4, true) * WORD + view.getUint32(at, true)
}

/** Says how long it is, and brings no extensions. */
function isPlain(view: DataView, lengthBytes: number): boolean {
  return view.getUint32(LENGTH_AT, true) === lengthBytes && view.getUint16(EXTENSIONS_AT, true) === 0
}

function readFully(descriptor: number, into: Uint8Array, at: number, length: number, position: number): boolean {
  try {
    for (let done = 0; done < length;) {
      const bytes = fs.readSync(descriptor, into, at + done, length - done, position + done)
      if (bytes === 0) return false
      done += bytes
    }
    return true
  } catch {
    return false // the owner meets the same trouble and says so
  }
}

function writeFully(descriptor: number, bytes: Uint8Array, at: number, length: number, position: number): boolean {
  try {
    for (let done = 0; done < length;) {
      const written = fs.writeSync(descriptor, bytes, at + done, length - done, position + done)
      if (written === 0) return false
      done += written
    }
    return true
  } catch {
    return false // a full disk, a broken one: the owner holds the write, or says so
  }
}
