/** The log: bounded, quiet, and one JSON object a line with the fields that docs/logs.md names. */
import fs from 'node:fs'
import path from 'node:path'
import { setImmediate } from 'node:timers/promises'
import test from 'ava'
import { openLog, quietly } from '../../src/daemon/log.js'
import { event, EVENTS } from '../../src/daemon/log-events.js'
import { LogFile } from '../../src/daemon/log-file.js'
import { Quiet } from '../../src/daemon/quiet.js'
import { Bed } from '../support/bed.js'

const linesOf = (file: string): Record<string, unknown>[] =>
  fs
    .readFileSync(file, 'utf8')
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => JSON.parse(line) as Record<string, unknown>)

test('files are bounded in size and number, and the newest lines are in the first', async (t) => {
  const bed = new Bed('log')
  const file = bed.path('new', 'mount.log')
  const log = new LogFile(file, { bytesMax: 100, filesMax: 3 })
  for (let number = 0; number < 50; number++) {
    log.write(`${JSON.stringify({ number, text: 'x'.repeat(10) })}\n`)
    if (number % 5 === 0) await setImmediate() // files that are full are closed a turn later
  }
  const numbers = ['.2', '.1', ''].flatMap((end) => linesOf(file + end).map((line) => line['number'] as number))
  t.deepEqual(fs.readdirSync(path.dirname(file)).sort(), ['mount.log', 'mount.log.1', 'mount.log.2'])
  t.deepEqual(
    numbers,
    numbers.map((_number, index) => 50 - numbers.length + index)
  )
  t.true(numbers.length >= 5)
  for (const end of ['', '.1', '.2']) t.true(fs.statSync(file + end).size <= 100)
  const again = new LogFile(file, { bytesMax: 100, filesMax: 1 })
  for (let number = 50; number < 60; number++) again.write(`${JSON.stringify({ number })}\n`)
  await setImmediate()
  t.true(fs.statSync(file).size <= 100)
  t.is(linesOf(file).at(-1)?.['number'], 59)
  await bed.destroy()
})

test('a file that cannot be written stops nobody', async (t) => {
  const bed = new Bed('log')
  const log = new LogFile('/dev/full', { bytesMax: 10 ** 6, filesMax: 2 })
  t.notThrows(() => {
    for (let number = 0; number < 1000; number++) log.write('a line that is never written\n'.repeat(100))
  })
  t.true(fs.statSync('/dev/full').isCharacterDevice(), 'a device is never moved away')
  await bed.destroy()
})

test('every line has time, level, process, event and message, and the facts of the mount', async (t) => {
  const bed = new Bed('log')
  const file = bed.path('log')
  const log = openLog(file, { vm: '/s/v', mountpoint: '/m' }, { bytesMax: 10 ** 6, filesMax: 2 })
  log.info(event('mounted', { generation: 3 }), 'mounted')
  log.warn('something')
  const quiet = quietly(log)
  for (let count = 0; count < 100; count++) quiet.warn('the disk is full')
  for (let count = 0; count < 100; count++) quiet.damage(`chunk ${count % 2}`)
  for (let count = 0; count < 100; count++) quiet.requestFailed('READ', 'the disk is broken')
  const lines = linesOf(file)
  for (const line of lines) {
    t.like(line, { pid: process.pid, vm: '/s/v', mountpoint: '/m' })
    t.regex(String(line['time']), /^\d{4}-\d\d-\d\dT.*Z$/)
    t.true(String(line['event']) in EVENTS)
  }
  t.deepEqual(
    lines.map(({ level, event: name, msg, damage }) => [level, name, damage ?? msg]),
    [
      ['info', 'mounted', 'mounted'],
      ['warn', 'notice', 'something'],
      ['warn', 'warning', 'the disk is full'],
      ['error', 'damage', 'chunk 0'],
      ['error', 'damage', 'chunk 1'],
      ['error', 'request-failed', 'a request failed in an unforeseen way']
    ]
  )
  await bed.destroy()
})

test('a message passes once in a minute, few different ones do, and what was left out is counted', (t) => {
  let now = 1000
  const quiet = new Quiet(() => now)
  t.is(quiet.pass('a'), 0)
  t.is(quiet.pass('a'), undefined)
  t.is(quiet.pass('b'), 1)
  now += 60_000
  t.is(quiet.pass('a'), 0)
  const passed = Array.from({ length: 1000 }, (_none, index) => quiet.pass(`at byte ${index}`))
  t.is(passed.filter((count) => count !== undefined).length, 29)
  now += 60_000
  t.is(quiet.pass('c'), 971)
})
