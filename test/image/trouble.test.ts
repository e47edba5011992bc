/** File images when the client's disk or the share is in trouble. */
import fs from 'node:fs'
import test, { type ExecutionContext } from 'ava'
import { getBit } from '../../src/base/bits.js'
import { NotPublishedError, PosixError, ShareError } from '../../src/base/errors.js'
import { BLOCK_BYTES, PAGE_BYTES, ROOT_INODE } from '../../src/base/units.js'
import type { Cache } from '../../src/cache/cache.js'
import { SharePool } from '../../src/fetch/share-pool.js'
import { Images } from '../../src/image/images.js'
import { type Disk, realDisk } from '../../src/session/disk.js'
import { CommitBed } from '../commit/commit-bed.js'
import { waitFor } from '../support/bed.js'
import { Random } from '../support/random.js'

const CONTENT = new Random(1).bytes(2 * BLOCK_BYTES)

interface Opened {
  readonly bed: CommitBed
  readonly cache: Cache
  readonly pool: SharePool
  readonly images: Images
  readonly warnings: string[]
}

function open(
  t: ExecutionContext,
  writeback: boolean,
  shareTimeoutMs?: number,
  isShareSilent: () => boolean = () => false,
  disk: Disk = realDisk
): Opened {
  const bed = new CommitBed({ disk: CONTENT, other: CONTENT }, { disk })
  const cache = bed.openCache()
  const pool = new SharePool(bed.root, { threads: 1 })
  const warnings: string[] = []
  const images = new Images({
    session: bed.session,
    cache,
    pool,
    writeback,
    shareTimeoutMs,
    isShareSilent,
    onDamage: () => undefined,
    onWarning: (message) => warnings.push(message)
  })
  t.teardown(async () => {
    await pool.close()
    await bed.destroy()
  })
  return { bed, cache, pool, images, warnings }
}

/** The disk refuses exactly one write. */
function failOnce({ bed: { session } }: Opened): void {
  const write = session.write.bind(session)
  session.write = () => {
    session.write = write
    throw new PosixError('EIO', 'the disk is broken')
  }
}

test('a write that the kernel had accepted and that was lost makes every later fsync of its file fail', async (t) => {
  const opened = open(t, true)
  const { bed, images, warnings } = opened
  const file = bed.file('disk')
  failOnce(opened)
  t.throws(() => images.write(file, CONTENT.subarray(0, PAGE_BYTES), 0), { instanceOf: PosixError })
  t.is(images.write(file, CONTENT.subarray(0, PAGE_BYTES), 0), PAGE_BYTES, 'others are accepted')
  for (let attempt = 0; attempt < 2; attempt++) {
    const error = await t.throwsAsync(images.sync(file), { instanceOf: PosixError, message: /disk was lost/ })
    t.is(error.errno, 'EIO')
  }
  await t.notThrowsAsync(images.sync(bed.file('other')))
  t.is(warnings.length, 1)
  t.is(images.counters.failedWrites, 1)
})

test('when the journal, or names of region files, could not be made durable, no file is called synced any more', async (t) => {
  const opened = open(t, true)
  const { bed } = opened
  bed.session.lost.add(ROOT_INODE, 'the journal could not be made durable')
  for (let attempt = 0; attempt < 2; attempt++) {
    const error = await t.throwsAsync(opened.images.sync(bed.file('other')), { instanceOf: PosixError })
    t.is(error.errno, 'EIO')
  }
})

test('a sync for which the disk has no room gets it from the cache', async (t) => {
  let full = false
  const write: Disk['write'] = (descriptor, ...rest) => {
    if (full) throw Object.assign(new Error('no space left on device'), { code: 'ENOSPC' })
    return realDisk.write(descriptor, ...rest)
  }
  const { bed, cache, images } = open(t, true, undefined, undefined, { ...realDisk, write })
  const file = bed.file('disk')
  cache.place(file.id, 0, 1, CONTENT.subarray(0, BLOCK_BYTES), Buffer.alloc(32, 1))
  void images.write(file, CONTENT.subarray(0, PAGE_BYTES), 0)
  full = true
  const evict = cache.evict.bind(cache)
  cache.evict = (bytes) => {
    full = false
    return evict(bytes)
  }
  await t.notThrowsAsync(images.sync(file))
  t.true(cache.evictedBytes > 0)
})

test('without the writeback cache the program itself was told, and fsync speaks of the rest', async (t) => {
  const opened = open(t, false)
  const file = opened.bed.file('disk')
  failOnce(opened)
  t.throws(() => opened.images.write(file, CONTENT.subarray(0, PAGE_BYTES), 0), { instanceOf: PosixError })
  await t.notThrowsAsync(opened.images.sync(file))
})

test('a share that is in trouble for a moment costs a block map nothing but time', async (t) => {
  const { bed, images, pool } = open(t, true)
  const run = pool.run.bind(pool)
  let refused = 0
  pool.run = (name, input, options) => {
    if (name === 'object' && refused++ === 0) return Promise.reject(new ShareError('ESTALE', '/share', 'stale'))
    return run(name, input, options)
  }
  const into = Buffer.alloc(10)
  t.is(await images.read(bed.file('disk'), into, 7), 10)
  t.true(into.equals(CONTENT.subarray(7, 17)))
  t.true(refused > 1)
})

