/** What one mount reads first, the next one fetches ahead, on any client; advice that lies or is damaged costs nothing. */
import fs from 'node:fs'
import path from 'node:path'
import anyTest, { type TestFn } from 'ava'
import { encodeProfile, parseProfile } from '../../src/format/profile.js'
import { Bed, waitFor } from '../support/bed.js'
import { Random } from '../support/random.js'

const test = anyTest as TestFn<{ bed: Bed; random: Random; disk: Buffer }>
const BLOCK = 128 * 1024
const BLOCKS = 400
const ORDER = [311, 17, 18, 19, 200, 5, 399, 120, 121, 60]

test.beforeEach(async (t) => {
  t.context.random = new Random()
  t.log(`seed ${String(t.context.random.seed)}`)
  const bed = (t.context.bed = new Bed('profile'))
  const source = bed.makeDirectory('source')
  t.context.disk = t.context.random.bytes(BLOCKS * BLOCK)
  fs.writeFileSync(path.join(source, 'disk'), t.context.disk)
  fs.writeFileSync(path.join(source, 'testvm.vmem'), t.context.disk.subarray(0, 200 * BLOCK))
  await bed.mustIsrfs('a', 'import', source, bed.vm())
})
test.afterEach.always((t) => t.context.bed.destroy())

function read(mountpoint: string, block: number): Buffer {
  const fd = fs.openSync(path.join(mountpoint, 'disk'), 'r')
  try {
    const bytes = Buffer.alloc(4096)
    fs.readSync(fd, bytes, 0, bytes.length, block * BLOCK + 8192)
    return bytes
  } finally {
    fs.closeSync(fd)
  }
}

function readInOrder(mountpoint: string, disk: Buffer): boolean {
  return ORDER.every((block) =>
    read(mountpoint, block).equals(disk.subarray(block * BLOCK + 8192, block * BLOCK + 12_288))
  )
}

const profileFiles = (bed: Bed): string[] => fs.readdirSync(path.join(bed.vm(), 'profiles')).sort()

test.serial('a mount records what it reads, and the next one has it before anybody asks', async (t) => {
  const { bed, disk } = t.context
  const first = await bed.mount('a', bed.vm(), 'mnt')
  t.true(readInOrder(first, disk))
  await bed.unmount('a', first)
  t.deepEqual(profileFiles(bed), ['00000001.json'])
  const file = path.join(bed.vm(), 'profiles', '00000001.json')
  const { runs } = parseProfile(fs.readFileSync(file), file)
  const recorded = runs.flatMap(({ first: from, count }) => Array.from({ length: count }, (_, index) => from + index))
  t.deepEqual(
    recorded.filter((block) => ORDER.includes(block)),
    ORDER
  )

  const second = await bed.mount('b', bed.vm(), 'mnt-b')
  await waitFor(async () => (await bed.status('b', second)).profileBlocks >= ORDER.length, 'the profile to be fetched')
  const before = await bed.status('b', second)
  fs.renameSync(path.join(bed.vm(), 'chunks'), bed.path('chunks'))
  t.true(readInOrder(second, disk))
  const after = await bed.status('b', second)
  t.is(after.fetchedBlocks, before.fetchedBlocks)
  t.true(after.profileUsedBlocks >= ORDER.length)
  fs.renameSync(bed.path('chunks'), path.join(bed.vm(), 'chunks'))
  t.true(read(second, 270).equals(disk.subarray(270 * BLOCK + 8192, 270 * BLOCK + 12_288)), 'one more')
  fs.writeFileSync(path.join(second, 'new'), 'a change')
  await bed.unmount('b', second)
  t.deepEqual(profileFiles(bed), ['00000001.json', '00000002.json'])
})

test.serial('a profile that lies or is damaged costs nothing, and the next suspend replaces it', async (t) => {
  const { bed, disk } = t.context
  const profiles = path.join(bed.vm(), 'profiles')
  const file = path.join(profiles, '00000001.json')
  fs.mkdirSync(profiles)
  const lies = [
    { inode: 1, first: 0, count: 5, missed: 0 },
    { inode: 99, first: 0, count: 5, missed: 0 },
    { inode: 2, first: BLOCKS - 1, count: 16_000, missed: 0 }
  ]
  for (const content of [encodeProfile({ runs: lies }), Buffer.from('{'), Buffer.alloc(2 ** 21, 32)]) {
    fs.writeFileSync(file, content)
    const mountpoint = await bed.mount('a', bed.vm(), 'mnt')
    t.true(readInOrder(mountpoint, disk))
    await bed.unmount('a', mountpoint)
    t.notThrows(() => parseProfile(fs.readFileSync(file), file))
  }
})

test.serial('a memory image is fetched whole as soon as somebody reads of it', async (t) => {
  const { bed, disk } = t.context
  const mountpoint = await bed.mount('a', bed.vm(), 'mnt')
  const fd = fs.openSync(path.join(mountpoint, 'testvm.vmem'), 'r')
  fs.readSync(fd, Buffer.alloc(4096), 0, 4096, 77 * BLOCK)
  await waitFor(async () => (await bed.status('a', mountpoint)).fetchedBlocks >= 200, 'the memory image')
  fs.renameSync(path.join(bed.vm(), 'chunks'), bed.path('chunks'))
  t.true(fs.readFileSync(path.join(mountpoint, 'testvm.vmem')).equals(disk.subarray(0, 200 * BLOCK)))
  fs.closeSync(fd)
  fs.renameSync(bed.path('chunks'), path.join(bed.vm(), 'chunks'))
  await bed.unmount('a', mountpoint)
})
