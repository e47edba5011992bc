/** What a session is after a crash at any byte, after a power cut, and on a disk that fails. */
import fs from 'node:fs'
import path from 'node:path'
import { crc32 } from 'node:zlib'
import test from 'ava'
import { IntegrityError, PosixError } from '../../src/base/errors.js'
import { removals } from '../../src/base/remove-later.js'
import { PAGE_BYTES, ROOT_INODE } from '../../src/base/units.js'
import { JOURNAL_HEADER_BYTES } from '../../src/session/frame.js'
import { type Disk, realDisk } from '../../src/session/disk.js'
import { Session } from '../../src/session/session.js'
import { base, crash, create, FILE, fileOf, identity, powerCut } from '../support/session-bed.js'
import { Random } from '../support/random.js'

function readAll(session: Session): Buffer {
  const file = fileOf(session)
  const bytes = Buffer.alloc(file.sizeBytes)
  const pages = file.regions.get(0)
  for (let page = 0; page * PAGE_BYTES < bytes.length; page++) {
    const valid = ((pages?.valid[page >>> 5] ?? 0) >>> (page & 31)) & 1
    if (valid === 1) session.read(file, bytes.subarray(page * PAGE_BYTES, (page + 1) * PAGE_BYTES), page * PAGE_BYTES)
  }
  return bytes
}

test('a session comes back after a crash with everything that was answered', (t) => {
  const { directory, session, file } = create()
  const random = new Random(1)
  const first = random.bytes(3 * PAGE_BYTES)
  session.write(file, first, 0)
  session.write(file, Buffer.from('tail'), 3 * PAGE_BYTES)
  session.record({ kind: 'punch', inode: FILE, firstPage: 1, pageCount: 1 })
  session.record({ kind: 'size', inode: FILE, sizeBytes: 2 * PAGE_BYTES + 100, baseLimitBytes: 0 })
  session.record({ kind: 'size', inode: FILE, sizeBytes: 5 * PAGE_BYTES, baseLimitBytes: 0 })
  const expected = Buffer.alloc(5 * PAGE_BYTES)
  first.copy(expected, 0, 0, 2 * PAGE_BYTES + 100)
  expected.fill(0, PAGE_BYTES, 2 * PAGE_BYTES)
  t.true(readAll(session).equals(expected), 'live')
  const again = Session.open(crash(directory), base)
  t.true(readAll(again).equals(expected), 'after the crash')
  t.is(again.namespace.dirtyPages, session.namespace.dirtyPages)
  t.true(again.namespace.changed)
  t.is(again.recovered?.droppedPages, 0)
})

test('a journal that is cut at any byte shows a state that was, and goes on', (t) => {
  const { directory, session, file } = create()
  const sizes = new Set([0])
  for (let page = 0; page < 6; page++) {
    session.write(file, Buffer.alloc(PAGE_BYTES, page + 1), page * PAGE_BYTES)
    sizes.add(file.sizeBytes)
  }
  const journal = fs.readFileSync(path.join(directory, 'journal-0'))
  for (let bytes = JOURNAL_HEADER_BYTES; bytes <= journal.length; bytes += 7) {
    const copy = crash(directory)
    fs.truncateSync(path.join(copy, 'journal-0'), bytes)
    const again = Session.open(copy, base)
    const size = fileOf(again).sizeBytes
    t.true(sizes.has(size), `cut at ${String(bytes)}: size ${String(size)}`)
    const content = readAll(again)
    for (let page = 0; page * PAGE_BYTES < size; page++) t.is(content[page * PAGE_BYTES], page + 1)
    again.write(fileOf(again), Buffer.alloc(PAGE_BYTES, 99), 0)
    t.is(readAll(Session.open(copy, base))[0], 99)
  }
})

test('a journal or snapshot of a version that comes later is refused by its number, not taken for a torn one', async (t) => {
  const { directory, session, file } = create({ journalBytesMax: 300 })
  const isThere = (name: string): boolean => fs.readdirSync(directory).some((each) => each.startsWith(name))
  for (let page = 0; !isThere('snapshot-'); page++) {
    session.write(file, Buffer.alloc(PAGE_BYTES, 7), page * PAGE_BYTES)
    await session.sync()
  }
  await session.close()
  for (const name of ['snapshot-', 'journal-']) {
    const copy = crash(directory)
    const newest = path.join(
      copy,
      fs
        .readdirSync(copy)
        .filter((each) => each.startsWith(name))
        .sort()
        .at(-1) ?? ''
    )
    const bytes = fs.readFileSync(newest)
    const end = name === 'journal-' ? JOURNAL_HEADER_BYTES : bytes.length
    bytes.writeUInt32LE(9, bytes.indexOf(name === 'journal-' ? 'ISRFSJNL' : 'ISRFSNAP') + 8)
    bytes.writeUInt32LE(crc32(bytes.subarray(0, end - 4)), end - 4)
    fs.writeFileSync(newest, bytes)
    const error = t.throws(() => Session.open(copy, base), { instanceOf: IntegrityError })
    t.regex(error.message, /has version 9, which this isrfs does not know/)
  }
})

