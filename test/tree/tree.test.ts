/** The tree's rules that a kernel hides from programs: atomic units, orphans, unrecorded times, answers without waiting. */
import test from 'ava'
import { PosixError } from '../../src/base/errors.js'
import { LINKS_MAX, ROOT_INODE, toInodeId } from '../../src/base/units.js'
import { Tree } from '../../src/tree/tree.js'
import { MemoryImage, MemorySession } from './stand-in.js'

const O_RDONLY = 0
const O_RDWR = 2
const O_TRUNC = 0o1000
const ME = { mode: 0o644, uid: 1, gid: 2 }

function setUp(options: { readOnly?: boolean; writeback?: boolean } = {}) {
  const session = new MemorySession()
  const image = new MemoryImage(session)
  let clock = 1000n
  const tree = new Tree(session, image, { readOnly: false, writeback: true, now: () => (clock += 10n), ...options })
  return { session, image, tree, time: () => clock }
}

/** A handle of a tree that answers at once. */
function open(tree: Tree, inode: number, flags: number): number {
  const handle = tree.open(toInodeId(inode), flags)
  if (typeof handle !== 'number') throw new Error('open had to wait')
  return handle
}

const failure = { instanceOf: PosixError }

test('every operation on names is one unit of the journal', (t) => {
  const { session, tree } = setUp()
  const steps = [
    () => tree.create(ROOT_INODE, 'a', ME),
    () => tree.mkdir(ROOT_INODE, 'd', ME),
    () => tree.rename(ROOT_INODE, 'a', ROOT_INODE, 'b', 0),
    () => tree.symlink(ROOT_INODE, 'l', { ...ME, target: 'b' }),
    () => tree.rename(ROOT_INODE, 'b', ROOT_INODE, 'l', 0),
    () => tree.rename(ROOT_INODE, 'l', ROOT_INODE, 'd', 2),
    () => tree.rmdir(ROOT_INODE, 'l'),
    () => tree.link(tree.lookup(ROOT_INODE, 'd').inode, ROOT_INODE, 'h'),
    () => tree.unlink(ROOT_INODE, 'd'),
    () => tree.unlink(ROOT_INODE, 'h')
  ]
  for (const [index, step] of steps.entries()) {
    step()
    t.is(session.units.length, index + 1)
  }
  t.is([...session.namespace.inodes()].length, 1)
})

test('a journal that takes nothing leaves names, sizes and handles as they were', (t) => {
  const { session, tree } = setUp()
  const { inode } = tree.create(ROOT_INODE, 'a', ME)
  session.failure = new PosixError('ENOSPC')
  for (const action of [
    () => tree.create(ROOT_INODE, 'b', ME),
    () => tree.rename(ROOT_INODE, 'a', ROOT_INODE, 'b', 0),
    () => tree.link(inode, ROOT_INODE, 'b'),
    () => tree.unlink(ROOT_INODE, 'a'),
    () => tree.setattr(inode, { mode: 0o600 }),
    () => tree.setattr(inode, { sizeBytes: 1 }),
    () => tree.open(inode, O_RDWR | O_TRUNC)
  ]) {
    t.is(t.throws(action, failure).errno, 'ENOSPC')
  }
  t.is(tree.openHandles, 0)
  t.is(tree.lookup(ROOT_INODE, 'a').mode, 0o100644)
})

test('an unlinked open inode is forgotten with its last handle', (t) => {
  const { session, tree } = setUp()
  const { inode } = tree.create(ROOT_INODE, 'a', ME)
  const first = open(tree, inode, O_RDWR)
  const second = open(tree, inode, O_RDONLY)
  tree.unlink(ROOT_INODE, 'a')
  t.is(tree.getattr(inode).nlink, 0)
  t.is(tree.write(first, Buffer.from('x'), 0), 1)
  tree.release(first)
  t.is(tree.read(second, Buffer.alloc(1), 0), 1)
  tree.release(second)
  t.is(session.namespace.get(inode), undefined)
  t.is(t.throws(() => tree.getattr(inode), failure).errno, 'ESTALE')
  t.is(t.throws(() => tree.read(second, Buffer.alloc(1), 0), failure).errno, 'EBADF')
})

