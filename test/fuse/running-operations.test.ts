/** Every operation is answered exactly once, whatever happens in it; draining waits for all of them. */
import test from 'ava'
import { IntegrityError, PosixError, ShareError } from '../../src/base/errors.js'
import { RunningOperations } from '../../src/fuse/running-operations.js'

function setUp(onError: (error: unknown, operation: string) => void = () => undefined) {
  const answers: unknown[] = []
  const reported: string[] = []
  const running = new RunningOperations((error, operation) => {
    reported.push(operation)
    onError(error, operation)
  })
  const answer = { done: (value: unknown) => answers.push(value), failed: (errno: number) => answers.push(-errno) }
  return { running, answers, reported, answer }
}

test('a synchronous result is answered synchronously', (t) => {
  const { running, answers, answer } = setUp()
  running.run('read', answer, () => 5)
  running.run('read', answer, () => {
    throw new PosixError('ENOENT')
  })
  t.deepEqual(answers, [5, -2])
})

test('only a PosixError reaches a program; everything else is EIO and is reported', async (t) => {
  const { running, answers, reported, answer } = setUp()
  const system = Object.assign(new Error('local'), { code: 'EACCES' })
  for (const error of [
    new ShareError('ENOENT', '/share', 'gone'),
    new IntegrityError('bad'),
    system,
    new TypeError('x')
  ]) {
    running.run('sync', answer, () => {
      throw error
    })
    running.run('async', answer, () => Promise.reject(error))
  }
  await running.drained()
  t.deepEqual(
    answers,
    Array.from({ length: 8 }, () => -5)
  )
  t.is(reported.length, 8)
})

test('draining waits for what is running, and an answer that throws does not count twice', async (t) => {
  const { running, reported } = setUp()
  let finish: (value: number) => void = () => undefined
  let answered = 0
  const answer = {
    done: () => {
      answered++
      throw new Error('the binding is gone')
    },
    failed: () => answered++
  }
  running.run('read', answer, () => new Promise<number>((resolve) => (finish = resolve)))
  let drained = false
  const draining = running.drained().then(() => (drained = true))
  await new Promise((resolve) => setImmediate(resolve))
  t.false(drained)
  finish(1)
  await draining
  t.is(answered, 1)
  t.deepEqual(reported, ['read'])
})

test('a listener that throws takes nothing with it', async (t) => {
  const { running, answers, answer } = setUp(() => {
    throw new Error('the log is full')
  })
  const warned = new Promise((resolve) => process.once('warning', resolve))
  running.run('read', answer, () => {
    throw new Error('defect')
  })
  t.deepEqual(answers, [-5])
  await warned
})
