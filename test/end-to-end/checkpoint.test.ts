/** Checkpoints of real mounts: beside a writer, seen by another client, followed by suspends, crashes and lost races. */
import { randomBytes } from 'node:crypto'
import fs from 'node:fs'
import path from 'node:path'
import anyTest, { type TestFn } from 'ava'
import { Bed, isMounted } from '../support/bed.js'

interface Context {
  bed: Bed
}

interface LogEntry {
  readonly generation: number
  readonly branch?: string
  readonly parent: number
  readonly checkpoint?: { readonly sequence: number }
}

const PAGE = 4096
const test = anyTest as TestFn<Context>

test.beforeEach(async (t) => {
  const bed = new Bed('checkpoint')
  t.context.bed = bed
  bed.makeDirectory('source')
  fs.writeFileSync(bed.path('source', 'file'), 'first')
  fs.writeFileSync(bed.path('source', 'disk'), Buffer.alloc(8 << 20))
  await bed.mustIsrfs('a', 'import', bed.path('source'), bed.vm())
})

test.afterEach.always((t) => t.context.bed.destroy())

function writeSynced(file: string, bytes: string | Buffer, position = 0): void {
  const descriptor = fs.openSync(file, 'r+')
  fs.writeSync(descriptor, Buffer.from(bytes), 0, Buffer.byteLength(bytes), position)
  fs.fsyncSync(descriptor)
  fs.closeSync(descriptor)
}

async function log(bed: Bed): Promise<LogEntry[]> {
  return JSON.parse((await bed.mustIsrfs('b', 'log', bed.vm(), '--json')).stdout) as LogEntry[] // docs/operations.md
}

/**
 * Writes the number of each turn into three places (two pages of one file, then one of another), each with fsync; meanwhile
 * pages of the rest of the disk are overwritten with one byte each, unsynced.
 */
const WRITER = `
import os, sys, random
disk, log = os.open(sys.argv[1] + '/disk', os.O_RDWR), os.open(sys.argv[1] + '/file', os.O_RDWR)
number = 0
while True:
    number += 1
    line = b'%012d' % number
    for descriptor, position in ((disk, 0), (disk, 1 << 20), (log, 0)):
        os.pwrite(descriptor, line, position)
        os.fsync(descriptor)
    for _ in range(40):
        os.pwrite(disk, bytes([random.randrange(1, 256)]) * 4096, (2 << 20) + random.randrange(1024) * 4096)
    sys.stdout.write(line.decode() + chr(10))
    sys.stdout.flush()
`

const HOW = [[], ['--no-writeback']]
const isLong = process.env['ISRFS_CHECKPOINT_ROUNDS'] !== undefined

for (const options of isLong ? HOW : HOW.slice(0, 1)) {
  test(`beside a writer each checkpoint is a prefix of what it has done ${options.join('')}`, async (t) => {
    const { bed } = t.context
    const mountpoint = await bed.mount('a', bed.vm(), 'mnt', ...options)
    const writer = bed.spawn('python3', ['-c', WRITER, mountpoint])
    const turns: string[] = []
    writer.stdout?.on('data', (text: Buffer) => turns.push(...text.toString().trim().split('\n')))
    const done = (): number => Number(turns.at(-1) ?? 0)
    for (let generation = 2; generation < 6; generation++) {
      const before = done()
      const made = await bed.mustIsrfs('a', 'checkpoint', mountpoint, '--json')
      const after = done() + 1
      t.like(JSON.parse(made.stdout), { kind: 'published', generation })
      const out = bed.path(`out-${String(generation)}`)
      await bed.mustIsrfs('b', 'export', bed.vm(), out, '--generation', String(generation))
      const disk = fs.readFileSync(path.join(out, 'disk'))
      const numbers = [
        Number(disk.toString('latin1', 0, 12)),
        Number(disk.toString('latin1', 1 << 20, (1 << 20) + 12)),
        Number(fs.readFileSync(path.join(out, 'file'), 'latin1').slice(0, 12))
      ].map((number) => (Number.isNaN(number) ? 0 : number))
      const [first = 0, , last = 0] = numbers
      t.deepEqual(
        numbers,
        [...numbers].sort((one, other) => other - one),
        `generation ${String(generation)}`
      )
      t.true(first - last <= 1, numbers.join())
      t.true(
        last >= before - 1 && first <= after + 1,
        `${numbers.join()} between ${String(before)} and ${String(after)}`
      )
      for (let page = (2 << 20) / PAGE; page < disk.length / PAGE; page++) {
        const bytes = disk.subarray(page * PAGE, (page + 1) * PAGE)
        if (!bytes.equals(Buffer.alloc(PAGE, bytes[0]))) t.fail(`page ${String(page)} is torn`)
      }
    }
    writer.kill('SIGKILL')
    await new Promise((resolve) => writer.once('close', resolve))
    await bed.unmount('a', mountpoint)
    const entries = await log(bed)
    t.deepEqual(
      entries.map(({ generation, parent, checkpoint }) => [generation, parent, checkpoint?.sequence]),
      [
        [6, 5, undefined],
        [5, 4, 4],
        [4, 3, 3],
        [3, 2, 2],
        [2, 1, 1],
        [1, null as unknown as number, undefined]
      ]
    )
    await bed.mustIsrfs('b', 'check', bed.vm(), '--read-data')
  })
}