test('a release never fails: what the journal could not take is forgotten with a later release', (t) => {
  const { session, tree } = setUp()
  const { inode } = tree.create(ROOT_INODE, 'a', ME)
  const { inode: other } = tree.create(ROOT_INODE, 'b', ME)
  const handle = open(tree, inode, O_RDWR)
  tree.unlink(ROOT_INODE, 'a')
  session.failure = new PosixError('ENOSPC')
  tree.release(handle)
  t.truthy(session.namespace.get(inode))
  session.failure = undefined
  tree.release(open(tree, other, O_RDONLY))
  t.is(session.namespace.get(inode), undefined)
})

test('a target replaced while it is open stays, otherwise it is forgotten in the same unit', (t) => {
  const { session, tree } = setUp()
  const { inode: kept } = tree.create(ROOT_INODE, 'kept', ME)
  const { inode: gone } = tree.create(ROOT_INODE, 'gone', ME)
  tree.create(ROOT_INODE, 'x', ME)
  tree.create(ROOT_INODE, 'y', ME)
  const handle = open(tree, kept, O_RDONLY)
  tree.rename(ROOT_INODE, 'x', ROOT_INODE, 'kept', 0)
  tree.rename(ROOT_INODE, 'y', ROOT_INODE, 'gone', 0)
  t.is(session.namespace.get(kept)?.parent, 0 as never)
  t.is(session.namespace.get(gone), undefined)
  tree.release(handle)
  t.is(session.namespace.get(kept), undefined)
})

test('nothing is made or found in a removed directory that is still open', (t) => {
  const { tree } = setUp()
  const { inode } = tree.mkdir(ROOT_INODE, 'd', ME)
  const handle = tree.opendir(inode)
  tree.rmdir(ROOT_INODE, 'd')
  t.is(t.throws(() => tree.create(inode, 'f', ME), failure).errno, 'ENOENT')
  t.deepEqual(tree.readdir(handle, 0), [])
  tree.releasedir(handle)
  t.is(t.throws(() => tree.getattr(inode), failure).errno, 'ESTALE')
})

test('a file with several names goes with its last one, and only then is forgotten', (t) => {
  const { session, tree } = setUp()
  const { inode } = tree.create(ROOT_INODE, 'a', ME)
  const { inode: other } = tree.create(ROOT_INODE, 'other', ME)
  t.is(tree.link(inode, ROOT_INODE, 'b').nlink, 2)
  tree.link(inode, ROOT_INODE, 'c')
  const handle = open(tree, inode, O_RDWR)
  tree.rename(ROOT_INODE, 'other', ROOT_INODE, 'b', 0)
  t.is(tree.getattr(inode).nlink, 2)
  t.is(tree.lookup(ROOT_INODE, 'b').inode, other)
  tree.unlink(ROOT_INODE, 'a')
  tree.release(handle)
  t.is(tree.getattr(inode).nlink, 1, 'nobody has it open, but it has a name')
  tree.rename(ROOT_INODE, 'c', ROOT_INODE, 'a', 0)
  tree.unlink(ROOT_INODE, 'a')
  t.is(session.namespace.get(inode), undefined)
})

test('links to what is gone are refused, and names are not without end', (t) => {
  const { tree } = setUp()
  const { inode: gone } = tree.create(ROOT_INODE, 'gone', ME)
  open(tree, gone, O_RDWR)
  tree.unlink(ROOT_INODE, 'gone')
  t.is(t.throws(() => tree.link(gone, ROOT_INODE, 'back'), failure).errno, 'ENOENT')
  const { inode } = tree.create(ROOT_INODE, 'f', ME)
  for (let count = 1; count < LINKS_MAX; count++) tree.link(inode, ROOT_INODE, `f${count}`)
  t.is(tree.getattr(inode).nlink, LINKS_MAX)
  t.is(t.throws(() => tree.link(inode, ROOT_INODE, 'more'), failure).errno, 'EMLINK')
})