test('damage of a change that was known to be durable is an error that names the file, and nothing is changed', async (t) => {
  const { directory, session, file } = create()
  for (let page = 0; page < 4; page++) session.write(file, Buffer.alloc(PAGE_BYTES, 7), page * PAGE_BYTES)
  await session.sync()
  session.write(file, Buffer.alloc(PAGE_BYTES, 8), 4 * PAGE_BYTES)
  const copy = crash(directory)
  const journal = path.join(copy, 'journal-0')
  const bytes = fs.readFileSync(journal)
  bytes[100] = (bytes[100] ?? 0) ^ 1
  fs.writeFileSync(journal, bytes)
  const error = t.throws(() => Session.open(copy, base), { instanceOf: IntegrityError })
  t.regex(error.message, /journal-0.*damaged/)
  t.true(fs.readFileSync(journal).equals(bytes))
  await session.close()
})

test('after a power cut synced pages are there, and others only when their bytes reached the disk', async (t) => {
  const { directory, session, file } = create()
  session.write(file, Buffer.alloc(2 * PAGE_BYTES, 1), 0)
  await session.sync(file)
  session.write(file, Buffer.alloc(PAGE_BYTES, 2), 2 * PAGE_BYTES)
  session.write(file, Buffer.alloc(PAGE_BYTES, 3), 3 * PAGE_BYTES)
  const copy = powerCut(directory)
  const region = fs.openSync(path.join(copy, 'regions', '2-0'), 'r+')
  fs.writeSync(region, Buffer.alloc(PAGE_BYTES), 0, PAGE_BYTES, 3 * PAGE_BYTES) // this page never reached the disk
  fs.closeSync(region)
  const again = Session.open(copy, base)
  t.is(again.recovered?.droppedPages, 1)
  const content = readAll(again)
  t.deepEqual([content[0], content[PAGE_BYTES], content[2 * PAGE_BYTES], content[3 * PAGE_BYTES]], [1, 1, 2, 0])
  await again.close()
  const third = Session.open(copy, base)
  t.is(readAll(third)[2 * PAGE_BYTES], 2, 'what was decided once stays decided')
  await third.close()
  await session.close()
})

test('a long journal is replaced by a snapshot, and leftovers of a crash in between do no harm', async (t) => {
  const { directory, session, file } = create({ journalBytesMax: 2000 })
  const random = new Random(2)
  const model = Buffer.alloc(40 * PAGE_BYTES)
  for (let count = 0; count < 200; count++) {
    const page = random.below(40)
    const bytes = random.bytes(PAGE_BYTES)
    if (page * PAGE_BYTES > file.sizeBytes)
      session.record({ kind: 'size', inode: FILE, sizeBytes: page * PAGE_BYTES, baseLimitBytes: 0 })
    session.write(file, bytes, page * PAGE_BYTES)
    bytes.copy(model, page * PAGE_BYTES)
    if (count % 9 === 0) {
      session.record({ kind: 'punch', inode: FILE, firstPage: page, pageCount: 1 })
      model.fill(0, page * PAGE_BYTES, (page + 1) * PAGE_BYTES)
    }
    if (count % 20 === 0) {
      await session.sync()
      t.true(
        readAll(Session.open(crash(directory), base)).equals(model.subarray(0, file.sizeBytes)),
        `after ${String(count)}`
      )
    }
  }
  await session.close()
  const names = fs.readdirSync(directory)
  t.true(
    names.some((name) => /^snapshot-\d+$/.test(name)),
    names.join()
  )
  t.false(names.includes('journal-0'))
  const again = Session.open(directory, base)
  t.true(readAll(again).equals(model.subarray(0, file.sizeBytes)))
  await again.close()
})

test('a damaged snapshot is an error', async (t) => {
  const { directory, session, file } = create({ journalBytesMax: 500 })
  for (let page = 0; page < 20; page++) session.write(file, Buffer.alloc(PAGE_BYTES, 1), page * PAGE_BYTES)
  await session.close()
  const snapshot = fs.readdirSync(directory).find((name) => name.startsWith('snapshot-')) ?? ''
  const bytes = fs.readFileSync(path.join(directory, snapshot))
  bytes[50] = (bytes[50] ?? 0) ^ 1
  fs.writeFileSync(path.join(directory, snapshot), bytes)
  t.throws(() => Session.open(directory, base), { instanceOf: IntegrityError, message: /snapshot/ })
})