test('another client sees the checkpoint, this one goes on; unmount follows it', async (t) => {
  const { bed } = t.context
  const mountpoint = await bed.mount('a', bed.vm(), 'mnt')
  const content = randomBytes(1 << 20)
  writeSynced(path.join(mountpoint, 'disk'), content)
  fs.mkdirSync(path.join(mountpoint, 'made'))
  fs.renameSync(path.join(mountpoint, 'file'), path.join(mountpoint, 'made', 'file'))
  const made = await bed.mustIsrfs('a', 'checkpoint', mountpoint)
  t.regex(made.stdout, /^generation 2 of .* durable .* goes on: .* held for \d+ ms/)
  writeSynced(path.join(mountpoint, 'made', 'file'), 'later')
  t.is((await bed.isrfs('b', 'mount', bed.vm(), bed.makeDirectory('other'))).code, 3, 'the lease stays here')
  const other = await bed.mount('b', bed.vm(), 'other', '--read-only')
  t.true(fs.readFileSync(path.join(other, 'disk')).subarray(0, content.length).equals(content))
  t.is(fs.readFileSync(path.join(other, 'made', 'file'), 'utf8'), 'first')
  t.is((await bed.isrfs('b', 'checkpoint', other)).code, 2, 'read-only')
  await bed.unmount('b', other)
  const discarding = await bed.mount('b', bed.vm(), 'other', '--discard')
  t.is((await bed.isrfs('b', 'checkpoint', discarding)).code, 2, 'discard')
  await bed.unmount('b', discarding)
  t.is((await bed.isrfs('b', 'checkpoint', discarding)).code, 1, 'no mount')
  const status = JSON.parse((await bed.mustIsrfs('a', 'status', mountpoint, '--json')).stdout) as object
  t.like(status, { generation: 1, checkpoint: 2, state: 'mounted', phase: '' })
  t.regex((await bed.unmount('a', mountpoint)).stdout, /generation 3/)
  t.deepEqual(fs.readdirSync(path.join(bed.vm(), 'pins')), [])
  await bed.mustIsrfs('b', 'export', bed.vm(), bed.path('out'))
  t.is(fs.readFileSync(bed.path('out', 'made', 'file'), 'utf8'), 'later')
  t.regex((await bed.mustIsrfs('b', 'diff', bed.vm(), '2', '3')).stdout, /made\/file/)
  const again = await bed.mount('a', bed.vm(), 'mnt')
  t.is(fs.readFileSync(path.join(again, 'made', 'file'), 'utf8'), 'later')
  t.regex((await bed.unmount('a', again)).stdout, /nothing was changed; generation 3/)
})

test('a crash after a checkpoint: the session goes on after it, by a mount and by recover', async (t) => {
  const { bed } = t.context
  const mountpoint = await bed.mount('a', bed.vm(), 'mnt')
  writeSynced(path.join(mountpoint, 'file'), 'second')
  await bed.mustIsrfs('a', 'checkpoint', mountpoint)
  writeSynced(path.join(mountpoint, 'file'), 'third!')
  await bed.killDaemon('a', mountpoint)
  await bed.mount('a', bed.vm(), 'mnt')
  t.is(fs.readFileSync(path.join(mountpoint, 'file'), 'utf8'), 'third!')
  t.regex((await bed.mustIsrfs('a', 'checkpoint', mountpoint)).stdout, /^generation 3/)
  t.regex((await bed.mustIsrfs('a', 'checkpoint', mountpoint)).stdout, /^nothing was changed; generation 3/)
  writeSynced(path.join(mountpoint, 'file'), 'fourth')
  const pruned = await bed.isrfs('b', 'prune', bed.vm(), '--keep', '1', '--grace', '0s', '--yes')
  t.is(pruned.code, 3, 'the base of the session stays: nobody prunes while it lives')
  await bed.killDaemon('a', mountpoint)
  t.is((await bed.isrfs('a', 'prune', bed.vm(), '--keep', '1', '--grace', '0s', '--yes')).code, 3)
  t.regex((await bed.mustIsrfs('a', 'recover', bed.vm())).stdout, /generation 4/)
  await bed.mustIsrfs('b', 'prune', bed.vm(), '--keep', '1', '--grace', '0s', '--yes')
  await bed.mustIsrfs('b', 'export', bed.vm(), bed.path('out'))
  t.is(fs.readFileSync(bed.path('out', 'file'), 'utf8'), 'fourth')
  await bed.mustIsrfs('b', 'check', bed.vm(), '--read-data')
})

