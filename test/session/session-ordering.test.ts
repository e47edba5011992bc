/** What orders of events may not do to a session: syncs of several files, snapshots under syncs, lost files, late failures. */
import fs from 'node:fs'
import path from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import test from 'ava'
import { IntegrityError, PosixError } from '../../src/base/errors.js'
import { removals } from '../../src/base/remove-later.js'
import { PAGE_BYTES, REGION_BYTES, ROOT_INODE } from '../../src/base/units.js'
import { type Disk, realDisk } from '../../src/session/disk.js'
import type { Inode } from '../../src/session/namespace-types.js'
import { Session } from '../../src/session/session.js'
import { temporaryDirectory } from '../support/make-vm.js'
import { base, crash, create, fileOf, identity, powerCut } from '../support/session-bed.js'

const page = (fill: number): Buffer => Buffer.alloc(PAGE_BYTES, fill)

function addFile(session: Session, name: string): Inode {
  const inode = session.namespace.allocateInode()
  const attributes = { mode: 0o644, uid: 0, gid: 0, atimeNs: 1n, mtimeNs: 1n, ctimeNs: 1n, rdev: 0, target: '' }
  session.record(
    { kind: 'inode', inode, type: 'file', ...attributes },
    { kind: 'link', parent: ROOT_INODE, name, inode }
  )
  const file = session.namespace.get(inode)
  if (file === undefined) throw new Error('no file')
  return file
}

function readPage(session: Session, file: Inode, offset: number): Buffer {
  const bytes = page(0)
  session.read(file, bytes, offset)
  return bytes
}

function firstByte(session: Session, inode: Inode): number | undefined {
  const file = session.namespace.get(inode.id)
  if (file === undefined || ((file.regions.get(0)?.valid[0] ?? 0) & 1) === 0) return undefined
  const bytes = Buffer.alloc(1)
  session.read(file, bytes, 0)
  return bytes[0]
}

test('a page that was written, overwritten and synced survives a power cut, although another file was synced in between', async (t) => {
  const { directory, session, file } = create()
  const other = addFile(session, 'other')
  session.write(other, page(1), 0)
  session.write(file, page(9), 0)
  session.write(other, page(2), 0)
  await session.sync(file)
  await session.sync(other)
  const again = Session.open(powerCut(directory), base)
  t.is(again.recovered?.droppedPages, 0)
  t.is(firstByte(again, other), 2)
})

test('the same when a snapshot, not another file, has made the journal durable', async (t) => {
  const { directory, session, file } = create({ journalBytesMax: 700 })
  session.write(file, page(1), 0)
  for (let index = 1; index < 12; index++) session.write(file, page(5), index * PAGE_BYTES)
  session.write(file, page(2), 0)
  await session.sync(file)
  t.is(firstByte(Session.open(powerCut(directory), base), file), 2)
})

test('syncs that are under way when a snapshot replaces their journal succeed', async (t) => {
  const disk: Disk = {
    ...realDisk,
    datasync: async (descriptor) => {
      await pause(5)
      await realDisk.datasync(descriptor)
    }
  }
  const { directory, session, file } = create({ disk, journalBytesMax: 300 })
  const syncs: Promise<void>[] = []
  for (let index = 0; index < 150; index++) {
    session.write(file, page(index), index * PAGE_BYTES)
    syncs.push(session.sync(file))
    await pause(1)
  }
  const failed = (await Promise.allSettled(syncs)).filter(({ status }) => status === 'rejected')
  t.deepEqual(failed, [])
  await session.close()
  const again = Session.open(directory, base)
  t.is(fileOf(again).sizeBytes, 150 * PAGE_BYTES)
  await again.close()
})

test('a valid page whose region file is gone is an error, not zeros', (t) => {
  const { directory, session, file } = create()
  session.write(file, page(7), 0)
  const copy = crash(directory)
  fs.rmSync(path.join(copy, 'regions', '2-0'))
  const again = Session.open(copy, base)
  const error = t.throws(() => firstByte(again, file), { instanceOf: PosixError })
  t.is(error.errno, 'EIO')
  t.false(fs.existsSync(path.join(copy, 'regions', '2-0')), 'reading makes no file')
})

