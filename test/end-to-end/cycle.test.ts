/** The main job with real mounts and real processes: import, mount, change, unmount, resume elsewhere, export. */
import fs from 'node:fs'
import path from 'node:path'
import anyTest, { type TestFn } from 'ava'
import { Bed } from '../support/bed.js'
import { differences, sameBytes } from '../support/compare.js'
import { Random } from '../support/random.js'
import { makeSampleVm } from '../support/sample-vm.js'

const test = anyTest as TestFn<{ bed: Bed; random: Random }>

test.beforeEach((t) => {
  t.context.random = new Random()
  t.log(`seed ${String(t.context.random.seed)}`)
  t.context.bed = new Bed('cycle')
})
test.afterEach.always((t) => t.context.bed.destroy())

test.serial(
  'every byte of a VM with a 4 GiB sparse disk is equal through the mount, and nothing is published without a change',
  async (t) => {
    const { bed, random } = t.context
    const source = bed.makeDirectory('source')
    makeSampleVm(source, random, { diskBytes: 4 * 2 ** 30 + 12_345, pieces: 40 })
    await bed.mustIsrfs('a', 'import', source, bed.vm())
    const mountpoint = await bed.mount('a', bed.vm(), 'mnt')
    t.deepEqual(differences(source, mountpoint), [])
    t.is((await bed.unmount('a', mountpoint)).code, 0)
    const log = await bed.mustIsrfs('a', 'log', bed.vm(), '--json')
    t.is((JSON.parse(log.stdout) as unknown[]).length, 1)
  }
)

test.serial(
  'random writes of 1 B to 1 MiB equal a model through the mount, on another client, and after export',
  async (t) => {
    const { bed, random } = t.context
    const source = bed.makeDirectory('source')
    const diskBytes = 64 * 2 ** 20 + 777
    makeSampleVm(source, random, { diskBytes, pieces: 12 })
    await bed.mustIsrfs('a', 'import', source, bed.vm())
    const model = bed.path('model')
    fs.cpSync(source, model, { recursive: true, preserveTimestamps: true, verbatimSymlinks: true })
    const mountpoint = await bed.mount('a', bed.vm(), 'mnt')

    const files = [path.join(mountpoint, 'testvm-flat.vmdk'), path.join(model, 'testvm-flat.vmdk')].map((file) =>
      fs.openSync(file, 'r+')
    )
    for (let round = 0; round < 300; round++) {
      const bytes = random.bytes(1 + Math.floor(2 ** (random.next() * 20)))
      const offset = random.below(diskBytes + 1_000_000)
      const size = random.below(diskBytes + 2_000_000)
      for (const fd of files) {
        fs.writeSync(fd, bytes, 0, bytes.length, offset)
        if (round % 37 === 0) fs.ftruncateSync(fd, size)
        if (round % 50 === 0) fs.fsyncSync(fd)
      }
    }
    for (const fd of files) fs.closeSync(fd)
    t.true(
      sameBytes(path.join(mountpoint, 'testvm-flat.vmdk'), path.join(model, 'testvm-flat.vmdk')),
      'through the mount'
    )
    await bed.unmount('a', mountpoint)

    const elsewhere = await bed.mount('b', bed.vm(), 'mnt-b', '--read-only')
    t.true(
      sameBytes(path.join(elsewhere, 'testvm-flat.vmdk'), path.join(model, 'testvm-flat.vmdk')),
      'with an empty client directory'
    )
    await bed.unmount('b', elsewhere)
    await bed.mustIsrfs('b', 'export', bed.vm(), bed.path('exported'))
    t.true(sameBytes(bed.path('exported', 'testvm-flat.vmdk'), path.join(model, 'testvm-flat.vmdk')), 'after export')
    await bed.mustIsrfs('b', 'export', bed.vm(), bed.path('exported-1'), '--generation', '1')
    t.deepEqual(differences(source, bed.path('exported-1')), [])
  }
)

