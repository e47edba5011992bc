import { randomBytes } from 'node:crypto'
import fs from 'node:fs'
import net from 'node:net'
import path from 'node:path'
import anyTest, { type TestFn } from 'ava'
import { UsageError } from '../../src/base/errors.js'
import { ImportBed } from './import-bed.js'

const test = anyTest as TestFn<ImportBed>
test.beforeEach((t) => {
  t.context = new ImportBed()
})
test.afterEach.always((t) => {
  t.context.destroy()
})

async function refused(bed: ImportBed, options: Parameters<ImportBed['import']>[0] = {}): Promise<string> {
  try {
    await bed.import(options)
  } catch (error) {
    return String(error)
  }
  return 'not refused'
}

test('sockets and hidden files are skipped, links that lead outside are carried, each with a warning', async (t) => {
  const bed = t.context
  fs.writeFileSync(bed.inSource('file'), 'x')
  fs.writeFileSync(bed.inSource('.fuse_hidden0000000100000002'), 'x')
  fs.mkdirSync(bed.inSource('sub'))
  fs.symlinkSync('../../etc', bed.inSource('sub', 'outside'))
  fs.symlinkSync('../file', bed.inSource('sub', 'inside'))
  fs.symlinkSync('/etc/passwd', bed.inSource('absolute'))
  const server = net.createServer().listen(bed.inSource('socket'))
  t.teardown(() => server.close())
  await new Promise((resolve) => server.once('listening', resolve))
  const { published } = await bed.import()
  t.deepEqual(
    published?.manifest.entries.map((entry) => entry.name),
    ['', 'absolute', 'file', 'socket', 'sub', 'inside', 'outside'].filter((name) => name !== 'socket')
  )
  const warnings = bed.warnings.join('\n')
  t.is(bed.warnings.length, 4)
  for (const part of [/socket: skipped/, /removed while open: skipped/, /outside.*\.\.\/\.\.\/etc/, /\/etc\/passwd/])
    t.regex(warnings, part)
})

test('a name that is not valid UTF-8 is refused by name', async (t) => {
  const bed = t.context
  fs.writeFileSync(Buffer.concat([Buffer.from(`${bed.source}/caf`), Buffer.from([0xe9])]), 'x')
  t.regex(await refused(bed), /caf\\xe9 is not valid UTF-8/)
  t.deepEqual(fs.readdirSync(bed.share), ['.testvm.isrfs-import'])
})

test('a VM that exists is not replaced; an empty directory in its place is', async (t) => {
  const bed = t.context
  fs.writeFileSync(bed.inSource('file'), 'x')
  fs.mkdirSync(bed.vm)
  await bed.import()
  t.regex(await refused(bed), /a VM is at .* already/)
  fs.mkdirSync(bed.path('share', 'full'))
  fs.writeFileSync(bed.path('share', 'full', 'x'), '')
  t.regex(await refused(bed, { vmPath: bed.path('share', 'full') }), /not an empty directory/)
  t.deepEqual(fs.readdirSync(bed.share).sort(), ['full', 'testvm'])
})

test('a VM that appears during the import is not replaced', async (t) => {
  const bed = t.context
  fs.writeFileSync(bed.inSource('file'), 'x')
  const onProgress = ({ phase }: { phase: string }): void => {
    if (phase !== 'publish') return
    fs.mkdirSync(bed.vm, { recursive: true })
    fs.writeFileSync(path.join(bed.vm, 'vm.json'), '{}')
  }
  t.regex(await refused(bed, { onProgress }), /a VM is at .* already/)
  t.deepEqual(fs.readdirSync(bed.share), ['testvm'])
  t.deepEqual(fs.readdirSync(bed.vm), ['vm.json'])
})

test('places that cannot be are refused before anything is written', async (t) => {
  const bed = t.context
  fs.writeFileSync(bed.inSource('file'), 'x')
  t.regex(await refused(bed, { vmPath: bed.path('no', 'where') }), /the share .*no does not exist/)
  t.regex(await refused(bed, { vmPath: bed.inSource('file', 'vm') }), /lie in each other/)
  t.regex(await refused(bed, { vmPath: bed.inSource('vm') }), /lie in each other/)
  t.regex(await refused(bed, { source: bed.path('nothing') }), /does not exist/)
  t.regex(await refused(bed, { source: bed.inSource('file') }), /not a directory/)
  t.regex(await refused(bed, { vmPath: bed.path('share', 'x'.repeat(250)) }), /cannot be the path of a VM/)
  fs.writeFileSync(bed.path('afile'), '')
  t.regex(await refused(bed, { vmPath: bed.path('afile', 'vm') }), /not a directory/)
  await bed.import()
  await t.throwsAsync(bed.import({ vmPath: path.join(bed.vm, 'inner') }), {
    instanceOf: UsageError,
    message: /is a VM itself/
  })
})

const PIECE = 16_000_000 // not a multiple of a block

test('pieces of the 2002 scripts become whole files', async (t) => {
  const bed = t.context
  const bytes = randomBytes(2 * PIECE + 4321)
  for (let index = 0; index < 3; index++)
    fs.writeFileSync(bed.inSource(`disk.vmdk.00${index}`), bytes.subarray(index * PIECE, (index + 1) * PIECE))
  fs.writeFileSync(bed.inSource('one.000'), 'short')
  fs.writeFileSync(bed.inSource('plain.txt'), 'plain')
  fs.writeFileSync(bed.inSource('version.12'), 'plain')
  const { published } = await bed.import({ joinPieces: true })
  t.deepEqual(
    published?.manifest.entries.map((entry) => entry.name),
    ['', 'disk.vmdk', 'one', 'plain.txt', 'version.12']
  )
  await bed.export(bed.path('out'))
  t.true(fs.readFileSync(bed.path('out', 'disk.vmdk')).equals(bytes))
  t.is(fs.readFileSync(bed.path('out', 'one'), 'utf8'), 'short')
})

test('a gap in the pieces, a short one in the middle, or a whole file beside them is an error', async (t) => {
  const bed = t.context
  const write = (name: string, bytes: number): void => fs.writeFileSync(bed.inSource(name), Buffer.alloc(bytes, 1))
  write('disk.000', 100)
  write('disk.002', 50)
  t.regex(await refused(bed, { joinPieces: true }), /disk\.001 is missing/)
  write('disk.001', 70)
  t.regex(await refused(bed, { joinPieces: true }), /disk\.001 has 70 bytes/)
  write('disk.001', 100)
  write('disk.002', 101)
  t.regex(await refused(bed, { joinPieces: true }), /disk\.002 has 101 bytes/)
  write('disk.002', 100)
  write('disk', 1)
  t.regex(await refused(bed, { joinPieces: true }), /both disk and pieces/)
  fs.rmSync(bed.inSource('disk'))
  await bed.import({ joinPieces: true })
})