test('a write beside a valid page whose region file is gone or too short is an error: no zeros take its place', (t) => {
  const { directory, session, file } = create()
  session.write(file, page(7), 4 * PAGE_BYTES)
  const region = path.join('regions', '2-0')
  const gone = crash(directory)
  fs.rmSync(path.join(gone, region))
  const short = crash(directory)
  fs.truncateSync(path.join(short, region), PAGE_BYTES)
  for (const copy of [gone, short]) {
    const again = Session.open(copy, base)
    const other = fileOf(again)
    const error = t.throws(() => again.write(other, page(8), 9 * PAGE_BYTES), { instanceOf: PosixError })
    t.is(error.errno, 'EIO')
    t.throws(() => again.read(other, page(0), 4 * PAGE_BYTES), { instanceOf: PosixError })
    again.write(other, page(8), REGION_BYTES)
    t.deepEqual(readPage(again, other, REGION_BYTES), page(8), 'other regions go on')
  }
})

test('after a power cut a region file that cannot be read stops the recovery; it drops no page', (t) => {
  const { directory, session, file } = create()
  session.write(file, page(7), 0)
  const copy = powerCut(directory)
  const region = path.join(copy, 'regions', '2-0')
  fs.renameSync(region, `${region}.away`)
  fs.mkdirSync(region) // every read fails with EISDIR
  t.throws(() => Session.open(copy, base), { message: /2-0/ })
  fs.rmdirSync(region)
  fs.renameSync(`${region}.away`, region)
  t.is(firstByte(Session.open(copy, base), file), 7)
})

test('a session without its first journal is damaged, not empty', async (t) => {
  const { directory, session, file } = create()
  session.write(file, page(1), 0)
  const copy = crash(directory)
  fs.rmSync(path.join(copy, 'journal-0'))
  t.throws(() => Session.open(copy, base), { instanceOf: IntegrityError, message: /journal-0/ })

  const long = create({ journalBytesMax: 300 })
  for (let index = 0; index < 20; index++) long.session.write(long.file, page(1), index * PAGE_BYTES)
  await long.session.close()
  const journals = fs.readdirSync(long.directory).filter((name) => name.startsWith('journal-'))
  t.true(fs.readdirSync(long.directory).some((name) => name.startsWith('snapshot-')))
  for (const name of journals) fs.rmSync(path.join(long.directory, name))
  t.throws(() => Session.open(long.directory, base), { instanceOf: IntegrityError, message: /journal-\d+/ })
})

test('a write past the end that finds the disk full leaves nothing there for a later growth to show', (t) => {
  let full = false
  const disk: Disk = {
    ...realDisk,
    write: (descriptor, bytes, offset, length, position) => {
      const isFrame = Buffer.from(bytes.buffer, bytes.byteOffset + offset, 4).toString('latin1') === 'ISRF'
      if (full && isFrame) throw Object.assign(new Error('no space'), { code: 'ENOSPC' })
      return realDisk.write(descriptor, bytes, offset, length, position)
    }
  }
  const { session, file } = create({ disk })
  session.write(file, Buffer.alloc(100, 1), 0)
  full = true
  t.throws(() => session.write(file, Buffer.from('stale'), 200), { instanceOf: PosixError })
  full = false
  session.record({ kind: 'size', inode: file.id, sizeBytes: 1000, baseLimitBytes: 0 })
  const bytes = Buffer.alloc(1000)
  session.read(file, bytes, 0)
  t.true(bytes.subarray(100).equals(Buffer.alloc(900)))
})

test('a removed file keeps its bytes after a recovery until its removal is durable', async (t) => {
  const { directory, session } = create()
  const other = addFile(session, 'other')
  session.write(other, page(1), 0)
  await session.sync()
  session.record({ kind: 'unlink', parent: ROOT_INODE, name: 'other' }, { kind: 'forget', inode: other.id })
  const copy = crash(directory)
  const again = Session.open(copy, base)
  t.true(fs.existsSync(again.regionPath(other.id, 0)))
  await again.sync()
  t.false(fs.existsSync(again.regionPath(other.id, 0)))
  await again.close()
})

