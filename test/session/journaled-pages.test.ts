/** Syncs of a few pages go into the journal. Which bytes count after a power cut, when region file and journal differ. */
import fs from 'node:fs'
import path from 'node:path'
import { crc32 } from 'node:zlib'
import test from 'ava'
import { IntegrityError } from '../../src/base/errors.js'
import { BLOCK_BYTES, PAGE_BYTES } from '../../src/base/units.js'
import { type Disk, realDisk } from '../../src/session/disk.js'
import { JOURNAL_HEADER_BYTES } from '../../src/session/frame.js'
import { Session } from '../../src/session/session.js'
import { base, crash, create, FILE, fileOf, powerCut } from '../support/session-bed.js'

const page = (fill: number, length = PAGE_BYTES): Buffer => Buffer.alloc(length, fill)

function read(session: Session, pageIndex = 0): Buffer {
  const bytes = Buffer.alloc(PAGE_BYTES)
  session.read(fileOf(session), bytes, pageIndex * PAGE_BYTES)
  return bytes
}

/** The region file as it is when nothing of it has reached the disk. */
function loseRegion(directory: string): string {
  fs.rmSync(path.join(directory, 'regions', `${String(FILE)}-0`))
  return directory
}

test('a sync of a few pages is one sync of the disk, and survives without the region file', async (t) => {
  let syncs = 0
  const disk: Disk = {
    ...realDisk,
    datasync: async (descriptor) => {
      syncs++
      await realDisk.datasync(descriptor)
    }
  }
  const { directory, session, file } = create({ disk })
  session.write(file, page(1), 0)
  session.write(file, page(2), 7 * PAGE_BYTES)
  await session.sync(file)
  session.write(file, page(3), 7 * PAGE_BYTES)
  await session.sync(file)
  await session.sync(file)
  t.is(syncs, 2)
  const again = Session.open(loseRegion(powerCut(directory)), base)
  t.deepEqual(read(again, 0), page(1))
  t.deepEqual(read(again, 7), page(3))
  t.is(again.recovered?.droppedPages, 0)
  t.is(again.recovered?.cutBytes, 0)
})

test('in the same boot what was written later counts, not the copy in the journal', async (t) => {
  const { directory, session, file } = create()
  session.write(file, page(1), 0)
  await session.sync(file)
  session.write(file, page(2), 0)
  t.deepEqual(read(Session.open(crash(directory), base)), page(2))
})

test('a copy in the journal does not count any more when the region file was synced later', async (t) => {
  const { directory, session, file } = create()
  session.write(file, page(1), 0)
  await session.sync(file)
  session.write(file, page(2), 0)
  await session.sync()
  t.deepEqual(read(Session.open(powerCut(directory), base)), page(2))
})

test('the same when the process was killed in between', async (t) => {
  const { directory, session, file } = create()
  session.write(file, page(1), 0)
  await session.sync(file)
  const killed = crash(directory)
  const second = Session.open(killed, base)
  second.write(fileOf(second), page(2), 0)
  await second.sync(fileOf(second)) // of the region file: nobody knows what of it the killed process had synced
  t.deepEqual(read(Session.open(powerCut(killed), base)), page(2))
})

test('bytes that were cut off do not come back when the file grows again', async (t) => {
  const { directory, session, file } = create()
  session.write(file, page(1), 0)
  session.write(file, page(1), PAGE_BYTES)
  await session.sync(file)
  session.record({ kind: 'size', inode: FILE, sizeBytes: 100, baseLimitBytes: 0 })
  session.record({ kind: 'size', inode: FILE, sizeBytes: 2 * PAGE_BYTES, baseLimitBytes: 0 })
  await session.sync(file)
  const again = Session.open(powerCut(directory), base)
  t.deepEqual(read(again), Buffer.concat([page(1, 100), page(0, PAGE_BYTES - 100)]))
  t.is((fileOf(again).regions.get(0)?.valid[0] ?? 0) & 2, 0)
})