test('loops of directories are refused, also by an exchange', (t) => {
  const { tree } = setUp()
  const { inode: a } = tree.mkdir(ROOT_INODE, 'a', ME)
  const { inode: b } = tree.mkdir(a, 'b', ME)
  tree.mkdir(b, 'c', ME)
  for (const action of [
    () => tree.rename(ROOT_INODE, 'a', a, 'x', 0),
    () => tree.rename(ROOT_INODE, 'a', b, 'c', 0),
    () => tree.rename(b, 'c', ROOT_INODE, 'a', 2),
    () => tree.rename(ROOT_INODE, 'a', ROOT_INODE, 'y', 3),
    () => tree.rename(ROOT_INODE, 'a', ROOT_INODE, 'y', 4)
  ]) {
    t.is(t.throws(action, failure).errno, 'EINVAL')
  }
  t.is(t.throws(() => tree.rename(b, 'c', ROOT_INODE, 'a', 0), failure).errno, 'ENOTEMPTY')
})

test('without writeback a write shows its time at once and records it at flush', (t) => {
  const { session, tree, time } = setUp({ writeback: false })
  const { inode } = tree.create(ROOT_INODE, 'a', ME)
  const handle = open(tree, inode, O_RDWR)
  void tree.write(handle, Buffer.from('x'), 0)
  const written = time()
  t.is(tree.getattr(inode).mtimeNs, written)
  t.not(session.namespace.get(inode)?.mtimeNs, written)
  tree.flush(handle)
  t.is(session.namespace.get(inode)?.mtimeNs, written)
  t.is(session.namespace.get(inode)?.ctimeNs, written)
  const units = session.units.length
  tree.flush(handle)
  t.is(session.units.length, units)
  void tree.write(handle, Buffer.from('y'), 0)
  void tree.setattr(inode, { mtimeNs: 5n })
  tree.release(handle)
  t.is(tree.getattr(inode).mtimeNs, 5n)
})

test('with writeback a write touches no time: the kernel owns it', (t) => {
  const { tree } = setUp()
  const { inode, mtimeNs } = tree.create(ROOT_INODE, 'a', ME)
  const handle = open(tree, inode, O_RDWR)
  void tree.write(handle, Buffer.from('x'), 0)
  tree.release(handle)
  t.is(tree.getattr(inode).mtimeNs, mtimeNs)
})

test('times that 64 bits of nanoseconds do not hold become the nearest that they do, as on other file systems', (t) => {
  const { tree } = setUp()
  const { inode } = tree.create(ROOT_INODE, 'f', ME)
  const year2500 = 16_725_225_600n * 1_000_000_000n
  const set = tree.setattr(inode, { atimeNs: year2500, mtimeNs: -year2500 })
  if (set instanceof Promise) throw new Error('a change of times had to wait')
  t.is(set.atimeNs, 2n ** 63n - 1n)
  t.is(set.mtimeNs, -(2n ** 63n))
})

test('O_TRUNC keeps its handle while it waits, and gives it back when it fails', async (t) => {
  const { tree, image } = setUp()
  const { inode } = tree.create(ROOT_INODE, 'a', ME)
  const writer = open(tree, inode, O_RDWR)
  void tree.write(writer, Buffer.from('x'), 0)
  image.asynchronous = true
  const opening = tree.open(inode, O_RDWR | O_TRUNC)
  t.true(opening instanceof Promise)
  tree.unlink(ROOT_INODE, 'a')
  tree.release(writer)
  const handle = await opening
  t.is(tree.getattr(inode).sizeBytes, 0)
  tree.release(handle)
  t.is(tree.openHandles, 0)
})

test('room is asked for while refusing is safe', (t) => {
  const { tree, image } = setUp()
  const { inode } = tree.create(ROOT_INODE, 'a', ME)
  image.freeBytes = 0
  for (const action of [
    () => tree.create(ROOT_INODE, 'b', ME),
    () => tree.mkdir(ROOT_INODE, 'b', ME),
    () => tree.open(inode, O_RDWR),
    () => tree.setattr(inode, { sizeBytes: 10 })
  ]) {
    t.is(t.throws(action, failure).errno, 'ENOSPC')
  }
  t.notThrows(() => open(tree, inode, O_RDONLY))
})

