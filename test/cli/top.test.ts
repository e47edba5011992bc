/** isrfs top: what it shows of real mounts, on a terminal and without one. */
import { spawn } from 'node:child_process'
import fs from 'node:fs'
import path from 'node:path'
import { renderToString } from 'ink'
import { createElement } from 'react'
import anyTest, { type TestFn } from 'ava'
import { LETTERS, pictureOf } from '../../src/cli/top/picture.js'
import { layoutFor, Screen } from '../../src/cli/top/screen.js'
import { ratesOf, Watcher } from '../../src/cli/top/watcher.js'
import { Bed, CLI } from '../support/bed.js'

const test = anyTest as TestFn<{ bed: Bed }>

test.beforeEach((t) => {
  t.timeout(120_000)
  t.context.bed = new Bed('top')
})
test.afterEach.always((t) => t.context.bed.destroy())

const MIB = 1024 * 1024

async function mountVm(bed: Bed): Promise<string> {
  const source = bed.makeDirectory('source')
  fs.writeFileSync(path.join(source, 'disk.vmdk'), Buffer.alloc(8 * MIB, 'disk'))
  fs.truncateSync(path.join(source, 'disk.vmdk'), 10 * MIB)
  fs.writeFileSync(path.join(source, 'vm.vmx'), 'x')
  await bed.mustIsrfs('a', 'import', source, bed.vm())
  return bed.mount('a', bed.vm(), 'mnt')
}

test('one look has state, map and estimate in 80 columns, without colour', async (t) => {
  const { bed } = t.context
  const mountpoint = await mountVm(bed)
  const fd = fs.openSync(path.join(mountpoint, 'disk.vmdk'), 'r+')
  fs.readSync(fd, Buffer.alloc(MIB), 0, MIB, 0)
  fs.writeSync(fd, Buffer.alloc(4096, 'changed'), 0, 4096, 4 * MIB)
  fs.fsyncSync(fd)
  fs.closeSync(fd)
  const { stdout } = await bed.mustIsrfs('a', 'top', mountpoint, '--once')
  const lines = stdout.split('\n')
  t.true(lines.every((line) => line.length <= 80) && lines.length <= 24, stdout)
  t.regex(stdout, new RegExp(`isrfs top {2}${mountpoint}`))
  t.regex(stdout, /state mounted +generation 1/)
  t.regex(stdout, /share answers +lease held \(1\)/)
  t.regex(stdout, /suspend now: .*B, (about \d+ s|how long is not known yet)/)
  t.regex(stdout, /waiting: nothing/)
  const map = lines[lines.findIndex((line) => line.startsWith('disk.vmdk')) + 1] ?? ''
  t.is(map.trimEnd().length, 64, 'a cell for each block; the hole at the end is empty')
  t.is(map[0], LETTERS.present)
  t.is(map[32], LETTERS.dirty)
  t.true(map.includes(LETTERS.absent))
  t.notRegex(stdout, /\u001B/)
})

test('a small terminal has the lines that answer most, none over another', async (t) => {
  const { bed } = t.context
  const mountpoint = await mountVm(bed)
  const watcher = new Watcher(mountpoint)
  const linesOf = async (columns: number, rows: number): Promise<string[]> => {
    for (;;) {
      const look = await watcher.look(layoutFor(columns, rows, 0))
      const props = { look, columns, rows, isColourful: false, place: '', isBright: true, keys: 'q: quit' }
      const screen = renderToString(createElement(Screen, props), { columns })
      // on a busy machine the daemon may need longer than two seconds once
      if (!screen.includes('the daem')) return screen.split('\n')
    }
  }
  for (const [columns, rows] of [
    [80, 23],
    [60, 15],
    [40, 9],
    [20, 4],
    [10, 2],
    [200, 59]
  ] as const) {
    const lines = await linesOf(columns, rows)
    t.true(lines.length <= rows && lines.every((line) => line.length <= columns), lines.join('\n'))
    const suspend = lines.findIndex((line) => line.startsWith('suspend n'.slice(0, columns - 1)))
    t.true(suspend > 0, lines.join('\n'))
    const names = [
      'isrfs',
      'state',
      'share',
      'prese',
      'dirty',
      'suspe',
      'cable',
      'waiti',
      'read ',
      'fetch',
      'disk.',
      'D cha'
    ]
    for (const line of lines.slice(0, suspend + 1))
      t.true(names.includes(line.slice(0, 5)), `${columns} x ${rows}: ${lines.join('\n')}`)
  }
  t.true((await linesOf(40, 9)).some((line) => line.startsWith('waiting: nothing')))
  await bed.mustIsrfs('a', 'warm', mountpoint)
  const warm = (await linesOf(80, 23)).join('\n')
  t.regex(warm, /cable: may be pulled: everything is here/)
  t.regex(warm, /present .*, all/)
})