test('a file that is removed while everything is being synced fails nobody', async (t) => {
  let release: () => void = () => undefined
  const gate = new Promise<void>((resolve) => (release = resolve))
  let calls = 0
  const disk: Disk = {
    ...realDisk,
    datasync: async (descriptor) => {
      if (calls++ === 0) await gate
      await realDisk.datasync(descriptor)
    }
  }
  const { session, file } = create({ disk, journaledPagesMax: 0 })
  const other = addFile(session, 'other')
  session.write(other, page(1), 0)
  session.write(other, page(1), REGION_BYTES)
  const syncing = session.sync(other)
  while (calls === 0) await pause(1)
  session.record({ kind: 'unlink', parent: ROOT_INODE, name: 'other' }, { kind: 'forget', inode: other.id })
  await session.sync(file)
  t.false(fs.existsSync(session.regionPath(other.id, 1)))
  release()
  await t.notThrowsAsync(syncing)
  await t.notThrowsAsync(session.sync())
  await session.close()
})

test('damage of the last changes before an orderly close is damage, not a torn tail', async (t) => {
  const { directory, session, file } = create()
  for (let index = 0; index < 3; index++) session.write(file, page(1), index * PAGE_BYTES)
  const position = fs.statSync(path.join(directory, 'journal-0')).size - 10 // in the last change
  await session.close()
  const journal = path.join(directory, 'journal-0')
  const bytes = fs.readFileSync(journal)
  bytes[position] = (bytes[position] ?? 0) ^ 1
  fs.writeFileSync(journal, bytes)
  t.throws(() => Session.open(directory, base), { instanceOf: IntegrityError })
})

test('after a recovery, a page that is overwritten and synced survives a power cut', async (t) => {
  const { directory, session, file } = create()
  session.write(file, page(1), 0)
  const copy = crash(directory)
  const second = Session.open(copy, base)
  second.write(fileOf(second), page(2), 0)
  await second.sync(fileOf(second))
  t.is(firstByte(Session.open(powerCut(copy), base), file), 2)
})

test('after a recovery, a sync makes durable what the killed process had not', async (t) => {
  const { directory, session, file } = create()
  session.write(file, page(1), 0)
  session.write(file, page(1), REGION_BYTES)
  const synced = new Set<string>()
  const disk: Disk = {
    ...realDisk,
    datasync: async (descriptor) => {
      synced.add(path.basename(fs.readlinkSync(`/proc/self/fd/${String(descriptor)}`)))
      await realDisk.datasync(descriptor)
    }
  }
  const again = Session.open(crash(directory), base, { disk })
  await again.sync(fileOf(again))
  t.deepEqual([...synced].sort(), ['2-0', '2-1', 'journal-0'])
})

test('a region that is emptied while its pages are being synced keeps them until that is durable', async (t) => {
  let release: () => void = () => undefined
  const gate = new Promise<void>((resolve) => (release = resolve))
  let isSyncing = false
  const disk: Disk = {
    ...realDisk,
    datasync: async (descriptor) => {
      if (isSyncing) await gate
      await realDisk.datasync(descriptor)
    }
  }
  const { directory, session, file } = create({ disk })
  session.write(file, page(1), 0)
  await session.sync()
  const punch = { kind: 'punch', inode: file.id, firstPage: 0, pageCount: 1 } as const
  session.record(punch) // the region file may go when this is durable
  session.write(file, page(2), 0)
  isSyncing = true
  const syncing = session.sync(file)
  const journal = fs.readFileSync(path.join(directory, 'journal-0')) // all that the sync makes durable
  session.record(punch)
  release()
  await syncing
  const copy = powerCut(directory)
  fs.writeFileSync(path.join(copy, 'journal-0'), journal)
  t.true(fs.existsSync(path.join(copy, 'regions', '2-0')))
  t.is(firstByte(Session.open(copy, base), file), 2)
  await session.sync()
  t.false(fs.existsSync(session.regionPath(file.id, 0)), 'the second hole is durable')
})

