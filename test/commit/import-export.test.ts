import { randomBytes } from 'node:crypto'
import { execFileSync } from 'node:child_process'
import fs from 'node:fs'
import path from 'node:path'
import anyTest, { type TestFn } from 'ava'
import { IntegrityError } from '../../src/base/errors.js'
import { readNewestGeneration } from '../../src/format/generations.js'
import { Share } from '../../src/share/share.js'
import { differences } from '../support/compare.js'
import { Random } from '../support/random.js'
import { makeSampleVm } from '../support/sample-vm.js'
import { ImportBed, timesBelow, touch } from './import-bed.js'

const test = anyTest as TestFn<ImportBed>
test.beforeEach((t) => {
  t.context = new ImportBed()
})
test.afterEach.always((t) => {
  t.context.destroy()
})

const GIB = 2 ** 30

test('a directory comes back byte for byte, with its attributes and times to the nanosecond', async (t) => {
  const bed = t.context
  const random = new Random()
  t.log(`seed ${random.seed}`)
  makeSampleVm(bed.source, random, { diskBytes: 4 * GIB + 12_345, pieces: 12 })
  fs.writeFileSync(bed.inSource('big'), random.bytes(17 * 2 ** 20 + 5))
  fs.mkdirSync(bed.inSource('locked'))
  fs.writeFileSync(bed.inSource('locked', 'secret'), 'x', { mode: 0o600 })
  fs.chmodSync(bed.inSource('testvm.nvram'), 0o4751)
  fs.symlinkSync('nowhere at all', bed.inSource('dangling'))
  execFileSync('mkfifo', [bed.inSource('pipe')])
  fs.writeFileSync(bed.inSource('no bytes but a size'), '')
  fs.truncateSync(bed.inSource('no bytes but a size'), 3 * 2 ** 20)
  fs.writeFileSync(bed.inSource('ünïcode – 名前'), 'name')
  touch(bed.inSource('testvm.vmdk'), 'm', '1234567890.123456789')
  touch(bed.inSource('dangling'), 'm', '1234567891.987654321')
  touch(bed.inSource('pipe'), 'a', '-1.500000001')
  touch(bed.inSource('caches'), 'm', '999999999.000000001')
  fs.chmodSync(bed.inSource('locked'), 0o500)
  timesBelow(bed.source) // reading a directory sets its time of access, once
  const times = timesBelow(bed.source)

  const imported = await bed.import()
  t.is(Number(imported.published?.number), 1)
  t.true(imported.sentBytes < 40 * 2 ** 20)
  t.is(
    imported.totalBytes,
    imported.published!.manifest.entries.reduce((sum, entry) => sum + (entry.type === 'file' ? entry.size : 0), 0)
  )
  t.deepEqual(fs.readdirSync(bed.share), ['testvm'])
  t.deepEqual(fs.readdirSync(bed.vm).sort(), ['chunks', 'generations', 'tmp', 'vm.json'])
  t.deepEqual(fs.readdirSync(path.join(bed.vm, 'tmp')), [])

  const out = bed.path('out')
  const progress: number[] = []
  const exported = await bed.export(out, {
    onProgress: ({ doneBytes, totalBytes }) => progress.push(doneBytes / totalBytes)
  })
  const outTimes = timesBelow(out)
  t.deepEqual(differences(bed.source, out), [])
  for (const [name, expected] of times) t.deepEqual(outTimes.get(name), expected, name)
  t.is(progress.at(-1), 1)
  t.is(imported.published?.digest, exported.generation.digest)
  t.deepEqual(bed.warnings, [])
  const disk = fs.statSync(path.join(out, 'testvm-flat.vmdk'))
  t.is(disk.size, 4 * GIB + 12_345)
  t.true(disk.blocks * 512 < 16 * 2 ** 20, 'a sparse disk comes out sparse')
  t.is(fs.statSync(path.join(out, 'no bytes but a size')).blocks, 0)
  t.deepEqual(fs.readdirSync(path.join(bed.vm, 'pins')), [])
})

test('a big file lies in one chunk for each 16 MiB of it, small files share one', async (t) => {
  const bed = t.context
  fs.writeFileSync(bed.inSource('disk'), randomBytes(33 * 2 ** 20))
  for (let index = 0; index < 20; index++) fs.writeFileSync(bed.inSource(`small${index}`), randomBytes(1000))
  await bed.import()
  // three pieces of the disk, one of small files, one of map pages, one of roots
  t.is(bed.chunks().length, 6)
})

