/** isrfs logs: what has happened to a mount, while it lives and afterwards. */
import { once } from 'node:events'
import fs from 'node:fs'
import path from 'node:path'
import anyTest, { type TestFn } from 'ava'
import { followLines } from '../../src/cli/follow.js'
import { EVENTS } from '../../src/daemon/log-events.js'
import { Bed, CLI, waitFor } from '../support/bed.js'

const test = anyTest as TestFn<{ bed: Bed }>

test.beforeEach((t) => {
  t.timeout(120_000)
  t.context.bed = new Bed('logs')
})
test.afterEach.always((t) => t.context.bed.destroy())

interface Line {
  readonly event: string
  readonly level: string
  readonly vm: string
}

test('the life of a mount can be read during it and after it, by mountpoint and by VM, pretty and raw', async (t) => {
  const { bed } = t.context
  fs.writeFileSync(path.join(bed.makeDirectory('source'), 'file'), 'first')
  await bed.mustIsrfs('a', 'import', bed.path('source'), bed.vm())
  const mountpoint = await bed.mount('a', bed.vm(), 'mnt')
  t.regex((await bed.mustIsrfs('a', 'logs', mountpoint)).stdout, /^\[\d{4}-.*\] INFO: mounted .*"generation":1/m)
  // the daemon tells, whatever the client directory
  t.regex((await bed.mustIsrfs('other', 'logs', bed.vm())).stdout, /INFO: mounted/)
  fs.writeFileSync(path.join(mountpoint, 'file'), 'second')

  const following = bed.spawn(process.execPath, [CLI, '--client-dir', bed.path('client-a'), 'logs', mountpoint, '-f'])
  let followed = ''
  following.stdout?.on('data', (text: Buffer) => (followed += text.toString()))
  await waitFor(() => followed.includes('mounted'), 'the first lines')
  await bed.unmount('a', mountpoint)
  await waitFor(() => followed.includes('published'), 'the line of the end')
  following.kill('SIGINT')
  t.is((await once(following, 'exit'))[0], 0, '^C is how it ends')

  for (const where of [mountpoint, bed.vm()]) {
    const lines = (await bed.mustIsrfs('a', 'logs', where, '--json')).stdout
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line) as Line)
    for (const line of lines) t.true(line.event in EVENTS && line.vm === bed.vm(), JSON.stringify(line))
    t.deepEqual(
      // the kernel's end of the mount may be heard of before fusermount3 has ended
      lines
        .map(({ event }) => event)
        .filter((event) => event !== 'notice' && !event.includes('profile'))
        .sort(),
      ['committing', 'ended', 'mounted', 'starting', 'unmounted']
    )
  }
  t.is((await bed.mustIsrfs('a', 'logs', '-n', '1', mountpoint)).stdout.trim().split('\n').length, 1)
  t.notRegex((await bed.mustIsrfs('a', 'logs', mountpoint)).stdout, /\u001B/, 'no colour without a terminal')
  const none = await bed.isrfs('other', 'logs', bed.vm())
  t.is(none.code, 1)
  t.regex(none.stderr, /there is no log of/)
  t.is((await bed.isrfs('a', 'logs', bed.vm(), '--lines', 'many')).code, 2)
  const head = await bed.command('sh', [
    '-c',
    `'${process.execPath}' '${CLI}' --client-dir '${bed.path('client-a')}' logs '${mountpoint}' | true`
  ])
  t.is(head.stderr, '', 'a reader that goes away is no failure')
})

test('a mount keeps to the size and number of log files that it was given', async (t) => {
  const { bed } = t.context
  fs.writeFileSync(path.join(bed.makeDirectory('source'), 'file'), 'first')
  await bed.mustIsrfs('a', 'import', bed.path('source'), bed.vm())
  for (let round = 0; round < 4; round++) {
    const mountpoint = await bed.mount('a', bed.vm(), 'mnt', '--log-size', '1K', '--log-files', '2', '--read-only')
    await bed.unmount('a', mountpoint)
  }
  const names = fs.readdirSync(bed.path('client-a', 'log')).sort()
  t.is(names.length, 2)
  t.regex(names.join(' '), /^testvm-[0-9a-f]{8}\.log testvm-[0-9a-f]{8}\.log\.1$/)
  t.regex((await bed.mustIsrfs('a', 'logs', bed.vm())).stdout, /INFO: ended/)
})

test('what a file name says to the terminal is not passed on, and lines that are no JSON are shown', async (t) => {
  const { bed } = t.context
  const directory = bed.makeDirectory('client-a', 'log')
  const line = {
    level: 'warn',
    time: '2026-03-01T10:00:00.000Z',
    event: 'notice',
    vm: bed.vm(),
    msg: 'file \u001B[2J\u009Bx'
  }
  fs.writeFileSync(path.join(directory, 'testvm-00000000.log'), `${JSON.stringify(line)}\n(node) \u001B]0;Warning\n`)
  const { stdout } = await bed.mustIsrfs('a', 'logs', bed.vm())
  t.regex(stdout, /WARN: file \uFFFD\[2J\uFFFDx\n\(node\) \uFFFD\]0;Warning/)
  t.regex((await bed.mustIsrfs('a', 'logs', bed.vm(), '--json')).stdout, /\\u001b/)
})

test('following goes on in the next file, and from the start of one that was cut', async (t) => {
  const { bed } = t.context
  const file = bed.path('log')
  fs.writeFileSync(file, 'old\n')
  const controller = new AbortController()
  const seen: string[] = []
  const following = followLines(file, 4, (line) => seen.push(line), controller.signal)
  fs.appendFileSync(file, 'one\ntw')
  await waitFor(() => seen.length === 1, 'a line')
  fs.appendFileSync(file, 'o\n')
  fs.renameSync(file, `${file}.1`)
  fs.writeFileSync(file, 'three ü\n')
  await waitFor(() => seen.length === 3, 'a line of the next file')
  fs.truncateSync(file)
  await new Promise((resolve) => setTimeout(resolve, 600))
  fs.appendFileSync(file, '4\n')
  await waitFor(() => seen.length === 4, 'a line after the cut')
  controller.abort()
  await following
  t.deepEqual(seen, ['one', 'two', 'three ü', '4'])
})
