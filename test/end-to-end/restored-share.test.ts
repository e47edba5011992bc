/** The share was restored from a backup: what a client has left behind over a lost, newer generation comes out as a branch. */
import fs from 'node:fs'
import path from 'node:path'
import anyTest, { type TestFn } from 'ava'
import { BLOCK_BYTES, PAGE_BYTES } from '../../src/base/units.js'
import { Bed } from '../support/bed.js'
import { Random } from '../support/random.js'

const test = anyTest as TestFn<{ bed: Bed; random: Random }>

test.beforeEach((t) => {
  t.timeout(900_000)
  t.context.random = new Random()
  t.log(`seed ${String(t.context.random.seed)}`)
  t.context.bed = new Bed('restored')
})
test.afterEach.always((t) => t.context.bed.destroy())

const BLOCKS = 6

function write(mountpoint: string, disk: Buffer, bytes: Buffer, at: number): void {
  const fd = fs.openSync(path.join(mountpoint, 'disk'), 'r+')
  fs.writeSync(fd, bytes, 0, bytes.length, at)
  fs.fsyncSync(fd)
  fs.closeSync(fd)
  bytes.copy(disk, at)
}

/**
 * Client a publishes generations 2 and 3, and is killed with changes over 3; the share becomes what it was at 2. Returns
 * what the disk was for client a at last. Block 1 is new in generation 3; block 2, too, with an accepted page in it; block 3
 * is accepted whole, with the very bytes that it has in generation 3.
 */
async function leaveBehindOnLost(bed: Bed, random: Random): Promise<Buffer> {
  const disk = random.bytes(BLOCKS * BLOCK_BYTES)
  const source = bed.makeDirectory('source')
  fs.writeFileSync(path.join(source, 'disk'), disk)
  fs.writeFileSync(path.join(source, 'config'), 'config')
  await bed.mustIsrfs('c', 'import', source, bed.vm())
  let mountpoint = await bed.mount('a', bed.vm(), 'mnt')
  write(mountpoint, disk, random.bytes(PAGE_BYTES), 0)
  await bed.unmount('a', mountpoint)
  fs.cpSync(bed.vm(), bed.path('backup'), { recursive: true, preserveTimestamps: true })
  mountpoint = await bed.mount('a', bed.vm(), 'mnt')
  write(mountpoint, disk, random.bytes(3 * BLOCK_BYTES), BLOCK_BYTES)
  await bed.unmount('a', mountpoint)
  mountpoint = await bed.mount('a', bed.vm(), 'mnt')
  write(mountpoint, disk, random.bytes(PAGE_BYTES), 2 * BLOCK_BYTES + 5 * PAGE_BYTES)
  write(mountpoint, disk, Buffer.from(disk.subarray(3 * BLOCK_BYTES, 4 * BLOCK_BYTES)), 3 * BLOCK_BYTES)
  fs.writeFileSync(path.join(mountpoint, 'new'), 'new')
  await bed.command('sync', ['-f', mountpoint])
  await bed.killDaemon('a', mountpoint)
  await bed.command('fusermount3', ['-uz', mountpoint])
  fs.rmSync(bed.vm(), { recursive: true })
  fs.cpSync(bed.path('backup'), bed.vm(), { recursive: true, preserveTimestamps: true })
  return disk
}

function branchesOf(bed: Bed): string[] {
  return fs.readdirSync(path.join(bed.vm(), 'generations')).filter((name) => /[0-9]-[0-9a-f]{16}/.test(name))
}

