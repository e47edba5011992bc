/** What a mount shows the share, and what it learns of it, beat by beat. The beats come when the test says so. */
import test, { type ExecutionContext } from 'ava'
import pino from 'pino'
import { IntegrityError, ShareError } from '../../src/base/errors.js'
import { BEAT_INTERVAL_MS, LeaseRight, PinRight } from '../../src/daemon/right.js'
import type { SharePool } from '../../src/fetch/share-pool.js'
import type { LeaseHolder } from '../../src/share/lease.js'

const HELD = { number: 3, token: 'ab'.repeat(16), generation: null, takenBack: undefined }
const HOLDER: LeaseHolder = { client: 'ab'.repeat(16), host: 'h', user: 'u', pid: 1, boot: 'b', mountpoint: '/m' }
const away = new ShareError('ENODEV', '/share/vm', 'there is no VM at /share/vm any more')

type Answers = Record<string, () => unknown>

/** A pool that answers at once. */
function poolOf(answers: Answers, asked: string[] = []): SharePool {
  const run = (name: string): Promise<unknown> => {
    asked.push(name)
    return new Promise((resolve) => resolve(answers[name]?.()))
  }
  return { run } as unknown as SharePool // all that a right uses of it
}

function refuse(error: Error): never {
  throw error
}

function logOf(): { readonly log: pino.Logger; readonly events: string[] } {
  const events: string[] = []
  const write = (line: string): void => void events.push((JSON.parse(line) as { event: string }).event)
  return { log: pino({}, { write }), events }
}

/** Beats come when the returned function is called; it resolves when they are answered. */
function takeBeats(t: ExecutionContext): () => Promise<void> {
  const real = globalThis.setInterval
  const beats: (() => void)[] = []
  globalThis.setInterval = ((callback: () => void, ms: number) => {
    if (ms !== BEAT_INTERVAL_MS) return real(callback, ms)
    beats.push(callback)
    return undefined
  }) as typeof setInterval
  t.teardown(() => (globalThis.setInterval = real))
  return async () => {
    for (const each of beats) each()
    await new Promise((resolve) => setTimeout(resolve, 10)) // the pool answers at once
  }
}

test.serial(
  'a lease whose share is away is not lost: its beats go on, and the share answers when it is back',
  async (t) => {
    const beat = takeBeats(t)
    const { log, events } = logOf()
    const answers: Answers = { beatLease: () => refuse(away) }
    const right = new LeaseRight(poolOf(answers), log, HELD)
    await beat()
    await beat()
    t.is(right.lease, 'held')
    t.false(right.shareAnswers)
    answers['beatLease'] = () => true
    const { beatenMs } = right
    await new Promise((resolve) => setTimeout(resolve, 5))
    await beat()
    t.is(right.lease, 'held')
    t.true(right.shareAnswers)
    t.true((right.beatenMs ?? 0) > (beatenMs ?? 0))
    t.deepEqual(events, ['share-silent', 'share-answers'])
  }
)

test.serial('a beat that is under way when the lease is given back finds no lease, and that is no loss', async (t) => {
  const beat = takeBeats(t)
  const { log, events } = logOf()
  let answer = (_stillHeld: boolean): void => undefined
  const answers: Answers = { beatLease: () => new Promise<boolean>((resolve) => (answer = resolve)) }
  const right = new LeaseRight(poolOf(answers), log, HELD)
  await beat()
  right.stop()
  answer(false)
  await new Promise((resolve) => setTimeout(resolve, 10))
  t.is(right.lease, 'held')
  t.deepEqual(events, [])
})

test.serial('whoever has lost the lease goes on asking the share, and shows nothing there', async (t) => {
  const beat = takeBeats(t)
  const { log, events } = logOf()
  const asked: string[] = []
  const answers: Answers = { beatLease: () => false }
  const right = new LeaseRight(poolOf(answers, asked), log, HELD)
  await beat()
  t.is(right.lease, 'lost')
  t.true(right.shareAnswers)
  answers['openVm'] = () => refuse(away)
  await beat()
  t.false(right.shareAnswers)
  answers['openVm'] = () => ({})
  await beat()
  t.true(right.shareAnswers)
  answers['openVm'] = () => refuse(new IntegrityError('vm.json is damaged'))
  await beat()
  t.true(right.shareAnswers, 'it answers, whatever it says')
  t.is(right.lease, 'lost')
  t.deepEqual(asked, ['beatLease', 'openVm', 'openVm', 'openVm'])
  t.deepEqual(events, ['lease-lost', 'share-silent', 'share-answers'])
})

test.serial('a mount that could not be noted on the share knows all the same whether the share answers', async (t) => {
  const beat = takeBeats(t)
  const { log } = logOf()
  const asked: string[] = []
  const answers: Answers = { createPin: () => refuse(new ShareError('EROFS', '/share/vm', 'the share is read-only')) }
  const right = await PinRight.create(poolOf(answers, asked), log, HOLDER, 1)
  t.is(right.lease, 'none')
  t.is(right.beatenMs, undefined)
  await beat()
  t.true(right.shareAnswers)
  answers['openVm'] = () => refuse(away)
  await beat()
  t.false(right.shareAnswers)
  answers['openVm'] = () => ({})
  await beat()
  t.true(right.shareAnswers)
  t.is(right.beatenMs, undefined, 'nothing was shown')
  await right.giveBack({ number: 1, digest: 'cd'.repeat(32) })
  t.deepEqual(asked, ['createPin', 'openVm', 'openVm', 'openVm'])
})