test('lost writes of a file that was removed are forgotten only when the removal is durable', async (t) => {
  const { directory, session, file } = create()
  session.lost.add(file.id, 'a broken disk')
  const before = fs.readFileSync(path.join(directory, 'journal-0'))
  session.record({ kind: 'unlink', parent: ROOT_INODE, name: 'disk' }, { kind: 'forget', inode: file.id })
  t.deepEqual(session.lost.all(), [])
  session.lost.add(ROOT_INODE, 'something else')
  const copy = powerCut(directory)
  fs.writeFileSync(path.join(copy, 'journal-0'), before) // the removal has not reached the disk
  t.is(Session.open(copy, base).lost.get(file.id), 'a broken disk')
  const killed = Session.open(crash(directory), base)
  t.deepEqual(killed.lost.all(), ['something else'], 'in the same boot the removal counts')
  await session.sync()
  t.false(fs.readFileSync(path.join(directory, 'lost.json'), 'utf8').includes('broken'))
})

test('a session of which nothing is left but a lost write is not an untouched one', (t) => {
  const { session, file } = create()
  t.true(session.isUntouched)
  session.lost.add(file.id, 'a broken disk')
  t.false(session.isUntouched)
})

test('a write to a file that is gone is refused: the journal stays one that can be replayed', async (t) => {
  const { directory, session } = create()
  const other = addFile(session, 'other')
  session.record({ kind: 'unlink', parent: ROOT_INODE, name: 'other' }, { kind: 'forget', inode: other.id })
  const error = t.throws(() => session.write(other, page(1), 0), { instanceOf: PosixError })
  t.is(error.errno, 'ESTALE')
  await session.close()
  await t.notThrowsAsync(Session.open(directory, base).close())
})

test('changes all over a large file keep a bounded number of descriptors open', async (t) => {
  const { directory, session, file } = create()
  for (let region = 0; region < 700; region++) session.write(file, page(1), region * REGION_BYTES)
  const regions = path.join(directory, 'regions')
  const open = fs.readdirSync('/proc/self/fd').filter((fd) => {
    try {
      return fs.readlinkSync(`/proc/self/fd/${fd}`).startsWith(regions)
    } catch {
      return false // the listing's own
    }
  })
  t.is(open.length, 512)
  t.deepEqual(readPage(session, file, 0), page(1))
  await session.close()
})

test('a session that ended in the middle of a snapshot leaves the next one in its directory alone', async (t) => {
  let release: () => void = () => undefined
  const gate = new Promise<void>((resolve) => (release = resolve))
  let running = 0
  const disk: Disk = {
    ...realDisk,
    datasync: async (descriptor) => {
      running++
      await gate
      await realDisk.datasync(descriptor).finally(() => running--)
    }
  }
  const { directory, session, file } = create({ disk, journalBytesMax: 300 })
  for (let index = 0; index < 20; index++) session.write(file, page(1), index * PAGE_BYTES)
  while (running === 0) await pause(1)
  session.destroy()
  const next = Session.create(directory, identity, base)
  await removals()
  const before = fs.readdirSync(directory).sort()
  release()
  while (running > 0) await pause(1)
  await pause(100)
  t.deepEqual(fs.readdirSync(directory).sort(), before)
  next.write(fileOf(next), page(2), 0)
  await next.close()
  t.deepEqual(readPage(Session.open(directory, base), fileOf(next), 0), page(2))
})

test('a session that ended in the last sync of a snapshot closes no file of others', async (t) => {
  let release: () => void = () => undefined
  const gate = new Promise<void>((resolve) => (release = resolve))
  const seen = { directory: '', isLast: false, isDone: false }
  const disk: Disk = {
    ...realDisk,
    datasync: async (descriptor) => {
      seen.isLast ||= fs.existsSync(path.join(seen.directory, 'snapshot-1'))
      if (seen.isLast) await gate
      await realDisk.datasync(descriptor).catch(() => undefined) // its number may be closed by now
      if (seen.isLast) seen.isDone = true
    }
  }
  const { directory, session, file } = create({ disk, journalBytesMax: 300 })
  seen.directory = directory
  for (let index = 0; index < 20; index++) session.write(file, page(1), index * PAGE_BYTES)
  while (!seen.isLast) await pause(1)
  session.destroy()
  const elsewhere = temporaryDirectory('others')
  const others = Array.from({ length: 40 }, (_, index) => fs.openSync(path.join(elsewhere, String(index)), 'w'))
  release()
  while (!seen.isDone) await pause(1)
  await pause(50)
  for (const descriptor of others) t.is(fs.writeSync(descriptor, 'x'), 1)
  for (const descriptor of others) fs.closeSync(descriptor)
})