test.serial(
  'a session over a generation that the restored share does not have becomes a branch with all of it',
  async (t) => {
    const { bed, random } = t.context
    const disk = await leaveBehindOnLost(bed, random)
    const refused = await bed.isrfs('a', 'mount', bed.vm(), bed.makeDirectory('mnt'))
    t.is(refused.code, 4, refused.stderr)
    t.regex(refused.stderr, /right share is mounted.*isrfs recover \S+ --accept-rollback keeps/)
    const kept = await bed.isrfs('a', 'recover', bed.vm())
    t.is(kept.code, 4, kept.stderr)
    t.regex(kept.stderr, /seen generation 3\n.*right share is mounted.*isrfs recover \S+ --accept-rollback keeps/)
    t.deepEqual(branchesOf(bed), [], 'a share that may be a wrong one gets nothing')
    const conflict = await bed.isrfs('a', 'mount', bed.vm(), bed.path('mnt'), '--accept-rollback')
    t.is(conflict.code, 5, conflict.stderr)
    t.regex(conflict.stderr, /based on generation 3 of \S+, but the newest one is 2 now: the share was restored/)
    t.regex(
      (await bed.isrfs('a', 'check', bed.vm(), '--repair')).stderr,
      /the share went back in time: .*isrfs recover/
    )

    const recovered = await bed.mustIsrfs('a', 'recover', bed.vm(), '--accept-rollback')
    t.regex(recovered.stdout, /the share went back in time: its newest generation is 2, .* based on generation 3/)
    const branch = /branch (3-[0-9a-f]{16})/.exec(recovered.stdout)?.[1] ?? recovered.stdout
    t.is(branchesOf(bed).length, 1)
    t.regex((await bed.mustIsrfs('b', 'lease', bed.vm())).stdout, /^free/)
    t.regex((await bed.mustIsrfs('b', 'check', bed.vm(), '--read-data')).stderr, /is whole/)
    await bed.mustIsrfs('b', 'rollback', bed.vm(), branch)
    await bed.mustIsrfs('b', 'export', bed.vm(), bed.path('out'))
    t.true(fs.readFileSync(bed.path('out', 'disk')).equals(disk))
    t.is(fs.readFileSync(bed.path('out', 'new'), 'utf8'), 'new')
    t.regex((await bed.mustIsrfs('a', 'recover', bed.vm(), '--discard')).stdout, /nothing of/)
  }
)

test.serial(
  'what neither the share nor the cache has is named, and only a person makes a branch without it',
  async (t) => {
    const { bed, random } = t.context
    const disk = await leaveBehindOnLost(bed, random)
    const [vmId = ''] = fs.readdirSync(bed.path('client-a', 'cache'))
    const cache = bed.path('client-a', 'cache', vmId)
    for (const slot of fs.readdirSync(cache)) {
      for (const name of fs.readdirSync(path.join(cache, slot))) {
        if (/^\d+-\d+$/.test(name)) fs.rmSync(path.join(cache, slot, name)) // the maps stay
      }
    }
    const ranges = (how: string): [string, RegExp][] => [
      [
        'unreadable',
        new RegExp(`lost with generation 3: disk, bytes ${String(BLOCK_BYTES)} to ${String(2 * BLOCK_BYTES)}\\n`)
      ],
      [how, new RegExp(`: disk, bytes ${String(2 * BLOCK_BYTES)} to ${String(3 * BLOCK_BYTES)} \\(would read as zeros`)]
    ]
    for (let attempt = 0; attempt < 2; attempt++) {
      const refused = await bed.isrfs('a', 'recover', bed.vm(), '--accept-rollback')
      t.is(refused.code, 5, refused.stderr)
      for (const [what, pattern] of ranges('zeros')) t.regex(refused.stderr, pattern, what)
      t.notRegex(refused.stderr, new RegExp(`to ${String(4 * BLOCK_BYTES)}`), 'what was accepted whole is not lost')
      t.regex(refused.stderr, /2 ranges .*\n.*recover \S+ --accept-rollback --accept-loss/)
    }
    const recovered = await bed.mustIsrfs('a', 'recover', bed.vm(), '--accept-rollback', '--accept-loss')
    const branch = /branch (3-[0-9a-f]{16})/.exec(recovered.stdout)?.[1] ?? recovered.stdout
    const mountpoint = await bed.mount('b', bed.vm(), 'mnt-b', '--read-only', '--generation', branch)
    const fd = fs.openSync(path.join(mountpoint, 'disk'), 'r')
    const read = (block: number): Buffer => {
      const bytes = Buffer.alloc(BLOCK_BYTES)
      fs.readSync(fd, bytes, 0, BLOCK_BYTES, block * BLOCK_BYTES)
      return bytes
    }
    const beside = Buffer.alloc(BLOCK_BYTES)
    disk.copy(beside, 5 * PAGE_BYTES, 2 * BLOCK_BYTES + 5 * PAGE_BYTES, 2 * BLOCK_BYTES + 6 * PAGE_BYTES)
    try {
      for (const block of [0, 3, 4, 5]) {
        t.true(read(block).equals(disk.subarray(block * BLOCK_BYTES, (block + 1) * BLOCK_BYTES)), String(block))
      }
      t.true(read(2).equals(beside))
      t.throws(() => read(1), { code: 'EIO' })
    } finally {
      fs.closeSync(fd)
    }
    t.is(fs.readFileSync(path.join(mountpoint, 'new'), 'utf8'), 'new')
    await bed.unmount('b', mountpoint)
    const checked = await bed.isrfs('b', 'check', bed.vm())
    t.is(checked.code, 4)
    t.regex(
      checked.stdout,
      new RegExp(`generation ${branch}: disk, bytes ${String(BLOCK_BYTES)} to ${String(2 * BLOCK_BYTES)}\\n`)
    )
    t.notRegex(checked.stdout, /generation [12]:/)
  }
)

