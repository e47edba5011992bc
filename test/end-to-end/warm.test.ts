/** After isrfs warm the share may be taken away: everything reads, and a session runs, suspends later and loses nothing. */
import fs from 'node:fs'
import path from 'node:path'
import anyTest, { type TestFn } from 'ava'
import { Bed } from '../support/bed.js'
import { differences, sameBytes } from '../support/compare.js'
import { Random } from '../support/random.js'
import { makeSampleVm } from '../support/sample-vm.js'

const test = anyTest as TestFn<{ bed: Bed; random: Random; source: string }>

test.beforeEach(async (t) => {
  t.context.random = new Random()
  t.log(`seed ${String(t.context.random.seed)}`)
  const bed = (t.context.bed = new Bed('warm'))
  t.context.source = bed.makeDirectory('source')
  makeSampleVm(t.context.source, t.context.random, { diskBytes: 300 * 2 ** 20 + 777, pieces: 40 })
  await bed.mustIsrfs('a', 'import', t.context.source, bed.vm())
})
test.afterEach.always((t) => t.context.bed.destroy())

test.serial(
  'a mount that was warmed reads everything with the share away, and publishes when it is back',
  async (t) => {
    const { bed, random, source } = t.context
    const mountpoint = await bed.mount('a', bed.vm(), 'mnt')
    const { stdout } = await bed.mustIsrfs('a', 'warm', mountpoint)
    t.regex(stdout, /is in the cache/)
    const warmed = await bed.status('a', mountpoint)
    fs.renameSync(bed.vm(), bed.path('away'))
    t.deepEqual(differences(source, mountpoint), [])
    const after = await bed.status('a', mountpoint)
    t.is(after.fetchedBytes, warmed.fetchedBytes)
    const model = bed.path('model')
    await bed.command('cp', ['-a', source, model])
    const bytes = random.bytes(700_001)
    for (const directory of [mountpoint, model]) {
      const disk = fs.openSync(path.join(directory, 'testvm-flat.vmdk'), 'r+')
      fs.writeSync(disk, bytes, 0, bytes.length, 12_345_678)
      fs.fsyncSync(disk)
      fs.closeSync(disk)
    }
    fs.renameSync(bed.path('away'), bed.vm())
    await bed.unmount('a', mountpoint)
    const elsewhere = await bed.mount('b', bed.vm(), 'mnt-b', '--read-only')
    t.true(sameBytes(path.join(elsewhere, 'testvm-flat.vmdk'), path.join(model, 'testvm-flat.vmdk')))
    await bed.unmount('b', elsewhere)
  }
)

test.serial(
  'a VM is warmed without a mount, a second time from the cache alone, and the next mount needs no blocks',
  async (t) => {
    const { bed, source } = t.context
    const first = await bed.mustIsrfs('b', 'warm', bed.vm())
    t.notRegex(first.stdout, /, 0 B fetched now/)
    const second = await bed.mustIsrfs('b', 'warm', bed.vm())
    t.regex(second.stdout, /, 0 B fetched now/)
    t.deepEqual(fs.readdirSync(bed.vm()).includes('pins') ? fs.readdirSync(path.join(bed.vm(), 'pins')) : [], [])
    const mountpoint = await bed.mount('b', bed.vm(), 'mnt')
    fs.renameSync(path.join(bed.vm(), 'chunks'), bed.path('chunks'))
    t.deepEqual(differences(source, mountpoint), [])
    t.is((await bed.status('b', mountpoint)).fetchedBytes, 0)
    t.regex(
      (await bed.mustIsrfs('b', 'warm', bed.vm())).stdout,
      /, 0 B fetched now/,
      'through the mount of this client'
    )
    fs.renameSync(bed.path('chunks'), path.join(bed.vm(), 'chunks'))
    await bed.unmount('b', mountpoint)
  }
)

test.serial(
  'what warm cannot do it says: a cache that is too small, damage on the share, a directory that is no VM',
  async (t) => {
    const { bed } = t.context
    const disk = fs.openSync(path.join(t.context.source, 'big'), 'w')
    for (let piece = 0; piece < 70; piece++) fs.writeSync(disk, t.context.random.bytes(2 ** 20))
    fs.closeSync(disk)
    await bed.mustIsrfs('a', 'import', '--update', t.context.source, bed.vm())
    const small = await bed.isrfs('b', 'warm', bed.vm(), '--cache-size', '1M')
    t.is(small.code, 1)
    t.regex(small.stderr, /cannot hold them[^]*--cache-size/)
    t.is((await bed.isrfs('b', 'warm', bed.path('nothing'))).code, 1)
    const chunks = path.join(bed.vm(), 'chunks')
    const all = fs
      .readdirSync(chunks)
      .flatMap((name) => fs.readdirSync(path.join(chunks, name)).map((chunk) => path.join(chunks, name, chunk)))
    const largest = all.sort((a, b) => fs.statSync(b).size - fs.statSync(a).size)[0] ?? ''
    fs.chmodSync(largest, 0o644)
    const fd = fs.openSync(largest, 'r+')
    fs.writeSync(fd, Buffer.alloc(300_000), 0, 300_000, 1_000_000)
    fs.closeSync(fd)
    const damaged = await bed.isrfs('b', 'warm', bed.vm())
    t.is(damaged.code, 4)
    t.regex(damaged.stderr, /[1-9] blocks could not be fetched/)
  }
)