test('an older generation is exported on request', async (t) => {
  const bed = t.context
  fs.writeFileSync(bed.inSource('file'), 'first')
  await bed.import()
  fs.writeFileSync(bed.inSource('file'), 'second')
  await bed.import({ update: true })
  await bed.export(bed.path('one'), { generation: 1 })
  await bed.export(bed.path('two'))
  t.is(fs.readFileSync(bed.path('one', 'file'), 'utf8'), 'first')
  t.is(fs.readFileSync(bed.path('two', 'file'), 'utf8'), 'second')
  const error = await t.throwsAsync(bed.export(bed.path('three'), { generation: 3 }))
  t.regex(error.message, /there is no generation 3/)
})

test('a damaged chunk fails the export and is named with file and block; nothing looks finished', async (t) => {
  const bed = t.context
  fs.mkdirSync(bed.inSource('sub'))
  fs.writeFileSync(bed.inSource('sub', 'disk'), randomBytes(20 * 2 ** 20))
  await bed.import()
  // about 16 MiB: a raw block loses its trailing zeros, and one of 256 random blocks ends in one
  const chunk = bed.chunks().find((name) => fs.statSync(name).size > 15 * 2 ** 20)!
  const descriptor = fs.openSync(chunk, 'r+')
  fs.writeSync(descriptor, Buffer.from('damage'), 0, 6, 5 * 131_072 + 77)
  fs.closeSync(descriptor)
  const error = await t.throwsAsync(bed.export(bed.path('out')), { instanceOf: IntegrityError })
  t.regex(error.message, /block 5 of sub\/disk is damaged/)
  t.true(error.message.includes(path.basename(chunk)))
  t.false(fs.existsSync(bed.path('out')))
  t.true(fs.existsSync(bed.path('out.isrfs-incomplete')))
  t.regex(bed.warnings.join(), /not complete/)
  const again = await t.throwsAsync(bed.export(bed.path('out')))
  t.regex(again.message, /an earlier export/)
})

test('a missing chunk and a damaged map are integrity errors that name the file', async (t) => {
  const bed = t.context
  fs.writeFileSync(bed.inSource('disk'), randomBytes(1000))
  await bed.import()
  const entry = readNewestGeneration(new Share(bed.vm)).manifest.entries[1]!
  const map = (entry as any).map.chunk as string
  const root = bed.chunks().find((name) => name.endsWith(map))!
  fs.truncateSync(root, 3)
  t.regex((await t.throwsAsync(bed.export(bed.path('a')), { instanceOf: IntegrityError })).message, /block map of disk/)
  for (const chunk of bed.chunks()) fs.rmSync(chunk)
  t.regex((await t.throwsAsync(bed.export(bed.path('b')), { instanceOf: IntegrityError })).message, /disk.*missing/)
})

test('an export writes over nothing', async (t) => {
  const bed = t.context
  fs.writeFileSync(bed.inSource('file'), 'x')
  await bed.import()
  fs.mkdirSync(bed.path('full'))
  fs.writeFileSync(bed.path('full', 'precious'), 'x')
  fs.mkdirSync(bed.path('empty'))
  fs.symlinkSync('empty', bed.path('link'))
  for (const name of ['full', 'link', 'full/precious']) {
    const error = await t.throwsAsync(bed.export(bed.path(name)))
    t.regex(error.message, /not an empty directory/)
  }
  t.regex((await t.throwsAsync(bed.export(bed.path('no', 'where')))).message, /does not exist/)
  await bed.export(bed.path('empty'))
  t.is(fs.readFileSync(bed.path('empty', 'file'), 'utf8'), 'x')
  t.regex((await t.throwsAsync(bed.export(bed.path('x'), { vmPath: bed.path('novm') }))).message, /there is no VM/)
})

test('an interrupted export leaves the destination absent', async (t) => {
  const bed = t.context
  fs.writeFileSync(bed.inSource('disk'), randomBytes(40 * 2 ** 20))
  await bed.import()
  const abort = new AbortController()
  const onProgress = ({ doneBytes }: { doneBytes: number }): void => {
    if (doneBytes > 0) abort.abort()
  }
  await t.throwsAsync(bed.export(bed.path('out'), { signal: abort.signal, onProgress, threads: 1 }), {
    message: /interrupted/
  })
  t.false(fs.existsSync(bed.path('out')))
})
