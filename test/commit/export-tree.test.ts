import fs from 'node:fs'
import path from 'node:path'
import anyTest, { type TestFn } from 'ava'
import { setTimes } from '../../src/commit/export-times.js'
import { createTree, setAttributes } from '../../src/commit/export-tree.js'
import type { ManifestEntry } from '../../src/format/manifest.js'
import { ImportBed } from './import-bed.js'

const test = anyTest as TestFn<ImportBed>
test.beforeEach((t) => {
  t.context = new ImportBed()
})
test.afterEach.always((t) => {
  t.context.destroy()
})

const owner = process.getuid?.() ?? 0
const group = process.getgid?.() ?? 0
const attributes = {
  parent: 1,
  mode: 0o640,
  uid: owner,
  gid: group,
  atime: '1500000000000000001',
  mtime: '-1',
  ctime: '0'
}
const root: ManifestEntry = { ...attributes, inode: 1, parent: 0, name: '', type: 'directory', mode: 0o711 }

test('sockets are skipped with a warning; devices need root, and a warning otherwise', async (t) => {
  const bed = t.context
  const entries: ManifestEntry[] = [
    root,
    { ...attributes, inode: 2, name: 'socket', type: 'socket' },
    { ...attributes, inode: 3, name: 'null', type: 'character-device', rdev: 0x103 },
    { ...attributes, inode: 4, name: 'loop', type: 'block-device', rdev: 0x12307_05 }
  ]
  const warn = (message: string): void => {
    bed.warnings.push(message)
  }
  const tree = createTree(bed.path('out'), entries, warn)
  await setAttributes(tree, warn)
  t.regex(bed.warnings.join(), /is a socket: skipped/)
  if (tree.length === 2) {
    t.regex(bed.warnings.join(), /null was skipped/)
    return
  }
  const device = fs.lstatSync(bed.path('out', 'null'), { bigint: true })
  t.true(device.isCharacterDevice())
  t.is(device.rdev, 0x103n)
  t.is(device.mode & 0o7777n, 0o640n)
  t.is(fs.lstatSync(bed.path('out', 'loop')).rdev, 0x12307_05)
})

test('nothing that is there already is written over or followed', (t) => {
  const bed = t.context
  fs.symlinkSync(bed.path('elsewhere'), bed.path('out'))
  t.throws(() => createTree(bed.path('out'), [root], () => undefined), { message: /EEXIST/ })
  const file: ManifestEntry = { ...attributes, inode: 2, name: 'file', type: 'file', size: 5, dataBlocks: 0, map: null }
  t.throws(() => createTree(bed.path('two'), [root, file, { ...file, inode: 3 }], () => undefined), {
    message: /cannot create .*file/
  })
})

test('times are set to the nanosecond, before 1970 and on links too', async (t) => {
  const bed = t.context
  const times = [
    { path: bed.path('after'), atimeNs: 1_790_000_000_123_456_789n, mtimeNs: 1_790_000_000_000_000_001n },
    { path: bed.path('before'), atimeNs: -1_500_000_001n, mtimeNs: -1n },
    { path: bed.path('whole'), atimeNs: 1_000_000_000_000_000_000n, mtimeNs: 0n },
    { path: bed.path('a link'), atimeNs: 999_999_999_999_999_999n, mtimeNs: 999_999_999_999_999_999n }
  ]
  for (const { path } of times.slice(0, 3)) fs.writeFileSync(path, '')
  fs.symlinkSync('nowhere', bed.path('a link'))
  t.deepEqual(await setTimes(times), [])
  for (const { path: name, atimeNs, mtimeNs } of times) {
    const stat = fs.lstatSync(name, { bigint: true })
    t.is(stat.atimeNs, atimeNs, path.basename(name))
    t.is(stat.mtimeNs, mtimeNs, path.basename(name))
  }
})