test('what only the kernel can know about holes is left to the kernel', (t) => {
  const { tree } = setUp()
  const { inode } = tree.create(ROOT_INODE, 'a', ME)
  const writer = open(tree, inode, O_RDWR)
  const reader = open(tree, inode, O_RDONLY)
  void tree.setattr(inode, { sizeBytes: 10_000 })
  t.is(tree.seek(reader, 100, 'data'), 100)
  t.is(tree.seek(reader, 100, 'hole'), 10_000)
  t.is(t.throws(() => tree.seek(reader, 10_000, 'data'), failure).errno, 'ENOSYS')
  tree.release(writer)
  t.is(t.throws(() => tree.seek(reader, 100, 'data'), failure).errno, 'ENXIO')
  t.is(tree.seek(reader, 100, 'hole'), 100)
  t.is(t.throws(() => tree.seek(reader, 10_000, 'data'), failure).errno, 'ENXIO')
})

test('types are checked before anything happens', (t) => {
  const { tree } = setUp()
  const { inode: file } = tree.create(ROOT_INODE, 'f', ME)
  const { inode: fifo } = tree.mknod(ROOT_INODE, 'p', { ...ME, mode: 0o010600, rdev: 7 })
  const { inode: link } = tree.symlink(ROOT_INODE, 'l', { ...ME, target: 'f' })
  t.is(tree.getattr(fifo).rdev, 0)
  const expectations: [string, () => unknown][] = [
    ['ENOTDIR', () => tree.lookup(file, 'x')],
    ['ENOTDIR', () => tree.opendir(file)],
    ['EISDIR', () => tree.open(ROOT_INODE, O_RDONLY)],
    ['ELOOP', () => tree.open(link, O_RDONLY)],
    ['EINVAL', () => tree.readlink(file)],
    ['EPERM', () => tree.mknod(ROOT_INODE, 'x', { ...ME, mode: 0o040700, rdev: 0 })],
    ['EPERM', () => tree.link(ROOT_INODE, ROOT_INODE, 'g')],
    ['EEXIST', () => tree.link(file, ROOT_INODE, 'p')],
    ['EEXIST', () => tree.link(file, ROOT_INODE, '.')],
    ['ENOTDIR', () => tree.link(file, file, 'g')],
    ['ESTALE', () => tree.link(toInodeId(99), ROOT_INODE, 'g')],
    ['EEXIST', () => tree.mkdir(ROOT_INODE, '..', ME)],
    ['EISDIR', () => tree.setattr(ROOT_INODE, { sizeBytes: 1 })],
    ['EINVAL', () => tree.setattr(link, { sizeBytes: 1 })],
    ['ENAMETOOLONG', () => tree.symlink(ROOT_INODE, 'x', { ...ME, target: 'x'.repeat(4096) })],
    ['EILSEQ', () => tree.symlink(ROOT_INODE, 'x', { ...ME, target: '\ufffd' })]
  ]
  for (const [errno, action] of expectations) t.is(t.throws(action, failure).errno, errno)
})

test('a listing goes on from an offset while entries come and go', (t) => {
  const { tree } = setUp()
  for (let index = 0; index < 600; index++) tree.create(ROOT_INODE, `f${index}`, ME)
  const handle = tree.opendir(ROOT_INODE)
  const first = tree.readdir(handle, 0)
  t.deepEqual([first[0]?.name, first[1]?.name], ['.', '..'])
  for (let index = 0; index < 400; index++) tree.unlink(ROOT_INODE, `f${index}`)
  tree.create(ROOT_INODE, 'late', ME)
  const names = first.map(({ name }) => name)
  for (let page = first; page.length > 0;) {
    page = tree.readdir(handle, page.at(-1)?.nextOffset ?? 0)
    names.push(...page.map(({ name }) => name))
  }
  t.is(new Set(names).size, names.length)
  for (let index = 400; index < 600; index++) t.true(names.includes(`f${index}`))
  t.false(names.includes('late'))
  t.true(tree.readdir(handle, 0).some(({ name }) => name === 'late'))
})

