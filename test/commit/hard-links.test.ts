/** Files with several names from a plain directory to the share and back, and through sessions, committed once. */
import { randomBytes } from 'node:crypto'
import fs from 'node:fs'
import path from 'node:path'
import anyTest, { type TestFn } from 'ava'
import { BLOCK_BYTES, PAGE_BYTES, toInodeId } from '../../src/base/units.js'
import { createTree } from '../../src/commit/export-tree.js'
import { readNewestGeneration } from '../../src/format/generations.js'
import { diffGenerations } from '../../src/history/diff.js'
import { checkVm } from '../../src/history/check.js'
import { Share } from '../../src/share/share.js'
import { CommitBed } from './commit-bed.js'
import { ImportBed } from './import-bed.js'

const test = anyTest as TestFn<ImportBed>
test.beforeEach((t) => {
  t.context = new ImportBed()
})
test.afterEach.always((t) => {
  t.context.destroy()
})

/** The names of each file with several, by path. */
function linksBelow(directory: string): string[][] {
  const groups = new Map<string, string[]>()
  for (const name of fs.readdirSync(directory, { recursive: true, encoding: 'utf8' })) {
    const { dev, ino } = fs.lstatSync(path.join(directory, name))
    groups.set(`${String(dev)}:${String(ino)}`, [...(groups.get(`${String(dev)}:${String(ino)}`) ?? []), name])
  }
  return [...groups.values()]
    .filter((names) => names.length > 1)
    .map((names) => names.sort())
    .sort()
}

test('hard links of every type are found by their numbers, sent once, and made again by an export', async (t) => {
  const bed = t.context
  fs.mkdirSync(bed.inSource('a', 'deep'), { recursive: true })
  const content = randomBytes(3 * BLOCK_BYTES)
  fs.writeFileSync(bed.inSource('disk'), content)
  fs.linkSync(bed.inSource('disk'), bed.inSource('a', 'deep', 'disk'))
  fs.linkSync(bed.inSource('disk'), bed.inSource('z'))
  fs.symlinkSync('disk', bed.inSource('soft'))
  fs.linkSync(bed.inSource('soft'), bed.inSource('a', 'soft'))
  fs.writeFileSync(bed.inSource('alone'), 'x')
  const { published, sentBytes, files, totalBytes } = await bed.import()
  t.deepEqual(bed.warnings, [])
  t.is(files, 2)
  t.is(totalBytes, content.length + 1)
  t.true(sentBytes < 2 * content.length)
  t.is(published?.manifest.version, 2)
  await bed.export(bed.path('out'))
  t.deepEqual(linksBelow(bed.path('out')), [
    ['a/deep/disk', 'disk', 'z'],
    ['a/soft', 'soft']
  ])
  t.true(fs.readFileSync(bed.path('out', 'a', 'deep', 'disk')).equals(content))
  t.is(fs.statSync(bed.path('out', 'disk')).mtimeMs, fs.statSync(bed.inSource('disk')).mtimeMs)
  const again = await bed.import({ source: bed.path('out'), update: true })
  t.is(again.published, undefined, 'nothing differs')
})

test('an update splits and joins files, and keeps what it can of inode numbers and bytes', async (t) => {
  const bed = t.context
  const content = randomBytes(2 * BLOCK_BYTES)
  fs.writeFileSync(bed.inSource('a'), content)
  fs.linkSync(bed.inSource('a'), bed.inSource('b'))
  await bed.import()
  const read = (): ReturnType<typeof readNewestGeneration> => readNewestGeneration(new Share(bed.vm))
  const inodeOf = (name: string): number | undefined =>
    read().manifest.entries.find((entry) => [entry, ...(entry.otherNames ?? [])].some((place) => place.name === name))
      ?.inode
  const [first, linked] = [read(), inodeOf('a')]
  fs.rmSync(bed.inSource('b'))
  fs.copyFileSync(bed.inSource('a'), bed.inSource('b'))
  const split = await bed.import({ update: true })
  t.is(split.changedBytes, 0, 'the bytes are there already')
  t.is(read().manifest.version, 1)
  t.is(inodeOf('a'), linked)
  t.not(inodeOf('b'), linked)
  const second = read()
  t.deepEqual(
    diffGenerations(new Share(bed.vm), first, second).map(({ path: name, change }) => [name, change]),
    [
      ['/', 'attributes'],
      ['/a', 'attributes'],
      ['/b', 'attributes']
    ]
  )
  fs.rmSync(bed.inSource('a'))
  fs.linkSync(bed.inSource('b'), bed.inSource('a'))
  fs.linkSync(bed.inSource('b'), bed.inSource('c'))
  await bed.import({ update: true })
  t.is(read().manifest.version, 2)
  t.is(inodeOf('a'), inodeOf('c'))
  t.deepEqual(
    diffGenerations(new Share(bed.vm), second, read()).filter(({ change }) => change !== 'attributes'),
    [{ path: '/c', change: 'added', changedBytes: 0 }]
  )
  await bed.export(bed.path('out'))
  t.deepEqual(linksBelow(bed.path('out')), [['a', 'b', 'c']])
  const { bad } = await checkVm({ share: new Share(bed.vm), readData: true, onProgress: () => undefined, threads: 1 })
  t.deepEqual(bad, [])
})