test('what may be asked of a mount is answered by its status', async (t) => {
  const { bed } = t.context
  const mountpoint = await mountVm(bed)
  const asked = (await bed.mustIsrfs('a', 'status', mountpoint)).stdout
  t.regex(asked, /^present +\S+ \S+ of 8.1 MiB \(\d+ %\)$/m, 'the hole of the disk is not waited for')
  t.regex(asked, /^suspend +would send 0 B, about 1 s$/m)
  t.regex(asked, /^cable +leave it in/m)
  await bed.mustIsrfs('a', 'warm', mountpoint)
  const warm = (await bed.mustIsrfs('a', 'status', mountpoint)).stdout
  t.regex(warm, /^present .*all \(100 %\)$/m)
  t.regex(warm, /^cable +may be pulled/m)
  t.regex((await bed.mustIsrfs('a', 'metrics', mountpoint)).stdout, /^isrfs_warm\{.*\} 1$/m)
  await bed.mustIsrfs('a', 'unmount', mountpoint)
})

test('on a terminal it draws until q, on a screen of its own', async (t) => {
  const { bed } = t.context
  const mountpoint = await mountVm(bed)
  // the keys come through the terminal of script(1), so that top has one to read from
  const typed = `stty rows 24 cols 80; '${process.execPath}' '${CLI}' top '${mountpoint}'`
  const env = { ...process.env, NO_COLOR: undefined, FORCE_COLOR: undefined, CI: undefined, TERM: 'xterm-256color' }
  const terminal = spawn('script', ['-qec', typed, '/dev/null'], { env })
  let stdout = ''
  terminal.stdout.on('data', (bytes: Buffer) => {
    stdout += bytes.toString()
    if (/suspend now/.test(stdout)) terminal.stdin.write('q') // it draws, so it reads keys
  })
  terminal.stdin.on('error', () => undefined) // it ends at the first of them
  const code = await new Promise((resolve) => terminal.once('close', resolve))
  t.is(code, 0)
  t.true(stdout.includes('\u001B[?1049h') && stdout.includes('\u001B[?1049l'), 'the screen comes back as it was')
  t.regex(stdout, /suspend now: 0 B/)
  t.regex(stdout, /\u001B\[3\dm/, 'colours')
})

test('a daemon that is stopped, a mount that is none, and no terminal are told of', async (t) => {
  const { bed } = t.context
  const mountpoint = await mountVm(bed)
  t.regex((await bed.isrfs('a', 'top', mountpoint)).stderr, /needs a terminal.*\n?.*--once/)
  t.regex((await bed.isrfs('a', 'top', bed.path('source'), '--once')).stderr, /is not an isrfs mount/)
  const { pid } = await bed.status('a', mountpoint)
  process.kill(pid, 'SIGSTOP')
  try {
    const { code, stderr } = await bed.isrfs('a', 'top', mountpoint, '--once')
    t.is(code, 1)
    t.regex(stderr, /does not answer.*\n?.*kill -CONT/)
  } finally {
    process.kill(pid, 'SIGCONT')
  }
})

test('cells are told apart without colour; what goes on comes before what is', (t) => {
  const bytes = (...values: number[]): string => Buffer.from(values).toString('base64')
  const states = {
    dirty: bytes(1, 0, 0, 0, 0, 0, 0, 0),
    inFlight: bytes(0, 1, 0, 0, 0, 0, 0, 0),
    foretold: bytes(0, 0, 200, 0, 0, 0, 0, 0),
    present: bytes(254, 254, 55, 255, 40, 0, 0, 0),
    sent: bytes(0, 0, 0, 0, 0, 9, 0, 0),
    empty: bytes(0, 0, 0, 0, 0, 0, 255, 9)
  }
  const rows = pictureOf({ firstBlock: 0, blocks: 80, cells: 8, states }, 5)
  t.deepEqual(
    rows.map((runs) => runs.map(({ text }) => text).join('')),
    ['D*p#+', 's .']
  )
})

test('rates are what a counter has grown by', (t) => {
  const { readBytes } = ratesOf([
    [5, 0],
    [15, 0],
    [10, 0]
  ])
  t.deepEqual(readBytes, [10, 0])
})
