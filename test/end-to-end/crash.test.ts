/** SIGKILL of the daemon with real mounts: what was accepted is there, the rest is old or new per page. */
import fs from 'node:fs'
import path from 'node:path'
import anyTest, { type TestFn } from 'ava'
import { Bed } from '../support/bed.js'
import { Random } from '../support/random.js'

const test = anyTest as TestFn<{ bed: Bed; random: Random }>
const PAGE = 4096

test.beforeEach((t) => {
  t.context.random = new Random()
  t.log(`seed ${String(t.context.random.seed)}`)
  t.context.bed = new Bed('crash')
})
test.afterEach.always((t) => t.context.bed.destroy())

test.serial(
  'killed in the middle of writes: synced pages are there, others are old or new, and the next mount goes on',
  async (t) => {
    const { bed, random } = t.context
    const source = bed.makeDirectory('source')
    const old = random.bytes(6 * 2 ** 20)
    fs.writeFileSync(path.join(source, 'disk'), old)
    await bed.mustIsrfs('a', 'import', source, bed.vm())
    let expected = old
    for (let round = 0; round < 3; round++) {
      const mountpoint = await bed.mount('a', bed.vm(), 'mnt')
      const before = fs.readFileSync(path.join(mountpoint, 'disk'))
      t.true(before.equals(expected), `round ${String(round)}: the session was recovered`)
      const synced = Buffer.from(before)
      const written = new Map<number, Buffer[]>()
      const fd = fs.openSync(path.join(mountpoint, 'disk'), 'r+')
      const pages = before.length / PAGE
      for (let count = 0; count < 60; count++) {
        const page = random.below(pages / 2)
        const bytes = random.bytes(PAGE)
        fs.writeSync(fd, bytes, 0, PAGE, page * PAGE)
        bytes.copy(synced, page * PAGE)
      }
      fs.fsyncSync(fd)
      for (let count = 0; count < 60; count++) {
        const page = pages / 2 + random.below(pages / 2)
        const bytes = random.bytes(PAGE)
        fs.writeSync(fd, bytes, 0, PAGE, page * PAGE)
        written.set(page, [...(written.get(page) ?? []), bytes])
      }
      fs.mkdirSync(path.join(mountpoint, `round-${String(round)}`))
      await bed.killDaemon('a', mountpoint)
      try {
        fs.closeSync(fd)
      } catch {
        // the mount is dead
      }
      const again = await bed.isrfs('a', 'mount', bed.vm(), mountpoint)
      t.is(again.code, 0, again.stderr)
      t.regex(again.stderr, /left-over session|left behind|recovered/i)
      const after = fs.readFileSync(path.join(mountpoint, 'disk'))
      for (let page = 0; page < pages; page++) {
        const range = [page * PAGE, (page + 1) * PAGE] as const
        const now = after.subarray(...range)
        const allowed = [synced.subarray(...range), ...(written.get(page) ?? [])]
        if (!allowed.some((bytes) => bytes.equals(now))) t.fail(`page ${String(page)} is neither old nor new`)
      }
      t.true(fs.existsSync(path.join(mountpoint, `round-${String(round)}`)), 'a name that was answered is there')
      expected = after
      await bed.unmount('a', mountpoint)
    }
    const elsewhere = await bed.mount('b', bed.vm(), 'mnt-b', '--read-only')
    t.true(fs.readFileSync(path.join(elsewhere, 'disk')).equals(expected), 'what was recovered was committed')
    await bed.unmount('b', elsewhere)
  }
)

test.serial('recover publishes a left-over session without mounting; --discard drops it', async (t) => {
  const { bed } = t.context
  const source = bed.makeDirectory('source')
  fs.writeFileSync(path.join(source, 'file'), 'first')
  await bed.mustIsrfs('a', 'import', source, bed.vm())
  const crashWith = async (content: string): Promise<void> => {
    const mountpoint = await bed.mount('a', bed.vm(), 'mnt')
    const fd = fs.openSync(path.join(mountpoint, 'file'), 'w')
    fs.writeSync(fd, content)
    fs.fsyncSync(fd)
    await bed.killDaemon('a', mountpoint)
    try {
      fs.closeSync(fd)
    } catch {
      // the mount is dead
    }
    await bed.command('fusermount3', ['-uz', mountpoint])
  }
  await crashWith('second')
  await bed.mustIsrfs('a', 'recover', bed.vm())
  await bed.mustIsrfs('b', 'export', bed.vm(), bed.path('exported'))
  t.is(fs.readFileSync(bed.path('exported', 'file'), 'utf8'), 'second')
  await crashWith('third')
  const dropped = await bed.mustIsrfs('a', 'recover', bed.vm(), '--discard')
  t.is(dropped.code, 0)
  const mountpoint = await bed.mount('b', bed.vm(), 'mnt-b')
  t.is(fs.readFileSync(path.join(mountpoint, 'file'), 'utf8'), 'second')
  await bed.unmount('b', mountpoint)
})