test('a full disk changes nothing: not the namespace, not the journal', (t) => {
  let full = false
  const disk: Disk = {
    ...realDisk,
    write: (descriptor, bytes, offset, length, position) => {
      if (full) throw Object.assign(new Error('no space'), { code: 'ENOSPC' })
      return realDisk.write(descriptor, bytes, offset, length, position)
    }
  }
  const { directory, session, file } = create({ disk })
  session.write(file, Buffer.alloc(PAGE_BYTES, 1), 0)
  full = true
  const error = t.throws(
    () => {
      session.write(file, Buffer.alloc(PAGE_BYTES, 2), PAGE_BYTES)
    },
    { instanceOf: PosixError }
  )
  t.is(error.errno, 'ENOSPC')
  t.throws(
    () => {
      session.record({ kind: 'unlink', parent: ROOT_INODE, name: 'disk' })
    },
    { instanceOf: PosixError }
  )
  t.is(file.sizeBytes, PAGE_BYTES)
  t.is(file.parent, ROOT_INODE)
  full = false
  session.write(file, Buffer.alloc(PAGE_BYTES, 3), PAGE_BYTES)
  t.is(readAll(Session.open(crash(directory), base))[PAGE_BYTES], 3)
})

test('bytes that the disk refuses late make every later sync of that file fail', async (t) => {
  let failing = true
  const disk: Disk = {
    ...realDisk,
    datasync: (descriptor) => {
      if (!failing) return realDisk.datasync(descriptor)
      failing = false
      return Promise.reject(Object.assign(new Error('broken'), { code: 'EIO' }))
    }
  }
  const { session, file } = create({ disk })
  session.write(file, Buffer.alloc(PAGE_BYTES, 1), 0)
  for (let attempt = 0; attempt < 3; attempt++) {
    const error = await t.throwsAsync(session.sync(file), { instanceOf: PosixError })
    t.is(error.errno, 'EIO')
  }
})

test('names: creates, renames and removals come back; a removed file without a name is forgotten and its bytes go', async (t) => {
  const { directory, session } = create()
  const id = session.namespace.allocateInode()
  const attributes = { mode: 0o644, uid: 1, gid: 2, atimeNs: 4n, mtimeNs: -5n, ctimeNs: 6n, rdev: 0, target: '' }
  session.record(
    { kind: 'inode', inode: id, type: 'file', ...attributes },
    { kind: 'link', parent: ROOT_INODE, name: 'new', inode: id }
  )
  const created = session.namespace.get(id)
  if (created === undefined) throw new Error('not created')
  session.write(created, Buffer.from('bytes'), 0)
  session.record(
    { kind: 'unlink', parent: ROOT_INODE, name: 'new' },
    { kind: 'link', parent: ROOT_INODE, name: 'renamed', inode: id }
  )
  const again = Session.open(crash(directory), base)
  t.deepEqual([...(again.namespace.get(ROOT_INODE)?.children?.keys() ?? [])].sort(), ['disk', 'renamed'])
  t.is(again.namespace.get(id)?.mtimeNs, -5n)
  t.is(again.namespace.nextInode, id + 1)
  session.record({ kind: 'unlink', parent: ROOT_INODE, name: 'renamed' })
  t.is(Session.open(crash(directory), base).namespace.get(id), undefined)
  session.record({ kind: 'forget', inode: id })
  t.true(fs.existsSync(session.regionPath(id, 0)), 'until the record is durable')
  await session.sync()
  t.false(fs.existsSync(session.regionPath(id, 0)))
  await session.close()
})

test('uploads are kept, torn lines are not; a published session is known to be one; removing it keeps the lock', async (t) => {
  const { directory, session } = create()
  const place = {
    encoding: 'zstd' as const,
    chunk: 'cd'.repeat(32),
    offset: 5,
    storedBytes: 6,
    digest: Buffer.alloc(32, 7)
  }
  session.uploads.add([place])
  fs.appendFileSync(path.join(directory, 'uploads'), '{"digest": "torn')
  fs.writeFileSync(path.join(directory, 'lock'), '')
  const again = Session.open(crash(directory), base)
  t.deepEqual(again.uploads.get(place.digest.toString('hex')), place)
  t.is([...again.uploads.entries()].length, 1)
  t.is(Session.publishedAs(directory), undefined)
  session.markPublished({ generation: 2, digest: 'ef'.repeat(32) })
  t.deepEqual(Session.publishedAs(directory), { generation: 2, digest: 'ef'.repeat(32) })
  t.deepEqual(Session.inspect(directory), identity)
  session.destroy()
  await removals()
  t.deepEqual(fs.readdirSync(directory), ['lock'])
  t.is(Session.inspect(directory), undefined)
  fs.writeFileSync(path.join(directory, 'session.json'), '{')
  t.throws(() => Session.inspect(directory), { instanceOf: IntegrityError })
  await t.throwsAsync(session.sync(), { message: /closed/ })
})
