/** The owner looks for requests before it sleeps only as long as that pays. The clock is the test's. */
import test from 'ava'
import { Polling } from '../../src/fuse/direct/polling.js'

function polling(): { polling: Polling; pass: (milliseconds: number) => void } {
  let now = 0
  return { polling: new Polling(() => (now += 0.001)), pass: (milliseconds) => (now += milliseconds) }
}

test('it is worthwhile after requests in a row that came right after the owner had fallen asleep', (t) => {
  const { polling: one, pass } = polling()
  const sleep = (milliseconds: number): void => {
    one.noteSleep()
    pass(milliseconds)
    one.noteWake()
  }
  for (let count = 0; count < 3; count++) sleep(0.02)
  sleep(50)
  t.false(one.isWorthwhile)
  for (let count = 0; count < 4; count++) sleep(0.02)
  t.true(one.isWorthwhile)
})

test('it ends after polls in a row that were in vain, and has an end each time', (t) => {
  const { polling: one } = polling()
  for (let count = 0; count < 4; count++) {
    one.noteSleep()
    one.noteWake()
  }
  let looks = 0
  const isThird = (): boolean => ++looks % 3 === 0
  t.true(one.poll(isThird))
  for (let count = 0; count < 3; count++) t.false(one.poll(() => false))
  t.true(one.isWorthwhile)
  t.true(one.poll(isThird))
  for (let count = 0; count < 4; count++) t.false(one.poll(() => false))
  t.false(one.isWorthwhile)
})
