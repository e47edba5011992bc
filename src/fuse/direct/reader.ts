/**
 * A reader thread: blocks in read(2) on the connection to the kernel, answers what it can (thread-answers.ts) and hands
 * the rest to the owner. It ends when the mount has ended, or when it finds the stop flag after a request. Nothing can interrupt it while it waits in the kernel
 * (neither terminate() nor process.exit()), so whoever wants it to stop sees to a last request, see readers.ts.
 */
import fs from 'node:fs'
import { parentPort, type MessagePort } from 'node:worker_threads'
import { errnoOf } from '../../base/errors.js'
import { IN_HEADER } from './protocol.js'
import type { ReaderData } from './readers.js'
import { RequestQueue } from './request-queue.js'
import { ThreadAnswers } from './thread-answers.js'

const owner = parentPort as MessagePort // this is a thread
// what readers.ts sends first, and nothing else
const data = await new Promise<ReaderData>((resolve) => owner.once('message', resolve))
const { descriptor, memory, reader, readers, shared } = data
const queue = new RequestQueue(readers, memory)
const answers = shared === undefined ? undefined : new ThreadAnswers(descriptor, reader, shared)

for (;;) {
  const index = queue.takeSlot(reader) // the same again while its requests are answered here
  const slot = index === undefined ? undefined : queue.slots[index]
  if (index === undefined || slot === undefined) break
  const lengthBytes = readRequest(slot.bytes)
  if (lengthBytes === undefined) break
  if (lengthBytes < IN_HEADER.bytes) continue // nothing that could be answered
  if (answers?.answer(slot, lengthBytes) === true) continue
  if (queue.publish(queue.moveToSmall(reader, index, lengthBytes), lengthBytes)) owner.postMessage(0)
}

/** undefined: the mount has ended. */
function readRequest(into: Buffer): number | undefined {
  for (;;) {
    try {
      return fs.readSync(descriptor, into, 0, into.length, null)
    } catch (error) {
      switch (errnoOf(error)) {
        case 'EINTR':
        case 'EAGAIN':
        case 'ENOENT': // the request was withdrawn before it was read
          continue
        case 'ENODEV': // unmounted
        case 'ECONNABORTED':
          return undefined
        default:
          throw error
      }
    }
  }
}
