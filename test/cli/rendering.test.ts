/** Figures, tables and progress as people read them. */
import { PassThrough } from 'node:stream'
import test from 'ava'
import { bytes, duration, moment, percent } from '../../src/cli/figures.js'
import { mappedFile } from '../../src/cli/holders.js'
import { outcomeText } from '../../src/cli/outcome.js'
import { describe, progressView } from '../../src/cli/progress.js'
import { facts, table } from '../../src/cli/table.js'

test('bytes have a unit and at most one decimal', (t) => {
  t.deepEqual([0, 512, 1536, 150 * 1024, 20 * 2 ** 30].map(bytes), ['0 B', '512 B', '1.5 KiB', '150 KiB', '20 GiB'])
})

test('durations grow their units', (t) => {
  t.deepEqual([8, 125, 3780].map(duration), ['8 s', '2 min 5 s', '1 h 3 min'])
})

test('a time that is none is shown as it is, and nothing of nothing is everything', (t) => {
  t.is(moment('yesterday'), 'yesterday')
  t.regex(moment('2026-03-01T14:05:09.000Z'), /^2026-03-0\d \d\d:05:09$/)
  t.is(percent(0, 0), '100 %')
  t.is(percent(999, 1000), '99 %')
})

test('progress tells bytes, rate and the time that is left', (t) => {
  const progress = { phase: 'upload', doneBytes: 10 * 2 ** 20, totalBytes: 40 * 2 ** 20, sentBytes: 5 * 2 ** 20 }
  t.is(describe(progress, 2000), 'upload: 10 MiB of 40 MiB (25 %), 5 MiB/s, 6 s left, 5 MiB sent')
  t.is(describe({ phase: 'data', doneBytes: 0, totalBytes: 1, readBytes: 3 }, 0), 'data: 0 B of 1 B (0 %), 3 B read')
})

test('without a terminal progress is a line now and then, not one for each step', (t) => {
  const stream = new PassThrough() as unknown as NodeJS.WriteStream // only write and isTTY are used
  const view = progressView(stream)
  for (let done = 0; done < 100; done++) view.show({ phase: 'upload', doneBytes: done, totalBytes: 100 })
  view.say('something else')
  view.end()
  const printed = String((stream as unknown as PassThrough).read()) // the same object
  t.is(printed, 'isrfs: upload: 0 B of 100 B (0 %)\nisrfs: something else\n')
})

test('on a terminal progress is a bar that makes room for what is said', (t) => {
  const stream = new PassThrough()
  Object.assign(stream, {
    isTTY: true,
    columns: 100,
    cursorTo: () => true,
    clearLine: () => true,
    moveCursor: () => true
  })
  const view = progressView(stream as unknown as NodeJS.WriteStream) // has what cli-progress uses
  view.show({ phase: 'upload', doneBytes: 1, totalBytes: 100, sentBytes: 1 })
  view.show({ phase: 'upload', doneBytes: 50, totalBytes: 100, sentBytes: 1 })
  view.say('in between')
  view.end()
  const printed = String(stream.read())
  t.regex(printed, /upload: 1 B of 100 B/)
  t.regex(printed, /isrfs: in between/)
})

test('tables are plain columns and facts stand under one another', (t) => {
  const printed = table([{ title: 'VM' }, { title: 'N', align: 'right' }], [['long name', '7']])
  t.is(printed, 'VM         N\nlong name  7')
  t.is(
    facts([
      ['a', '1'],
      ['long', '2']
    ]),
    'a     1\nlong  2'
  )
})

test('a mapped file is found below the mountpoint and nowhere else', (t) => {
  const maps = '55d0-55d1 r--p 00000000 08:01 1 /bin/cat\n7f00-7f01 rw-s 00000000 00:30 2 /mnt/x/a file.vmem\n'
  t.is(mappedFile(maps, '/mnt/x'), '/mnt/x/a file.vmem is mapped')
  t.is(mappedFile(maps, '/mnt'), '/mnt/x/a file.vmem is mapped')
  t.is(mappedFile(maps, '/mnt/y'), undefined)
})

test('each end of a mount has its sentence', (t) => {
  const published = { kind: 'published', generation: 2, changedBytes: 131072, sentBytes: 190, verified: true } as const
  t.is(
    outcomeText('/s/v', published),
    'generation 2 of /s/v is durable on the share: 128 KiB changed, 190 B sent, read back and verified'
  )
  t.regex(outcomeText('/s/v', { kind: 'unchanged', generation: 1 }), /nothing was changed/)
  t.regex(outcomeText('/s/v', { kind: 'nothing-to-publish', why: 'discard' }), /discarded/)
  t.regex(outcomeText('/s/v', { kind: 'nothing-to-publish', why: 'read-only' }), /read-only/)
})