test.serial('space is that of the disk with the session, and the cache does not go for what it cannot give', (t) => {
  const { bed, cache, images } = open(t, true)
  cache.place(bed.file('disk').id, 0, 0, CONTENT.subarray(0, BLOCK_BYTES), Buffer.alloc(32, 1))
  t.throws(() => images.requireSpace(2 ** 60), { instanceOf: PosixError })
  t.is(cache.evictedBytes, 0)
  const real = fs.statfsSync
  t.teardown(() => {
    fs.statfsSync = real
  })
  const full = (file: fs.PathLike): fs.StatsFs => {
    const found = real(file)
    return String(file).startsWith(cache.directory) ? found : Object.assign(found, { bavail: 0 })
  }
  fs.statfsSync = full as typeof fs.statfsSync // this one form of it is called
  const error = t.throws(() => images.requireSpace(0), { instanceOf: PosixError })
  t.is(error.errno, 'ENOSPC')
  t.true(images.space().freeBytes <= cache.bytes)
})

test('a share that is gone is away, not damaged: reads wait, status names them, and go on when it is back', async (t) => {
  const { bed, images } = open(t, false)
  const file = bed.file('disk')
  const into = Buffer.alloc(PAGE_BYTES)
  fs.renameSync(bed.root, `${bed.root}.away`)
  const reading = Promise.resolve(images.read(file, into, BLOCK_BYTES))
  const written = images.write(file, CONTENT.subarray(0, PAGE_BYTES), 0)
  t.is(written, PAGE_BYTES, 'whole pages are accepted meanwhile')
  await new Promise((resolve) => setTimeout(resolve, 8000)) // longer than the quick tries take
  t.true(images.waiting().length > 0)
  fs.renameSync(`${bed.root}.away`, bed.root)
  t.is(await reading, PAGE_BYTES)
  t.true(into.equals(CONTENT.subarray(BLOCK_BYTES, BLOCK_BYTES + PAGE_BYTES)))
  t.is(images.counters.damagedBlocks, 0)
})

test('a write that nobody waits for any more changes nothing, and is not a lost one', async (t) => {
  const { bed, images, warnings } = open(t, true)
  const file = bed.file('disk')
  fs.renameSync(bed.root, `${bed.root}.away`)
  let isGivenUp = false
  const writing = Promise.resolve(images.write(file, Buffer.from('never'), 7, () => isGivenUp))
  t.regex(
    images
      .waiting()
      .map(({ what }) => what)
      .join(),
    /write to disk at byte 7/
  )
  isGivenUp = true
  fs.renameSync(`${bed.root}.away`, bed.root)
  const error = await t.throwsAsync(writing, { instanceOf: PosixError })
  t.is(error.errno, 'EINTR')
  const into = Buffer.alloc(PAGE_BYTES)
  t.is(await images.read(file, into, 0), PAGE_BYTES)
  t.true(into.equals(CONTENT.subarray(0, PAGE_BYTES)))
  t.is(images.counters.failedWrites, 0)
  t.deepEqual(bed.session.lost.all(), [])
  t.deepEqual(warnings, [])
})

test('status says of a page that the kernel may need for a write that its file waits for it', async (t) => {
  const { bed, images } = open(t, true)
  const file = bed.file('disk')
  fs.renameSync(bed.root, `${bed.root}.away`)
  const waiting = (): string =>
    images
      .waiting()
      .map(({ what }) => what)
      .join()
  const reading = Promise.resolve(images.read(file, Buffer.alloc(PAGE_BYTES), 0, undefined, true))
  await waitFor(() => /disk, block 0; .*all writes and syncs of the file wait/.test(waiting()), 'status to say so')
  fs.renameSync(`${bed.root}.away`, bed.root)
  t.is(await reading, PAGE_BYTES)
})

test('what a truncate has cut off does not come back with a fetch that was under way', async (t) => {
  const { bed, cache, images } = open(t, true)
  const file = bed.file('disk')
  await images.read(bed.file('disk'), Buffer.alloc(1), 0) // the map is here
  fs.renameSync(bed.root, `${bed.root}.away`)
  const into = Buffer.alloc(PAGE_BYTES, 1)
  const reading = Promise.resolve(images.read(file, into, BLOCK_BYTES))
  await waitFor(() => images.waiting().length > 0, 'the fetch to begin')
  images.truncate(file, 0)
  images.truncate(file, CONTENT.length)
  fs.renameSync(`${bed.root}.away`, bed.root)
  t.is(await reading, PAGE_BYTES)
  t.deepEqual(into, Buffer.alloc(PAGE_BYTES), 'zeros for who waited')
  t.true(getBit(cache.region(file.id, 0).present, 1), 'the block has come all the same')
  into.fill(1)
  t.is(images.read(file, into, BLOCK_BYTES), PAGE_BYTES)
  t.deepEqual(into, Buffer.alloc(PAGE_BYTES), 'and for who reads it now')
  t.is(images.write(file, Buffer.from('new'), BLOCK_BYTES + 5), 3, 'part of a page needs nothing of the share')
  t.is(images.read(file, into, BLOCK_BYTES), PAGE_BYTES)
  t.deepEqual(into, Buffer.concat([Buffer.alloc(5), Buffer.from('new'), Buffer.alloc(PAGE_BYTES - 8)]))
})