test.serial(
  'without the maps, accepted bytes come out all the same; another generation under the number changes nothing',
  async (t) => {
    const { bed, random } = t.context
    const disk = await leaveBehindOnLost(bed, random)
    fs.rmSync(bed.path('client-a', 'cache'), { recursive: true })
    const mountpoint = await bed.mount('b', bed.vm(), 'mnt-b')
    fs.writeFileSync(path.join(mountpoint, 'config'), 'of another client')
    await bed.unmount('b', mountpoint)
    const conflict = await bed.isrfs('a', 'mount', bed.vm(), bed.makeDirectory('mnt'), '--accept-rollback')
    t.is(conflict.code, 5, conflict.stderr)
    t.regex(conflict.stderr, /that generation is another one now/)
    t.is((await bed.isrfs('a', 'recover', bed.vm(), '--accept-rollback')).code, 5)
    const recovered = await bed.mustIsrfs('a', 'recover', bed.vm(), '--accept-rollback', '--accept-loss')
    t.regex(recovered.stdout, /the generation 3 that these changes are based on is not on the share any more/)
    const branch = /branch (4-[0-9a-f]{16})/.exec(recovered.stdout)?.[1] ?? recovered.stdout
    const shown = await bed.mount('b', bed.vm(), 'mnt-b', '--read-only', '--generation', branch)
    const fd = fs.openSync(path.join(shown, 'disk'), 'r')
    const page = Buffer.alloc(PAGE_BYTES)
    const block = Buffer.alloc(BLOCK_BYTES)
    try {
      const at = 2 * BLOCK_BYTES + 5 * PAGE_BYTES
      fs.readSync(fd, page, 0, PAGE_BYTES, at)
      t.true(page.equals(disk.subarray(at, at + PAGE_BYTES)))
      fs.readSync(fd, block, 0, BLOCK_BYTES, 3 * BLOCK_BYTES)
      t.true(block.equals(disk.subarray(3 * BLOCK_BYTES, 4 * BLOCK_BYTES)))
      t.throws(() => fs.readSync(fd, block, 0, BLOCK_BYTES, 0), { code: 'EIO' }, 'nobody knows where it lies')
    } finally {
      fs.closeSync(fd)
    }
    t.is(fs.readFileSync(path.join(shown, 'config'), 'utf8'), 'config')
    await bed.unmount('b', shown)
  }
)

test.serial('a session whose checkpoint the restored share does not have becomes a branch, and says why', async (t) => {
  const { bed, random } = t.context
  const disk = random.bytes(BLOCKS * BLOCK_BYTES)
  fs.writeFileSync(path.join(bed.makeDirectory('source'), 'disk'), disk)
  await bed.mustIsrfs('c', 'import', bed.path('source'), bed.vm())
  fs.cpSync(bed.vm(), bed.path('backup'), { recursive: true, preserveTimestamps: true })
  const mountpoint = await bed.mount('a', bed.vm(), 'mnt')
  write(mountpoint, disk, random.bytes(2 * PAGE_BYTES), BLOCK_BYTES)
  await bed.mustIsrfs('a', 'checkpoint', mountpoint)
  write(mountpoint, disk, random.bytes(PAGE_BYTES), 3 * BLOCK_BYTES)
  await bed.killDaemon('a', mountpoint)
  await bed.command('fusermount3', ['-uz', mountpoint])
  fs.rmSync(bed.vm(), { recursive: true })
  fs.cpSync(bed.path('backup'), bed.vm(), { recursive: true, preserveTimestamps: true })

  const recovered = await bed.mustIsrfs('a', 'recover', bed.vm(), '--accept-rollback')
  t.regex(
    recovered.stdout,
    /not the next generation: generation 1 is the newest of .* this client has seen generation 2/
  )
  const branch = /branch (2-[0-9a-f]{16})/.exec(recovered.stdout)?.[1] ?? recovered.stdout
  await bed.mustIsrfs('b', 'rollback', bed.vm(), branch)
  await bed.mustIsrfs('b', 'export', bed.vm(), bed.path('out'))
  t.true(fs.readFileSync(bed.path('out', 'disk')).equals(disk))
})