test.serial(
  'names: VMware locks, log rotation, renames over files, unlink while open, truncate and symlinks survive the suspend',
  async (t) => {
    const { bed, random } = t.context
    const source = bed.makeDirectory('source')
    makeSampleVm(source, random, { diskBytes: 2 ** 20, pieces: 2 })
    await bed.mustIsrfs('a', 'import', source, bed.vm())
    const mountpoint = await bed.mount('a', bed.vm(), 'mnt')
    const at = (...parts: string[]): string => path.join(mountpoint, ...parts)

    fs.mkdirSync(at('testvm.vmdk.lck'))
    fs.writeFileSync(at('testvm.vmdk.lck', 'M12345.lck'), 'locked')
    fs.renameSync(at('testvm.vmdk.lck', 'M12345.lck'), at('testvm.vmdk.lck', 'E12345.lck'))
    fs.rmSync(at('testvm.vmdk.lck'), { recursive: true })
    fs.renameSync(at('vmware.log'), at('vmware-0.log'))
    fs.writeFileSync(at('vmware.log'), 'a new log\n')
    fs.appendFileSync(at('vmware.log'), 'with a second line\n')
    fs.writeFileSync(at('testvm.vmx~'), 'displayName = "renamed"\n')
    fs.renameSync(at('testvm.vmx~'), at('testvm.vmx'))
    fs.symlinkSync('vmware.log', at('latest.log'))
    fs.truncateSync(at('testvm.nvram'), 100)
    const open = fs.openSync(at('scratch'), 'w+')
    fs.writeSync(open, 'gone before it was closed')
    fs.unlinkSync(at('scratch'))
    t.is(fs.readSync(open, Buffer.alloc(4), 0, 4, 0), 4)
    t.false(fs.readdirSync(mountpoint).some((name) => name.startsWith('.fuse_hidden')))
    fs.closeSync(open)
    const model = bed.path('model')
    await bed.command('cp', ['-a', mountpoint, model])
    await bed.unmount('a', mountpoint)

    const elsewhere = await bed.mount('b', bed.vm(), 'mnt-b')
    t.deepEqual(differences(model, elsewhere), [])
    t.deepEqual(fs.readdirSync(elsewhere).sort(), fs.readdirSync(model).sort())
    await bed.unmount('b', elsewhere)
  }
)

test.serial(
  'only changed blocks are transferred by the second commit and by the next resume on the old client',
  async (t) => {
    const { bed, random } = t.context
    const source = bed.makeDirectory('source')
    const disk = random.bytes(8 * 2 ** 20)
    fs.writeFileSync(path.join(source, 'disk'), disk)
    await bed.mustIsrfs('a', 'import', source, bed.vm())
    const block = 128 * 1024

    // client A reads everything, so it is cached there; client B changes two blocks
    const first = await bed.mount('a', bed.vm(), 'mnt')
    t.deepEqual(fs.readFileSync(path.join(first, 'disk')), disk)
    t.is((await bed.status('a', first)).fetchedBlocks, 64)
    await bed.unmount('a', first)
    const second = await bed.mount('b', bed.vm(), 'mnt-b')
    const changed = random.bytes(4096)
    for (const index of [5, 40]) {
      const fd = fs.openSync(path.join(second, 'disk'), 'r+')
      fs.writeSync(fd, changed, 0, changed.length, index * block + 8192)
      fs.closeSync(fd)
      changed.copy(disk, index * block + 8192)
    }
    await bed.unmount('b', second)

    const [generation] = (
      JSON.parse((await bed.mustIsrfs('a', 'log', bed.vm(), '--json')).stdout) as {
        generation: number
        changedBytes: number
        sentBytes: number
      }[]
    ).filter((entry) => entry.generation === 2)
    t.is(generation?.changedBytes, 2 * block)
    t.true((generation?.sentBytes ?? Infinity) < 3 * block)

    const third = await bed.mount('a', bed.vm(), 'mnt')
    t.deepEqual(fs.readFileSync(path.join(third, 'disk')), disk)
    t.is((await bed.status('a', third)).fetchedBlocks, 2)
    await bed.unmount('a', third)

    // client B has both what it fetched for the two writes and what it wrote: nothing of those comes over the network again
    const fourth = await bed.mount('b', bed.vm(), 'mnt-b')
    const fd = fs.openSync(path.join(fourth, 'disk'), 'r')
    const bytes = Buffer.alloc(4096)
    fs.readSync(fd, bytes, 0, 4096, 5 * block + 8192)
    fs.closeSync(fd)
    t.deepEqual(bytes, changed)
    await bed.unmount('b', fourth)
  }
)

