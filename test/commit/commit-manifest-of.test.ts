import test from 'ava'
import { ROOT_INODE, toInodeId } from '../../src/base/units.js'
import { manifestEntries, sameEntries } from '../../src/commit/manifest-of.js'
import type { ObjectPlace } from '../../src/format/place.js'
import type { FileType } from '../../src/session/namespace-types.js'
import { Namespace } from '../../src/session/namespace.js'

const COMMON = { mode: 0o700, uid: 1, gid: 2, atimeNs: -5n, mtimeNs: 6n, ctimeNs: 2n ** 60n }

const MAP: ObjectPlace = {
  encoding: 'raw',
  chunk: 'ab'.repeat(32),
  offset: 3,
  storedBytes: 9,
  plainBytes: 9,
  digest: 'cd'.repeat(32)
}

function makeNamespace(): Namespace {
  const root = { ...COMMON, id: ROOT_INODE, type: 'directory', parent: ROOT_INODE, name: '' } as const
  return new Namespace({
    nextInode: 2,
    inodes: [{ ...root, rdev: 0, target: '', sizeBytes: 0, base: undefined }]
  })
}

function add(namespace: Namespace, parent: number, name: string, type: FileType, rdev = 0, target = ''): number {
  const inode = namespace.allocateInode()
  namespace.apply({ ...COMMON, kind: 'inode', inode, type, rdev, target })
  namespace.apply({ kind: 'link', parent: toInodeId(parent), name, inode })
  return inode
}

test('parents come before children and siblings by name, whatever the order in which they were made', (t) => {
  const namespace = makeNamespace()
  add(namespace, 1, 'z', 'file')
  const inner = add(namespace, 1, 'm', 'directory')
  add(namespace, 1, 'a', 'file')
  const deeper = add(namespace, inner, 'b', 'directory')
  add(namespace, inner, 'a', 'file')
  add(namespace, deeper, 'deep', 'file')
  // a directory moves below one that was made after it
  const later = add(namespace, 1, 'later', 'directory')
  namespace.apply({ kind: 'unlink', parent: ROOT_INODE, name: 'm' })
  namespace.apply({ kind: 'link', parent: toInodeId(later), name: 'moved', inode: toInodeId(inner) })
  const entries = manifestEntries(namespace, new Map())
  t.deepEqual(
    entries.map(({ name }) => name),
    ['', 'a', 'later', 'z', 'moved', 'a', 'b', 'deep']
  )
  const seen = new Set<number>([0])
  for (const { inode, parent } of entries) {
    t.true(seen.has(parent))
    seen.add(inode)
  }
})

test('each type has what it needs and nothing else', (t) => {
  const namespace = makeNamespace()
  const file = add(namespace, 1, 'file', 'file')
  namespace.apply({ kind: 'size', inode: toInodeId(file), sizeBytes: 77, baseLimitBytes: 0 })
  add(namespace, 1, 'link', 'symlink', 0, '../elsewhere')
  add(namespace, 1, 'null', 'character-device', 259)
  add(namespace, 1, 'pipe', 'fifo')
  const [root, first, link, device, pipe] = manifestEntries(namespace, new Map([[file, { map: MAP, dataBlocks: 1 }]]))
  const attributes = { mode: 0o700, uid: 1, gid: 2, atime: '-5', mtime: '6', ctime: String(2n ** 60n) }
  t.deepEqual(root, { ...attributes, inode: 1, parent: 0, name: '', type: 'directory' })
  const common = { ...attributes, parent: 1 }
  t.deepEqual(first, { ...common, inode: file, name: 'file', type: 'file', size: 77, dataBlocks: 1, map: MAP })
  t.deepEqual(link, { ...common, inode: 3, name: 'link', type: 'symlink', target: '../elsewhere' })
  t.deepEqual(device, { ...common, inode: 4, name: 'null', type: 'character-device', rdev: 259 })
  t.deepEqual(pipe, { ...common, inode: 5, name: 'pipe', type: 'fifo' })
})

test('removed files and the hidden names of libfuse are in no generation', (t) => {
  const namespace = makeNamespace()
  add(namespace, 1, 'gone', 'file')
  add(namespace, 1, '.fuse_hidden000000a100000001', 'file')
  add(namespace, 1, '.fuse_hidden', 'file')
  namespace.apply({ kind: 'unlink', parent: ROOT_INODE, name: 'gone' })
  t.deepEqual(
    manifestEntries(namespace, new Map()).map(({ name }) => name),
    ['', '.fuse_hidden']
  )
})

test('a file with several names is one entry, at the first name that is met and not left out', (t) => {
  const namespace = makeNamespace()
  const lock = add(namespace, 1, 'a.lck', 'directory')
  const file = add(namespace, lock, 'first', 'file')
  const inner = add(namespace, 1, 'inner', 'directory')
  const link = (parent: number, name: string): void =>
    namespace.apply({ kind: 'link', parent: toInodeId(parent), name, inode: toInodeId(file), hardLink: true })
  link(inner, 'b')
  link(inner, '.fuse_hidden000000a100000001')
  link(1, 'z')
  const named = (entries: ReturnType<typeof manifestEntries>): unknown => {
    const { parent, name, otherNames } = entries.find(({ inode }) => inode === file) ?? {}
    return { parent, name, otherNames }
  }
  const all = manifestEntries(namespace, new Map())
  t.deepEqual(named(all), {
    parent: 1,
    name: 'z',
    otherNames: [
      { parent: lock, name: 'first' },
      { parent: inner, name: 'b' }
    ]
  })
  const withoutLock = manifestEntries(namespace, new Map(), (name) => name === 'a.lck')
  t.deepEqual(named(withoutLock), { parent: 1, name: 'z', otherNames: [{ parent: inner, name: 'b' }] })
  t.false(sameEntries(all, withoutLock))
  const reordered = all.map((entry) =>
    entry.inode === file
      ? {
          ...entry,
          parent: inner,
          name: 'b',
          otherNames: [
            { parent: lock, name: 'first' },
            { parent: 1, name: 'z' }
          ]
        }
      : entry
  )
  t.true(sameEntries(all, reordered))
  const onlyOne = manifestEntries(namespace, new Map(), (name) => name === 'a.lck' || name === 'inner')
  t.deepEqual(named(onlyOne), { parent: 1, name: 'z', otherNames: undefined })
})

test('entries are the same in any order of entries and keys, and differ in any value', (t) => {
  const namespace = makeNamespace()
  const file = add(namespace, 1, 'file', 'file')
  add(namespace, 1, 'other', 'file')
  const entries = manifestEntries(namespace, new Map([[file, { map: MAP, dataBlocks: 1 }]]))
  const shuffled = entries.map((entry) => Object.fromEntries(Object.entries(entry).reverse()) as typeof entry).reverse()
  t.true(sameEntries(entries, shuffled))
  t.false(sameEntries(entries, entries.slice(1)))
  t.false(sameEntries(entries.slice(1), entries))
  for (const change of [{ mode: 1 }, { mtime: '7' }, { name: 'x' }, { uid: 7 }]) {
    t.false(
      sameEntries(
        entries,
        entries.map((entry) => (entry.name === 'file' ? { ...entry, ...change } : entry))
      )
    )
  }
  const moved = manifestEntries(namespace, new Map([[file, { map: { ...MAP, offset: 4 }, dataBlocks: 1 }]]))
  t.false(sameEntries(entries, moved))
})
