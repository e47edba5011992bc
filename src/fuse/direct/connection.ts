/** The owner's side of the connection to the kernel: answers and notifications are single writes that never wait. */
import fs from 'node:fs'
import { errnoOf } from '../../base/errors.js'
import { createMessage, HEADER_BYTES, type Message } from './answers.js'
import { OUT_HEADER } from './protocol.js'

export class Connection {
  readonly descriptor: number
  readonly #small = createMessage(0)

  constructor(descriptor: number) {
    this.descriptor = descriptor
  }

  /** False when nobody waits for the answer any more: what the request did must then be undone, where the kernel counts. */
  answer(unique: bigint, message: Message, bodyBytes: number): boolean {
    const length = HEADER_BYTES + bodyBytes
    OUT_HEADER.write(message.view, 0, { len: length, unique })
    return writeAnswer(this.descriptor, message.bytes, length)
  }

  /** `errno` is positive; 0 is an answer without a body. */
  answerErrno(unique: bigint, errno: number): boolean {
    OUT_HEADER.write(this.#small.view, 0, { len: HEADER_BYTES, error: -errno, unique })
    return writeAnswer(this.descriptor, this.#small.bytes, HEADER_BYTES)
  }

  /** The last reader must have ended: the kernel aborts what is left of the mount. */
  close(): void {
    fs.closeSync(this.descriptor)
  }
}

/** One whole message; false when the kernel does not want it any more. */
export function writeAnswer(descriptor: number, bytes: Buffer, length: number): boolean {
  for (;;) {
    try {
      fs.writeSync(descriptor, bytes, 0, length)
      return true
    } catch (error) {
      switch (errnoOf(error)) {
        case 'EINTR':
        case 'EAGAIN':
          continue
        case 'ENOENT': // interrupted, or forgotten by the kernel
        case 'ENODEV': // unmounted
        case 'ECONNABORTED':
        case 'EPERM': // the mount is gone
          return false
        default:
          throw error
      }
    }
  }
}
