/**
 * Requests that the kernel never sends: random headers, bodies, names, handles and lengths against the whole tree in memory.
 * Each is answered exactly once (those that have no answer never), with a known errno or a body that fits.
 * ISRFS_REQUEST_RUNS sets how many; npm run test:long takes a million.
 */
import test from 'ava'
import { FailedError } from '../../src/base/errors.js'
import { ROOT_INODE } from '../../src/base/units.js'
import { createMessage, HEADER_BYTES, type Message } from '../../src/fuse/direct/answers.js'
import { negotiate } from '../../src/fuse/direct/negotiation.js'
import { IN_HEADER, INIT_IN, OPCODES } from '../../src/fuse/direct/protocol.js'
import type { Request } from '../../src/fuse/direct/request.js'
import { Requests } from '../../src/fuse/direct/requests.js'
import { RunningOperations } from '../../src/fuse/running-operations.js'
import { Tree } from '../../src/tree/tree.js'
import { Random } from '../support/random.js'
import { MemoryImage, MemorySession } from '../tree/stand-in.js'

const RUNS = Number(process.env['ISRFS_REQUEST_RUNS'] ?? 20_000)
const UNANSWERED: readonly number[] = [OPCODES.FORGET, OPCODES.BATCH_FORGET, OPCODES.INTERRUPT, OPCODES.NOTIFY_REPLY]

class Counted {
  readonly answers = new Map<bigint, number>()

  answer(unique: bigint, message: Message, bodyBytes: number): boolean {
    if (HEADER_BYTES + bodyBytes > message.bytes.length) throw new FailedError('an answer is too long')
    return this.#count(unique)
  }

  answerErrno(unique: bigint, errno: number): boolean {
    if (!Number.isInteger(errno) || errno < 0 || errno >= 512) throw new FailedError(`${errno} is no errno`)
    return this.#count(unique)
  }

  /** Now and then nobody waits for the answer any more. */
  #count(unique: bigint): boolean {
    this.answers.set(unique, (this.answers.get(unique) ?? 0) + 1)
    return unique % 13n !== 0n
  }
}

for (const asynchronous of [false, true]) {
  test(`whatever is asked${asynchronous ? ', also with late answers,' : ''} is answered once and never stops the owner`, async (t) => {
    const random = new Random()
    t.log(`seed ${random.seed}`)
    const session = new MemorySession()
    const image = new MemoryImage(session)
    image.asynchronous = asynchronous
    const tree = new Tree(session, image, { readOnly: false, writeback: true })
    const answers = new Counted()
    const errors: string[] = []
    const running = new RunningOperations((error, operation) => errors.push(`${operation}: ${String(error)}`))
    const onError = (error: unknown, operation: string) => errors.push(`${operation}: ${String(error)}`)
    const onInit = (request: Request): void => {
      request.take(INIT_IN)
      answers.answerErrno(request.unique, 0)
    }
    const requests = new Requests({ tree, running, answers, onError, onInit })
    const message = createMessage(70_000)
    for (let run = 1; run <= RUNS; run++) {
      const unique = BigInt(run)
      const lengthBytes = fill(message, random, unique)
      const { opcode } = IN_HEADER.read(message.view, 0)
      void requests.serve(message, lengthBytes, run % 2 === 0)
      const expected = UNANSWERED.includes(opcode) ? 0 : 1
      if (expected > 0 && answers.answers.get(unique) === undefined) await running.drained()
      if ((answers.answers.get(unique) ?? 0) !== expected) {
        t.fail(
          `opcode ${opcode} was answered ${answers.answers.get(unique) ?? 0} times: ${message.bytes.toString('hex', 0, 120)}`
        )
        return
      }
    }
    t.deepEqual(
      errors.filter((error) => !/unknown operation|too short|has no end/.test(error)),
      []
    )
    tree.releaseAll()
    t.is(tree.openHandles, 0)
    t.true([...session.namespace.inodes()].every((inode) => inode.id === ROOT_INODE || inode.parent !== 0))
  })
}