test('a short read before the end of the file is EIO, never zeros', async (t) => {
  const { tree, image } = setUp()
  const { inode } = tree.create(ROOT_INODE, 'a', ME)
  const handle = open(tree, inode, O_RDWR)
  void tree.write(handle, Buffer.alloc(100, 'x'), 0)
  const read = image.read.bind(image)
  image.read = (file, into, offset) => read(file, into.subarray(0, 10), offset)
  t.is(t.throws(() => tree.read(handle, Buffer.alloc(20), 0), failure).errno, 'EIO')
  t.is(tree.read(handle, Buffer.alloc(20), 90), 10)
  image.asynchronous = true
  t.is((await t.throwsAsync(async () => tree.read(handle, Buffer.alloc(20), 0), failure)).errno, 'EIO')
})

test('what is still open when the mount has ended is released, orphans are forgotten', (t) => {
  const { session, tree } = setUp({ writeback: false })
  const { inode } = tree.create(ROOT_INODE, 'a', ME)
  const { inode: orphan } = tree.create(ROOT_INODE, 'b', ME)
  void tree.write(open(tree, inode, O_RDWR), Buffer.from('x'), 0)
  open(tree, orphan, O_RDWR)
  tree.opendir(ROOT_INODE)
  tree.unlink(ROOT_INODE, 'b')
  const { mtimeNs } = tree.getattr(inode)
  tree.releaseAll()
  t.is(tree.openHandles, 0)
  t.is(session.namespace.get(inode)?.mtimeNs, mtimeNs)
  t.is(session.namespace.get(orphan), undefined)
})

test('an inode without a name stays until the kernel has forgotten it as often as it was told of it', (t) => {
  const { session, tree } = setUp()
  const { inode } = tree.create(ROOT_INODE, 'a', ME)
  for (let count = 0; count < 3; count++) tree.remember(inode)
  const handle = open(tree, inode, O_RDONLY)
  tree.unlink(ROOT_INODE, 'a')
  t.is(tree.getattr(inode).nlink, 0)
  tree.forget(inode, 1)
  tree.forget(inode, 2)
  t.truthy(session.namespace.get(inode), 'it is open')
  tree.release(handle)
  t.is(session.namespace.get(inode), undefined)
  t.notThrows(() => tree.forget(inode, 1), 'the kernel may be late')
})

test('forgetting changes nothing of an inode that has a name', (t) => {
  const { session, tree } = setUp()
  const { inode } = tree.create(ROOT_INODE, 'a', ME)
  tree.remember(inode)
  tree.forget(inode, 1)
  t.is(tree.lookup(ROOT_INODE, 'a').inode, inode)
  tree.remember(inode)
  tree.unlink(ROOT_INODE, 'a')
  t.truthy(session.namespace.get(inode))
  tree.forget(inode, 5)
  t.is(session.namespace.get(inode), undefined)
})

test('offsets in a directory of 100,000 entries stay where they are while names come and go', (t) => {
  const { tree } = setUp()
  for (let index = 0; index < 100_000; index++) tree.create(ROOT_INODE, `file ${String(index)}`, ME)
  const handle = tree.opendir(ROOT_INODE)
  const seen = new Set<string>()
  let offset = 0
  for (let turn = 0; ; turn++) {
    const entries = tree.readdir(handle, offset)
    if (entries.length === 0) break
    // the kernel asks again from the middle of what it was given
    const taken = entries.slice(0, Math.ceil(entries.length / 2))
    for (const { name } of taken) {
      t.false(seen.has(name), name)
      seen.add(name)
    }
    offset = taken.at(-1)?.nextOffset ?? 0
    if (turn % 50 === 0) {
      tree.create(ROOT_INODE, `new ${String(turn)}`, ME)
      tree.unlink(ROOT_INODE, `file ${String(turn)}`)
    }
  }
  let missing = 0
  for (let index = 0; index < 100_000; index++) if (!seen.has(`file ${String(index)}`)) missing++
  t.true(missing < 100, 'only such as were removed before they were listed')
  t.true(seen.has('.') && seen.has('..'))
})