test.serial('SIGTERM, and an unmount from outside, end in the same commit', async (t) => {
  const { bed } = t.context
  const source = bed.makeDirectory('source')
  fs.writeFileSync(path.join(source, 'file'), 'first')
  await bed.mustIsrfs('a', 'import', source, bed.vm())
  const endings: [string, (mountpoint: string, pid: number) => Promise<unknown>][] = [
    ['by SIGTERM', (_, pid) => Promise.resolve(process.kill(pid, 'SIGTERM'))],
    ['from outside', (mountpoint) => bed.command('fusermount3', ['-u', mountpoint])]
  ]
  for (const [content, end] of endings) {
    const mountpoint = await bed.mount('a', bed.vm(), 'mnt')
    fs.writeFileSync(path.join(mountpoint, 'file'), content)
    const { pid } = await bed.status('a', mountpoint)
    await end(mountpoint, pid)
    const { waitFor, isAlive } = await import('../support/bed.js')
    await waitFor(() => !isAlive(pid), 'the daemon to commit and end')
    const elsewhere = await bed.mount('b', bed.vm(), 'mnt-b', '--read-only')
    t.is(fs.readFileSync(path.join(elsewhere, 'file'), 'utf8'), content)
    await bed.unmount('b', elsewhere)
  }
})

test.serial('a busy mount is not unmounted: exit 6 names the process, and nothing is lost', async (t) => {
  const { bed } = t.context
  const source = bed.makeDirectory('source')
  fs.writeFileSync(path.join(source, 'file'), 'first')
  await bed.mustIsrfs('a', 'import', source, bed.vm())
  const mountpoint = await bed.mount('a', bed.vm(), 'mnt')
  const fd = fs.openSync(path.join(mountpoint, 'file'), 'r+')
  fs.writeSync(fd, 'SECOND')
  const busy = await bed.isrfs('a', 'unmount', mountpoint)
  t.is(busy.code, 6)
  t.true(busy.stderr.includes(String(process.pid)), busy.stderr)
  fs.closeSync(fd)
  await bed.unmount('a', mountpoint)
  await bed.mustIsrfs('b', 'export', bed.vm(), bed.path('exported'))
  t.is(fs.readFileSync(bed.path('exported', 'file'), 'utf8'), 'SECOND')
})

test.serial('a damaged chunk is EIO for its blocks and leaves the others readable', async (t) => {
  const { bed, random } = t.context
  const source = bed.makeDirectory('source')
  const disk = random.bytes(20 * 2 ** 20)
  fs.writeFileSync(path.join(source, 'disk'), disk)
  await bed.mustIsrfs('a', 'import', source, bed.vm())
  const chunks = fs
    .readdirSync(path.join(bed.vm(), 'chunks'))
    .flatMap((directory) =>
      fs
        .readdirSync(path.join(bed.vm(), 'chunks', directory))
        .map((name) => path.join(bed.vm(), 'chunks', directory, name))
    )
    .filter((file) => fs.statSync(file).size > 15 * 2 ** 20)
  const [chunk] = chunks
  if (chunk === undefined) throw new Error('no 16 MiB chunk')
  fs.chmodSync(chunk, 0o644)
  const fd = fs.openSync(chunk, 'r+')
  fs.writeSync(fd, 'damage', 1_000_000)
  fs.closeSync(fd)
  const mountpoint = await bed.mount('a', bed.vm(), 'mnt')
  const file = fs.openSync(path.join(mountpoint, 'disk'), 'r')
  const block = 128 * 1024
  const bad: number[] = []
  for (let index = 0; index < disk.length / block; index++) {
    const bytes = Buffer.alloc(block)
    try {
      fs.readSync(file, bytes, 0, block, index * block)
      t.true(bytes.equals(disk.subarray(index * block, (index + 1) * block)), `block ${String(index)}`)
    } catch (error) {
      t.is((error as NodeJS.ErrnoException).code, 'EIO')
      bad.push(index)
    }
  }
  fs.closeSync(file)
  t.deepEqual(bad, [Math.floor(1_000_000 / block)])
  const log = fs.readFileSync((await bed.status('a', mountpoint)).log, 'utf8')
  t.is(log.split('"event":"damage"').length, 2, 'told once, with its chunk')
  t.notRegex(log, /unforeseen/)
  await bed.unmount('a', mountpoint)
})