/** A request that is half right: known opcodes, small handles and inodes, names that exist. */
function fill({ bytes, view }: Message, random: Random, unique: bigint): number {
  const opcodes = Object.values(OPCODES)
  const opcode = random.below(20) === 0 ? random.below(2 ** 32) : opcodes[random.below(opcodes.length)]!
  const bodyBytes = random.below(6) === 0 ? random.below(4) : 8 * random.below(14)
  for (let at = IN_HEADER.bytes; at < IN_HEADER.bytes + bodyBytes + 8; at += 4) view.setUint32(at, word(random), true)
  let end = IN_HEADER.bytes + bodyBytes
  for (let names = random.below(3); names > 0; names--) {
    end += bytes.write(name(random), end)
    if (random.below(10) > 0) bytes[end++] = 0
  }
  if (random.below(50) === 0) end += random.below(60_000)
  const len = random.below(50) === 0 ? random.below(2 ** 32) : end
  IN_HEADER.write(view, 0, { len, opcode, unique, nodeid: random.below(3) === 0 ? word(random) : 1 + random.below(4) })
  if (random.below(50) === 0) view.setUint16(36, random.below(2 ** 16), true)
  return end
}

function word(random: Random): number {
  const kind = random.below(8)
  if (kind < 3) return 0
  if (kind < 6) return random.below(40)
  return kind === 6 ? random.below(70_000) : random.below(2 ** 32)
}

function name(random: Random): string {
  const names = ['a', 'b', 'c', 'd', '.', '..', '', 'x/y', '\u{1f600}', '\ufffd', 'n'.repeat(300), 'n'.repeat(255)]
  return names[random.below(names.length)]!
}

test('an unknown operation is answered ENOSYS each time and told of once; one that is not wanted is never told of', (t) => {
  const session = new MemorySession()
  const tree = new Tree(session, new MemoryImage(session), { readOnly: false, writeback: true })
  const told: string[] = []
  const errnos: number[] = []
  const answers = {
    answer: () => {
      t.fail('an answer with a body')
      return true
    },
    answerErrno: (_unique: bigint, errno: number) => errnos.push(errno) > 0
  }
  const onError = (error: unknown) => told.push(String(error))
  const running = new RunningOperations(onError)
  const requests = new Requests({ tree, running, answers, onError, onInit: () => undefined })
  const message = createMessage(100)
  for (const opcode of [4096, 4096, OPCODES.GETXATTR, 77, 4096, OPCODES.COPY_FILE_RANGE, OPCODES.POLL]) {
    IN_HEADER.write(message.view, 0, { len: IN_HEADER.bytes, opcode, unique: 1n, nodeid: 1 })
    void requests.serve(message, IN_HEADER.bytes, true)
  }
  t.deepEqual(errnos, Array<number>(7).fill(38))
  t.is(told.length, 2)
  t.regex(told.join(), /number 4096.*number 77/)
})

test('what is agreed with a kernel: its flags at most, our version at most, nothing with one that is too old', (t) => {
  const offer = { major: 7, minor: 45, maxReadahead: 131_072, flags: 0xffffffff }
  const agreed = negotiate(offer, true)
  t.is(agreed.kind, 'agreed')
  if (agreed.kind !== 'agreed') return
  t.is(agreed.out.minor, 38)
  t.is(agreed.out.maxPages, 256)
  t.truthy(agreed.out.flags & (1 << 16))
  const without = negotiate(offer, false)
  t.falsy(without.kind === 'agreed' && without.out.flags & (1 << 16))
  const poor = negotiate({ ...offer, minor: 31, flags: 1 }, true)
  t.true(poor.kind === 'agreed' && poor.out.flags === 1 && poor.out.minor === 31)
  t.deepEqual(negotiate({ ...offer, minor: 30 }, true), { kind: 'too-old', version: '7.30' })
  t.is(negotiate({ ...offer, major: 8 }, true).kind, 'again')
})