test.serial('a second client is refused while the first holds the lease, and admitted after', async (t) => {
  const { bed, random } = t.context
  const source = bed.makeDirectory('source')
  makeSampleVm(source, random, { diskBytes: 2 ** 20, pieces: 2 })
  await bed.mustIsrfs('a', 'import', source, bed.vm())
  const mountpoint = await bed.mount('a', bed.vm(), 'mnt')
  const other = bed.makeDirectory('mnt-b')
  const refused = await bed.isrfs('b', 'mount', bed.vm(), other)
  t.is(refused.code, 3)
  t.regex(refused.stderr, /is in use: host .* mounted at .*mnt/)
  t.notRegex(refused.stderr, /\n\s+at /)
  const reader = await bed.mount('b', bed.vm(), 'mnt-b', '--read-only')
  t.throws(
    () => {
      fs.writeFileSync(path.join(reader, 'new'), 'x')
    },
    { code: 'EROFS' }
  )
  await bed.unmount('b', reader)
  await bed.unmount('a', mountpoint)
  const admitted = await bed.mount('b', bed.vm(), 'mnt-b')
  await bed.unmount('b', admitted)
})

test.serial('fio verifies in a second client what it wrote in the first', async (t) => {
  const { bed } = t.context
  const source = bed.makeDirectory('source')
  fs.closeSync(fs.openSync(path.join(source, 'disk'), 'w'))
  fs.truncateSync(path.join(source, 'disk'), 48 * 2 ** 20)
  await bed.mustIsrfs('a', 'import', source, bed.vm())
  const job = (file: string): string[] => [
    '--name=verify',
    `--filename=${file}`,
    '--size=48M',
    '--io_size=24M',
    '--rw=randwrite',
    '--bsrange=512-256k',
    '--bs_unaligned',
    '--ioengine=psync',
    '--verify=crc32c',
    '--randseed=42',
    '--fallocate=none',
    '--output-format=terse',
    '--norandommap=0'
  ]
  const first = await bed.mount('a', bed.vm(), 'mnt')
  const wrote = await bed.command('fio', [...job(path.join(first, 'disk')), '--do_verify=1', '--end_fsync=1'], {
    cwd: bed.root
  })
  t.is(wrote.code, 0, wrote.stderr)
  await bed.unmount('a', first)
  const second = await bed.mount('b', bed.vm(), 'mnt-b')
  const verified = await bed.command('fio', [...job(path.join(second, 'disk')), '--verify_only=1'], { cwd: bed.root })
  t.is(verified.code, 0, verified.stdout + verified.stderr)
  await bed.unmount('b', second)
})

test.serial('MAP_SHARED writes reach the next client', async (t) => {
  const { bed, random } = t.context
  const source = bed.makeDirectory('source')
  fs.writeFileSync(path.join(source, 'testvm.vmem'), random.bytes(4 * 2 ** 20))
  await bed.mustIsrfs('a', 'import', source, bed.vm())
  const first = await bed.mount('a', bed.vm(), 'mnt')
  const script = [
    'import mmap, os, sys',
    'fd = os.open(sys.argv[1], os.O_RDWR)',
    'm = mmap.mmap(fd, 0, mmap.MAP_SHARED)',
    'for page in range(0, 1024, 3): m[page * 4096 + 17:page * 4096 + 21] = b"MMAP"',
    'm.flush(); m.close(); os.close(fd)'
  ].join('\n')
  const mapped = await bed.command('python3', ['-c', script, path.join(first, 'testvm.vmem')])
  t.is(mapped.code, 0, mapped.stderr)
  const model = fs.readFileSync(path.join(source, 'testvm.vmem'))
  for (let page = 0; page < 1024; page += 3) model.write('MMAP', page * 4096 + 17)
  await bed.unmount('a', first)
  const second = await bed.mount('b', bed.vm(), 'mnt-b', '--read-only')
  t.true(fs.readFileSync(path.join(second, 'testvm.vmem')).equals(model))
  await bed.unmount('b', second)
})

test.serial('files removed while the kernel still has their times do not stop the unmount', async (t) => {
  const { bed } = t.context
  const source = bed.makeDirectory('source')
  fs.writeFileSync(path.join(source, 'kept'), 'kept')
  await bed.mustIsrfs('a', 'import', source, bed.vm())
  const mountpoint = await bed.mount('a', bed.vm(), 'mnt')
  for (let round = 0; round < 20; round++) {
    const name = path.join(mountpoint, `scratch-${String(round)}`)
    fs.writeFileSync(name, 'written, then removed')
    if (round % 2 === 0) fs.renameSync(name, path.join(mountpoint, 'replaced'))
    else fs.rmSync(name)
  }
  const invalid = Buffer.concat([Buffer.from(`${mountpoint}/`), Buffer.alloc(255, 0xff)])
  t.throws(
    () => {
      fs.writeFileSync(invalid, '')
    },
    { code: 'EILSEQ' }
  )
  t.is((await bed.unmount('a', mountpoint)).code, 0)
})
