/** When the journal is synced in the thread that serves FUSE, and that it is the same sync then. */
import path from 'node:path'
import fs from 'node:fs'
import test from 'ava'
import { type Disk, realDisk } from '../../src/session/disk.js'
import { QuickSync } from '../../src/session/quick-sync.js'
import { PAGE_BYTES } from '../../src/base/units.js'
import { Session } from '../../src/session/session.js'
import { base, create, fileOf, powerCut } from '../support/session-bed.js'

const AT_ONCE = { isDue: () => true, noteAtOnce: () => undefined, noteElsewhere: () => undefined }

function quick(): QuickSync {
  const sync = new QuickSync()
  for (let count = 0; count < 8; count++) sync.noteElsewhere(0.1, false)
  return sync
}

test('it is not done before syncs in a row were quick and nobody else waited', (t) => {
  const sync = new QuickSync()
  for (let count = 0; count < 7; count++) sync.noteElsewhere(0.1, false)
  t.false(sync.isDue(1))
  sync.noteElsewhere(0.1, true)
  for (let count = 0; count < 7; count++) sync.noteElsewhere(0.1, false)
  sync.noteElsewhere(20, false)
  t.false(sync.isDue(1))
  t.true(quick().isDue(1))
})

test('it ends with the first slow one, after a number of them, and is not for long journals', (t) => {
  const sync = quick()
  t.false(sync.isDue(17))
  sync.noteAtOnce(5)
  t.false(sync.isDue(1))
  for (const [milliseconds, hadCompany] of [
    [300, false],
    [0.1, true]
  ] as const) {
    const busy = quick()
    busy.noteElsewhere(milliseconds, hadCompany) // of a long journal
    t.false(busy.isDue(1))
  }
  const other = quick()
  let count = 0
  for (; other.isDue(1); count++) other.noteAtOnce(0.1)
  t.is(count, 128)
})

test('what is synced at once survives a power cut', async (t) => {
  const synced: string[] = []
  const disk: Disk = {
    ...realDisk,
    datasyncAtOnce: (descriptor) => {
      synced.push(path.basename(fs.readlinkSync(`/proc/self/fd/${String(descriptor)}`)))
    }
  }
  const { directory, session, file } = create({ disk, quickSync: AT_ONCE })
  session.write(file, Buffer.alloc(PAGE_BYTES, 7), 0)
  await session.sync(file)
  t.deepEqual(synced, ['journal-0'])
  const again = Session.open(powerCut(directory), base)
  const bytes = Buffer.alloc(PAGE_BYTES)
  again.read(fileOf(again), bytes, 0)
  t.deepEqual(bytes, Buffer.alloc(PAGE_BYTES, 7))
})

test('a disk that drops bytes then is as little forgotten as elsewhere', async (t) => {
  const disk: Disk = {
    ...realDisk,
    datasyncAtOnce: () => {
      throw Object.assign(new Error('EIO: i/o error, fdatasync'), { code: 'EIO' })
    }
  }
  const { session, file } = create({ disk, quickSync: AT_ONCE })
  session.write(file, Buffer.alloc(PAGE_BYTES, 7), 0)
  await t.throwsAsync(session.sync(file), { message: /EIO/ })
  await t.throwsAsync(session.sync(file), { message: /EIO/ })
  t.throws(() => session.write(file, Buffer.alloc(PAGE_BYTES), 0))
})