test('a page that became invalid and valid again has its own bytes, not those of an older copy', async (t) => {
  const { directory, session, file } = create()
  session.write(file, page(1), 0)
  session.write(file, page(1), PAGE_BYTES)
  await session.sync(file)
  const place = {
    encoding: 'raw',
    chunk: 'c'.repeat(64),
    offset: 0,
    storedBytes: BLOCK_BYTES,
    digest: Buffer.alloc(32)
  } as const
  const blocks = new Map([[0, { place, limitBytes: BLOCK_BYTES }]])
  session.record({ kind: 'uploaded', inode: FILE, region: 0, blocks })
  session.write(file, page(2), 0)
  session.record({ kind: 'punch', inode: FILE, firstPage: 1, pageCount: 1 })
  session.write(file, page(3), PAGE_BYTES)
  await session.dropEmptyRegions() // the journal is durable, nothing vouches for the pages but their checksums
  const again = Session.open(powerCut(directory), base)
  t.deepEqual(read(again), page(2))
  t.deepEqual(read(again, 1), page(3))
})

test('a recovery that is cut short is done again', async (t) => {
  const { directory, session, file } = create()
  session.write(file, page(1), 0)
  await session.sync(file)
  const cut = loseRegion(powerCut(directory))
  fs.mkdirSync(path.join(cut, 'regions', `${String(FILE)}-0`)) // cannot be written
  const error = t.throws(() => Session.open(cut, base))
  t.regex(error.message, /cannot write the session/)
  fs.rmdirSync(path.join(cut, 'regions', `${String(FILE)}-0`))
  t.deepEqual(read(Session.open(cut, base)), page(1))
})

test('a full disk sends the bytes to the region file', async (t) => {
  let isFull = false
  const disk: Disk = {
    ...realDisk,
    write: (descriptor, bytes, offset, length, position) => {
      if (isFull && length > PAGE_BYTES) throw Object.assign(new Error('no space'), { code: 'ENOSPC' })
      return realDisk.write(descriptor, bytes, offset, length, position)
    }
  }
  const { directory, session, file } = create({ disk })
  session.write(file, page(1), 0)
  isFull = true
  await session.sync(file)
  t.deepEqual(read(Session.open(powerCut(directory), base)), page(1))
})

test('a journal of the first version is read, and a new one goes on', async (t) => {
  const { directory, session, file } = create({ journaledPagesMax: 0 })
  session.write(file, page(1), 0)
  await session.sync(file)
  const old = crash(directory)
  const journal = path.join(old, 'journal-0')
  const bytes = fs.readFileSync(journal)
  bytes.writeUInt32LE(1, 8)
  bytes.writeUInt32LE(crc32(bytes.subarray(0, JOURNAL_HEADER_BYTES - 4)), JOURNAL_HEADER_BYTES - 4)
  fs.writeFileSync(journal, bytes)
  const second = Session.open(old, base)
  await second.sync(fileOf(second))
  second.write(fileOf(second), page(2), PAGE_BYTES)
  await second.sync(fileOf(second))
  t.true(fs.existsSync(path.join(old, 'journal-1')))
  const third = Session.open(powerCut(old), base)
  t.deepEqual(read(third), page(1))
  t.deepEqual(read(third, 1), page(2))
})

test('a region file that has lost synced pages is damage: the copies of others do not make it anew', async (t) => {
  const { directory, session, file } = create({ journaledPagesMax: 1 })
  session.write(file, Buffer.alloc(3 * PAGE_BYTES, 1), 0)
  await session.sync(file) // in the region file
  session.write(file, Buffer.alloc(PAGE_BYTES, 2), 0)
  await session.sync(file) // in the journal
  for (const spoil of [
    (region: string) => fs.rmSync(region),
    (region: string) => fs.truncateSync(region, PAGE_BYTES)
  ]) {
    const copy = powerCut(directory)
    const region = path.join(copy, 'regions', '2-0')
    spoil(region)
    const before = fs.statSync(region, { throwIfNoEntry: false })?.size
    t.throws(() => Session.open(copy, base), { instanceOf: IntegrityError, message: /2-0/ })
    t.is(fs.statSync(region, { throwIfNoEntry: false })?.size, before)
  }
})