test('a race that was lost after a checkpoint: its base survives a prune, and the session becomes a branch', async (t) => {
  const { bed } = t.context
  const mountpoint = await bed.mount('a', bed.vm(), 'mnt')
  writeSynced(path.join(mountpoint, 'file'), 'second')
  await bed.mustIsrfs('a', 'checkpoint', mountpoint)
  writeSynced(path.join(mountpoint, 'file'), 'third!')
  await bed.killDaemon('a', mountpoint)
  await bed.mustIsrfs('b', 'lease', bed.vm(), '--break')
  const other = await bed.mount('b', bed.vm(), 'other')
  t.is(fs.readFileSync(path.join(other, 'file'), 'utf8'), 'second', 'they go on from the checkpoint')
  writeSynced(path.join(other, 'file'), 'theirs')
  await bed.unmount('b', other)
  await bed.mustIsrfs('b', 'prune', bed.vm(), '--keep', '1', '--grace', '0s', '--yes')
  t.is((await bed.isrfs('a', 'mount', bed.vm(), mountpoint)).code, 5)
  const recovered = await bed.mustIsrfs('a', 'recover', bed.vm())
  const branch = /branch (3-[0-9a-f]{16})/.exec(recovered.stdout)?.[1] ?? ''
  const shown = await bed.mount('b', bed.vm(), 'branch', '--generation', branch)
  t.is(fs.readFileSync(path.join(shown, 'file'), 'utf8'), 'third!')
  await bed.unmount('b', shown)
  await bed.mustIsrfs('b', 'export', bed.vm(), bed.path('theirs'))
  t.is(fs.readFileSync(bed.path('theirs', 'file'), 'utf8'), 'theirs')
  t.deepEqual(fs.readdirSync(path.join(bed.vm(), 'pins')), [])
})

test('a share in trouble: exit 5, the mount goes on, a later checkpoint goes well', async (t) => {
  const { bed } = t.context
  const mountpoint = await bed.mount('a', bed.vm(), 'mnt')
  writeSynced(path.join(mountpoint, 'file'), 'second')
  const chunks = path.join(bed.vm(), 'chunks')
  fs.renameSync(chunks, `${chunks}.away`)
  fs.writeFileSync(chunks, '')
  const failed = await bed.isrfs('a', 'checkpoint', mountpoint)
  t.is(failed.code, 5, failed.stderr)
  t.regex(failed.stderr, /no checkpoint: .*\n.*the mount goes on/)
  t.true(isMounted(mountpoint))
  writeSynced(path.join(mountpoint, 'file'), 'third!')
  fs.rmSync(chunks)
  fs.renameSync(`${chunks}.away`, chunks)
  t.regex((await bed.mustIsrfs('a', 'checkpoint', mountpoint)).stdout, /^generation 2/)
  await bed.mustIsrfs('b', 'export', bed.vm(), bed.path('out'))
  t.is(fs.readFileSync(bed.path('out', 'file'), 'utf8'), 'third!')
  await bed.unmount('a', mountpoint)
})

test('an unmount in the middle of a checkpoint comes after it, or instead of it', async (t) => {
  const { bed } = t.context
  const mountpoint = await bed.mount('a', bed.vm(), 'mnt')
  for (let round = 0; round < 4; round++) {
    const content = randomBytes(4 << 20)
    writeSynced(path.join(mountpoint, 'disk'), content)
    const checkpoint = bed.isrfs('a', 'checkpoint', mountpoint)
    await new Promise((resolve) => setTimeout(resolve, round * 200))
    const unmounted = bed.isrfs('a', 'unmount', mountpoint)
    t.is((await unmounted).code, 0, (await unmounted).stderr)
    t.true([0, 1, 5].includes((await checkpoint).code), (await checkpoint).stderr)
    await bed.mount('a', bed.vm(), 'mnt')
    t.true(fs.readFileSync(path.join(mountpoint, 'disk')).subarray(0, content.length).equals(content))
  }
  await bed.unmount('a', mountpoint)
  await bed.mustIsrfs('b', 'check', bed.vm(), '--read-data')
})
