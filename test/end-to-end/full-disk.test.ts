/**
 * A client whose disk is full: changes go to the share early; when that is full too, growth is refused early, nothing is
 * lost, reads go on, the suspend works when there is space again. The disks are small file systems in memory.
 */
import fs from 'node:fs'
import path from 'node:path'
import anyTest, { type TestFn } from 'ava'
import { Bed } from '../support/bed.js'
import { Random } from '../support/random.js'

const test = anyTest as TestFn<{ bed: Bed; disk: string }>
const MIB = 2 ** 20

test.beforeEach(async (t) => {
  t.context.bed = new Bed('full')
  t.context.disk = await smallDisk(t.context.bed, 'client-small', 160)
})
test.afterEach.always(async (t) => {
  const { bed, disk } = t.context
  for (const name of ['mnt'])
    if (fs.existsSync(bed.path(name))) await bed.command('fusermount3', ['-uz', bed.path(name)])
  await bed.command('umount', ['-l', disk])
  await bed.command('umount', ['-l', bed.path('share')])
  await bed.destroy()
})

async function smallDisk(bed: Bed, name: string, megabytes: number): Promise<string> {
  const directory = bed.makeDirectory(name)
  const options = `size=${String(megabytes)}m`
  const mounted = await bed.command('mount', ['-t', 'tmpfs', '-o', options, 'isrfs-test', directory])
  if (mounted.code !== 0) throw new Error(`this test has to be root to make a small disk: ${mounted.stderr}`)
  return directory
}

test.serial(
  'a full client disk before a full share refuses new files and growth early, keeps what was accepted, serves reads, and can be suspended',
  async (t) => {
    const { bed } = t.context
    const random = new Random()
    t.log(`seed ${String(random.seed)}`)
    const source = bed.makeDirectory('source')
    const disk = random.bytes(120 * MIB)
    await smallDisk(bed, 'share', 122)
    fs.writeFileSync(path.join(source, 'disk'), disk)
    await bed.mustIsrfs('other', 'import', source, bed.vm())
    const mountpoint = await bed.mount('small', bed.vm(), 'mnt')

    // reading more than fits: cached regions make room for each other, every byte is right
    t.true(fs.readFileSync(path.join(mountpoint, 'disk')).equals(disk))

    // writing until the disk is full: an error at open, write or fsync; whatever was synced before stays
    const accepted = new Map<string, Buffer>()
    let refused: string | undefined
    for (let count = 0; count < 400 && refused === undefined; count++) {
      const name = path.join(mountpoint, `file-${String(count)}`)
      const content = random.bytes(MIB)
      try {
        const fd = fs.openSync(name, 'w')
        try {
          fs.writeSync(fd, content)
          fs.fsyncSync(fd)
        } finally {
          fs.closeSync(fd)
        }
        accepted.set(name, content)
      } catch (error) {
        refused = (error as NodeJS.ErrnoException).code
      }
    }
    t.is(refused, 'ENOSPC')
    t.true(accepted.size > 20, `${String(accepted.size)} files`)
    for (const [name, content] of accepted) t.true(fs.readFileSync(name).equals(content), name)
    t.true(fs.readFileSync(path.join(mountpoint, 'disk')).equals(disk), 'reads go on without room to cache')
    fs.rmSync(path.join(mountpoint, 'file-0'))
    const refusedUnmount = await bed.isrfs('small', 'unmount', mountpoint)
    t.is(refusedUnmount.code, 5, 'the share is full')
    t.is((await bed.command('mount', ['-o', 'remount,size=400m', bed.path('share')])).code, 0)
    const recovered = await bed.isrfs('small', 'recover', bed.vm())
    t.is(recovered.code, 0, recovered.stderr)
    const elsewhere = await bed.mount('other', bed.vm(), 'mnt-b', '--read-only')
    for (const [name, content] of accepted) {
      if (path.basename(name) === 'file-0') continue
      t.true(fs.readFileSync(path.join(elsewhere, path.basename(name))).equals(content))
    }
    await bed.unmount('other', elsewhere)
  }
)

test.serial('changes that are larger than the client disk go to the share while the guest runs', async (t) => {
  const { bed } = t.context
  const random = new Random()
  t.log(`seed ${String(random.seed)}`)
  const source = bed.makeDirectory('source')
  const size = 240 * MIB
  fs.writeFileSync(path.join(source, 'disk'), Buffer.alloc(size, 1))
  await bed.mustIsrfs('other', 'import', source, bed.vm())
  const mountpoint = await bed.mount('small', bed.vm(), 'mnt')
  const disk = Buffer.alloc(size, 1)
  const fd = fs.openSync(path.join(mountpoint, 'disk'), 'r+')
  for (let at = 0; at < size; at += MIB) {
    const part = random.bytes(MIB)
    part.copy(disk, at)
    fs.writeSync(fd, part, 0, MIB, at)
    if (random.below(8) === 0) fs.fsyncSync(fd)
  }
  for (let count = 0; count < 200; count++) {
    const at = random.below(size - MIB) // mostly parts of pages, of blocks that have gone to the share
    const part = random.bytes(1 + random.below(3 * 4096))
    part.copy(disk, at)
    fs.writeSync(fd, part, 0, part.length, at)
  }
  fs.fsyncSync(fd)
  fs.closeSync(fd)
  t.true(fs.readFileSync(path.join(mountpoint, 'disk')).equals(disk))
  const { uploadedBytes } = JSON.parse((await bed.mustIsrfs('small', 'status', mountpoint, '--json')).stdout) as {
    uploadedBytes: number
  }
  t.true(uploadedBytes > 60 * MIB, `${String(uploadedBytes)} bytes were sent before the unmount`)
  await bed.unmount('small', mountpoint)
  const elsewhere = await bed.mount('other', bed.vm(), 'mnt-b', '--read-only')
  t.true(fs.readFileSync(path.join(elsewhere, 'disk')).equals(disk))
  await bed.unmount('other', elsewhere)
})