test('only a reader that may give up gets EIO after the share timeout', async (t) => {
  const { bed, images } = open(t, false, 600)
  const file = bed.file('disk')
  fs.renameSync(bed.root, `${bed.root}.away`)
  let asked = 0
  const mayGiveUp = (): Promise<boolean> => Promise.resolve(++asked > 1)
  const patient = Promise.resolve(images.read(file, Buffer.alloc(PAGE_BYTES), 0))
  const error = await t.throwsAsync(Promise.resolve(images.read(file, Buffer.alloc(PAGE_BYTES), 0, mayGiveUp)), {
    instanceOf: PosixError,
    message: /does not answer/
  })
  t.is(error.errno, 'EIO')
  t.is(asked, 2, 'it was mapped when it was asked first')
  fs.renameSync(`${bed.root}.away`, bed.root)
  t.is(await patient, PAGE_BYTES)
})

test('while the share is silent a read that mixes present and absent bytes fails, so that the kernel asks for each page', async (t) => {
  let silent = false
  const { bed, images } = open(t, false, undefined, () => silent)
  const file = bed.file('disk')
  const into = Buffer.alloc(2 * BLOCK_BYTES)
  await images.read(file, into.subarray(0, PAGE_BYTES), 0)
  fs.renameSync(bed.root, `${bed.root}.away`)
  silent = true
  const mayGiveUp = (): Promise<boolean> => Promise.resolve(true)
  await t.throwsAsync(Promise.resolve(images.read(file, into, 0, mayGiveUp)), { message: /does not answer/ })
  t.is(images.read(file, into.subarray(0, PAGE_BYTES), 0, mayGiveUp), PAGE_BYTES)
  const absent = Promise.resolve(images.read(file, into.subarray(0, PAGE_BYTES), BLOCK_BYTES, mayGiveUp))
  fs.renameSync(`${bed.root}.away`, bed.root)
  t.is(await absent, PAGE_BYTES, 'an absent page waits')
})

test('while the share is silent, changed pages of a block that is absent itself do not wait', async (t) => {
  const { bed, images } = open(t, false, undefined, () => true)
  const file = bed.file('disk')
  const written = Buffer.alloc(PAGE_BYTES, 7)
  t.is(images.write(file, written, 4 * PAGE_BYTES), PAGE_BYTES)
  images.truncate(file, 2 * BLOCK_BYTES - 2 * PAGE_BYTES)
  images.truncate(file, 2 * BLOCK_BYTES)
  fs.renameSync(bed.root, `${bed.root}.away`)
  const mayGiveUp = (): Promise<boolean> => Promise.resolve(true)
  const read = (offset: number, length: number): Promise<number> =>
    Promise.resolve(images.read(file, Buffer.alloc(length), offset, mayGiveUp))
  const silent = { instanceOf: PosixError, message: /does not answer/ }
  await t.throwsAsync(read(0, BLOCK_BYTES), silent, 'a changed page')
  await t.throwsAsync(read(2 * BLOCK_BYTES - 4 * PAGE_BYTES, 4 * PAGE_BYTES), silent, 'zeros')
  t.is(await read(4 * PAGE_BYTES, PAGE_BYTES), PAGE_BYTES)
  const absent = Promise.all([read(0, PAGE_BYTES), read(5 * PAGE_BYTES, 4 * PAGE_BYTES)])
  await new Promise((resolve) => setTimeout(resolve, 2000)) // longer than it takes to give up
  fs.renameSync(`${bed.root}.away`, bed.root)
  t.deepEqual(await absent, [PAGE_BYTES, 4 * PAGE_BYTES], 'what is absent as a whole waits')
})

test('a lost write is remembered by the next mount, and nothing is published until a person accepts the loss', async (t) => {
  const opened = open(t, true)
  const { bed, images } = opened
  const file = bed.file('disk')
  void images.write(file, CONTENT.subarray(BLOCK_BYTES, BLOCK_BYTES + PAGE_BYTES), 0)
  failOnce(opened)
  t.throws(() => images.write(file, CONTENT.subarray(0, PAGE_BYTES), PAGE_BYTES), { instanceOf: PosixError })
  await bed.reopen()
  t.regex(bed.session.lost.get(bed.file('disk').id) ?? '', /disk was lost/)
  const refused = await t.throwsAsync(bed.commit(), { instanceOf: NotPublishedError, message: /lost/ })
  t.regex(refused.hint ?? '', /--accept-loss/)
  t.is(Number(bed.newest().number), 1)
  const { published } = await bed.commit({ acceptLoss: true })
  t.is(Number(published?.number), 2)
})