test('with --join-pieces hard links are files of their own, with a warning: no name of a piece gets lost', async (t) => {
  const bed = t.context
  fs.writeFileSync(bed.inSource('disk.000'), randomBytes(5000))
  fs.writeFileSync(bed.inSource('disk.001'), randomBytes(100))
  fs.mkdirSync(bed.inSource('keep'))
  fs.linkSync(bed.inSource('disk.000'), bed.inSource('keep', 'first'))
  await bed.import({ joinPieces: true })
  t.regex(bed.warnings.join(), /first is another name of .*disk\.000, but pieces are joined/)
  await bed.export(bed.path('out'))
  const pieces = ['disk.000', 'disk.001'].map((name) => fs.readFileSync(bed.inSource(name)))
  t.true(fs.readFileSync(bed.path('out', 'disk')).equals(Buffer.concat(pieces)))
  t.true(fs.readFileSync(bed.path('out', 'keep', 'first')).equals(pieces[0] ?? Buffer.alloc(0)))
})

test('an export to where hard links cannot be made fails and says so: a copy would be another VM', (t) => {
  const bed = t.context
  const attributes = { parent: 1, mode: 0o644, uid: 0, gid: 0, atime: '0', mtime: '0', ctime: '0' }
  const root = { ...attributes, inode: 1, parent: 0, name: '', type: 'directory' as const }
  const file = { ...attributes, inode: 2, name: 'a', type: 'file' as const, size: 0, dataBlocks: 0, map: null }
  const entries = [root, { ...file, otherNames: [{ parent: 1, name: 'a' }] }] // as a file system without links: link(2) fails
  const error = t.throws(() => createTree(bed.path('out'), entries, () => undefined), { message: /another name of/ })
  t.regex(String((error as { hint?: string }).hint), /has hard links/)
})

test('a session commits a file with several names once; the next session goes on with all of them', async (t) => {
  const bed = new CommitBed({ disk: randomBytes(BLOCK_BYTES), other: randomBytes(BLOCK_BYTES) })
  const disk = bed.file('disk')
  const names = (): unknown => {
    const { name, otherNames } = bed.file('a')
    return [name, ...otherNames.map((other) => other.name)]
  }
  for (const name of ['z', 'a']) {
    bed.session.record({ kind: 'link', parent: toInodeId(1), name, inode: disk.id, hardLink: true })
  }
  bed.session.write(disk, randomBytes(PAGE_BYTES), 0)
  const first = await bed.publish()
  t.true(first.manifest.sentBytes < 2 * BLOCK_BYTES)
  t.is(first.manifest.version, 2)
  t.deepEqual(
    first.manifest.entries.map(({ name, otherNames }) => [name, ...(otherNames ?? []).map((other) => other.name)]),
    [[''], ['a', 'disk', 'z'], ['other']]
  )
  t.deepEqual(names(), ['a', 'disk', 'z'])
  t.is((await bed.commit()).published, undefined, 'nothing has changed')
  for (const name of ['a', 'disk']) bed.session.record({ kind: 'unlink', parent: toInodeId(1), name })
  const last = await bed.publish()
  t.is(last.manifest.version, 1, 'without hard links it is what every isrfs reads')
  t.deepEqual(
    last.manifest.entries.map(({ name }) => name),
    ['', 'other', 'z']
  )
  await bed.destroy()
})
