/** A client whose disk is full: refused early, nothing lost, reads go on, the suspend works. The disk is a small tmpfs. */
import fs from 'node:fs'
import path from 'node:path'
import anyTest, { type TestFn } from 'ava'
import { Bed } from '../support/bed.js'
import { Random } from '../support/random.js'

const test = anyTest as TestFn<{ bed: Bed; disk: string }>
const MIB = 2 ** 20

test.beforeEach(async (t) => {
  t.context.bed = new Bed('full')
  t.context.disk = t.context.bed.makeDirectory('client-small')
  const mounted = await t.context.bed.command('mount', ['-t', 'tmpfs', '-o', 'size=160m', 'isrfs-test', t.context.disk])
  if (mounted.code !== 0) throw new Error(`this test has to be root to make a small disk: ${mounted.stderr}`)
})
test.afterEach.always(async (t) => {
  const { bed, disk } = t.context
  for (const name of ['mnt'])
    if (fs.existsSync(bed.path(name))) await bed.command('fusermount3', ['-uz', bed.path(name)])
  await bed.command('umount', ['-l', disk])
  await bed.destroy()
})

test.serial(
  'a full client disk refuses new files and growth early, keeps what was accepted, serves reads, and can be suspended',
  async (t) => {
    const { bed } = t.context
    const random = new Random()
    t.log(`seed ${String(random.seed)}`)
    const source = bed.makeDirectory('source')
    const disk = random.bytes(120 * MIB)
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
    const unmounted = await bed.isrfs('small', 'unmount', mountpoint)
    t.is(unmounted.code, 0, unmounted.stderr)
    const elsewhere = await bed.mount('other', bed.vm(), 'mnt-b', '--read-only')
    for (const [name, content] of accepted) {
      if (path.basename(name) === 'file-0') continue
      t.true(fs.readFileSync(path.join(elsewhere, path.basename(name))).equals(content))
    }
    await bed.unmount('other', elsewhere)
  }
)
