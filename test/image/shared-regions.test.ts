/**
 * What is published for request threads against plain buffers: after each of many random changes, whatever a thread would
 * answer by itself is what the file has. test/base/region-table.test.ts has the steps in between.
 */
import fs from 'node:fs'
import test, { type ExecutionContext } from 'ava'
import { highWord, look, lowWord, readShared, writeShared } from '../../src/base/region-table.js'
import { BLOCK_BYTES, BLOCKS_PER_REGION, PAGE_BYTES, REGION_BYTES } from '../../src/base/units.js'
import type { Cache } from '../../src/cache/cache.js'
import { EarlyUpload } from '../../src/commit/early-upload.js'
import { SharePool } from '../../src/fetch/share-pool.js'
import { Images } from '../../src/image/images.js'
import { SharedRegions } from '../../src/image/shared-regions.js'
import { CommitBed } from '../commit/commit-bed.js'
import { Random } from '../support/random.js'

const PUNCH = 3 // keep size, punch hole

class Opened {
  readonly bed: CommitBed
  readonly cache: Cache
  readonly pool: SharePool
  readonly #t: ExecutionContext
  readonly #regionsMax: number
  images: Images
  shared: SharedRegions

  constructor(t: ExecutionContext, files: Readonly<Record<string, Buffer>>, regionsMax: number) {
    this.#t = t
    this.#regionsMax = regionsMax
    this.bed = new CommitBed(files)
    this.cache = this.bed.openCache()
    this.pool = new SharePool(this.bed.root, { threads: 2 })
    this.shared = this.#createShared()
    this.images = this.#createImages()
    t.teardown(async () => {
      this.shared.stop()
      await this.pool.close()
      await this.bed.destroy()
    })
  }

  async reopen(): Promise<void> {
    this.shared.stop()
    await this.bed.reopen()
    this.shared = this.#createShared()
    this.images = this.#createImages()
  }

  async upload(): Promise<void> {
    let left = 1
    const upload = new EarlyUpload({
      vmPath: this.bed.root,
      session: this.bed.session,
      cache: this.cache,
      maps: this.images.maps,
      isEnough: () => left-- <= 0,
      onWarning: (message) => this.#t.fail(message),
      onUploaded: (inode, blocks) => {
        for (const block of blocks)
          this.cache.forget(inode.id, Math.floor(block / BLOCKS_PER_REGION), block % BLOCKS_PER_REGION)
      }
    })
    await upload.makeSpace()
  }

  /** As a request thread does it. */
  threadRead(name: string, into: Buffer, offset: number): boolean {
    const { id } = this.bed.file(name)
    return readShared(this.shared.table, lowWord(id), highWord(id), into, 0, offset, into.length, readFully)
  }

  threadWrite(name: string, bytes: Buffer, offset: number): boolean {
    const { id } = this.bed.file(name)
    return writeShared(this.shared.table, lowWord(id), highWord(id), bytes, 0, offset, bytes.length, writeFully)
  }

  #createShared(): SharedRegions {
    return new SharedRegions({
      session: this.bed.session,
      cache: this.cache,
      mayWrite: true,
      regionsMax: this.#regionsMax
    })
  }

  #createImages(): Images {
    return new Images({
      session: this.bed.session,
      cache: this.cache,
      pool: this.pool,
      shared: this.shared,
      onDamage: (message) => this.#t.fail(message),
      onWarning: (message) => this.#t.fail(message)
    })
  }
}

function readFully(fd: number, into: Uint8Array, at: number, length: number, position: number): boolean {
  return fs.readSync(fd, into, at, length, position) === length
}

function writeFully(fd: number, bytes: Uint8Array, at: number, length: number, position: number): boolean {
  return fs.writeSync(fd, bytes, at, length, position) === length
}

/** Blocks of random bytes, zeros between them. */
function sparse(random: Random, sizeBytes: number): Buffer {
  const bytes = Buffer.alloc(sizeBytes)
  for (let block = 0; block * BLOCK_BYTES < sizeBytes; block++) {
    if (random.below(3) > 0)
      random.bytes(Math.min(BLOCK_BYTES, sizeBytes - block * BLOCK_BYTES)).copy(bytes, block * BLOCK_BYTES)
  }
  return bytes
}

test('whatever a thread may answer is what the file has: writes, cuts, holes, uploads, evictions, restarts', async (t) => {
  const random = new Random()
  t.log(`seed ${String(random.seed)}`)
  const names = ['disk', 'other'] as const
  const models: Record<string, Buffer> = {
    disk: sparse(random, 2 * REGION_BYTES + 5 * BLOCK_BYTES + 1234),
    other: sparse(random, REGION_BYTES + 77)
  }
  const opened = new Opened(t, models, look.ways) // fewer places than regions
  const { bed, cache } = opened
  let answered = 0
  let written = 0
  let uploads = 0
  for (let step = 0; step < 700; step++) {
    const name = random.pick(names)
    const file = bed.file(name)
    const model = models[name] ?? Buffer.alloc(0)
    // close to one another, so that things happen to the same blocks
    const near = random.pick([0, REGION_BYTES - 3 * BLOCK_BYTES, REGION_BYTES, model.length - 2 * BLOCK_BYTES])
    const offset = Math.max(0, near + random.below(6 * BLOCK_BYTES))
    const length = 1 + Math.floor(2 ** (random.next() * 18))
    const end = offset + length
    const resize = (size: number): void => {
      const next = Buffer.alloc(size)
      ;(models[name] ?? next).copy(next, 0, 0, size)
      models[name] = next
    }
    switch (random.below(16)) {
      case 0:
      case 1:
      case 2: {
        const bytes = random.bytes(length)
        await opened.images.write(file, bytes, offset)
        if (end > model.length) resize(end)
        bytes.copy(models[name] ?? model, offset)
        break
      }
      case 3:
        if (random.below(3) > 0) break
        opened.images.truncate(file, offset)
        resize(offset)
        break
      case 4:
        await opened.images.fallocate(file, PUNCH, offset, length)
        model.fill(0, Math.min(offset, model.length), Math.min(end, model.length))
        break
      case 5:
        cache.evict(1)
        break
      case 6:
        if (random.below(4) > 0) break
        await opened.upload()
        uploads++
        break
      case 7:
        if (random.below(8) === 0) await opened.reopen()
        break
      default: {
        const into = Buffer.alloc(length, 0xee)
        const count = await opened.images.read(file, into, offset)
        t.true(into.subarray(0, count).equals(model.subarray(offset, offset + count)), `read at ${String(offset)}`)
      }
    }
    for (let probe = 0; probe < 8; probe++) {
      const probed = random.pick(names)
      const at = Math.max(0, offset + random.below(4 * BLOCK_BYTES) - 2 * BLOCK_BYTES)
      if (random.below(2) === 0) {
        const bytes = random.bytes(1 + random.below(3 * PAGE_BYTES))
        if (!opened.threadWrite(probed, bytes, at)) continue
        bytes.copy(models[probed] ?? bytes, at)
        written++
        continue
      }
      const into = Buffer.alloc(1 + random.below(3 * PAGE_BYTES), 0xee)
      if (!opened.threadRead(probed, into, at)) continue
      answered++
      const content = models[probed]?.subarray(at, at + into.length)
      if (content === undefined || !content.equals(into)) t.fail(`step ${String(step)}: ${probed} at ${String(at)}`)
    }
  }
  t.log(`${String(answered)} reads and ${String(written)} writes by threads, ${String(uploads)} uploads`)
  t.true(written > 20)
  for (const name of names) {
    const content = Buffer.alloc(models[name]?.length ?? 0)
    t.is(bed.file(name).sizeBytes, content.length)
    await opened.images.read(bed.file(name), content, 0)
    t.true(models[name]?.equals(content))
  }
  t.true(answered > 100)
  t.true(uploads > 0)
})

test("the first read of a block is the owner's, also when it was fetched ahead", async (t) => {
  const random = new Random(5)
  const opened = new Opened(t, { disk: random.bytes(4 * BLOCK_BYTES) }, look.ways)
  const { images, bed, cache } = opened
  const file = bed.file('disk')
  const page = Buffer.alloc(PAGE_BYTES)
  await images.ahead.bring(file, [0, 1, 2, 3], 'profile')
  t.false(opened.threadRead('disk', page, 0))
  t.is(images.read(file, page, BLOCK_BYTES), PAGE_BYTES)
  t.true(opened.threadRead('disk', page, BLOCK_BYTES))
  t.false(opened.threadRead('disk', page, 2 * BLOCK_BYTES))
  t.is(images.ahead.counters.profile.usedBlocks, 1)
  await images.ahead.bring(file, [1], 'warm')
  t.is(images.read(file, page, 2 * BLOCK_BYTES), PAGE_BYTES)
  t.is(images.ahead.counters.profile.usedBlocks, 2)
  cache.evict(1)
  t.false(opened.threadRead('disk', page, BLOCK_BYTES))
})

test('a region that threads read is not the next one to be evicted', async (t) => {
  const random = new Random(6)
  const opened = new Opened(t, { disk: random.bytes(REGION_BYTES + BLOCK_BYTES) }, look.ways)
  const { images, bed, cache, shared } = opened
  const file = bed.file('disk')
  const page = Buffer.alloc(PAGE_BYTES)
  await images.read(file, page, 0)
  await images.read(file, page, REGION_BYTES)
  t.true(opened.threadRead('disk', page, 0))
  shared.noteUse()
  cache.evict(1)
  t.true(opened.threadRead('disk', page, 0))
  t.false(opened.threadRead('disk', page, REGION_BYTES))
})

test('an evicted region leaves no descriptor open, nor does the end', async (t) => {
  const opened = new Opened(t, { disk: new Random(7).bytes(BLOCK_BYTES) }, look.ways)
  const { images, bed, cache, shared } = opened
  const file = bed.file('disk')
  const page = Buffer.alloc(PAGE_BYTES)
  const openFiles = (): string[] =>
    fs
      .readdirSync('/proc/self/fd')
      .flatMap((fd) => {
        try {
          return fs.readlinkSync(`/proc/self/fd/${fd}`)
        } catch {
          return []
        }
      })
      .filter((name) => /\/\d+-0( \(deleted\))?$/.test(name) && name.includes(bed.root.replace(/\/[^/]*$/, '')))
  await images.read(file, page, 0)
  await images.write(file, page, 0)
  await images.read(file, page, 0)
  await images.read(file, page, PAGE_BYTES)
  t.is(openFiles().length, 4, openFiles().join())
  cache.evict(1)
  t.is(openFiles().length, 1, openFiles().join())
  await images.read(file, page, 0)
  t.is(openFiles().length, 2)
  shared.stop()
  t.is(openFiles().length, 1)
})

test('a thread leaves alone what it cannot answer as a whole', async (t) => {
  const content = new Random(8).bytes(2 * BLOCK_BYTES + 100)
  const opened = new Opened(t, { disk: content }, look.ways)
  const { images, bed } = opened
  const file = bed.file('disk')
  await images.read(file, Buffer.alloc(content.length), 0)
  const read = (offset: number, length: number): boolean => opened.threadRead('disk', Buffer.alloc(length), offset)
  t.true(read(0, 2 * BLOCK_BYTES))
  t.false(read(0, 0))
  t.false(read(2 * BLOCK_BYTES, 100), 'the page at the end')
  t.false(read(BLOCK_BYTES, 2 * BLOCK_BYTES), 'across the end')
  t.false(read(4 * BLOCK_BYTES, PAGE_BYTES), 'past the end')
  t.false(read(REGION_BYTES - PAGE_BYTES, 2 * PAGE_BYTES), 'two regions')
  fs.truncateSync(opened.cache.pathOf(file.id, 0), BLOCK_BYTES)
  t.false(read(BLOCK_BYTES, PAGE_BYTES), 'somebody has cut the file')
  t.true(read(0, PAGE_BYTES))
})

test('threads write only to pages that the session has, after a write of its own, until somebody needs to know', async (t) => {
  const random = new Random(9)
  const opened = new Opened(t, { disk: random.bytes(REGION_BYTES) }, look.ways)
  const { bed, images } = opened
  const { session } = bed
  const file = bed.file('disk')
  const page = random.bytes(PAGE_BYTES)
  const many = random.bytes(20 * PAGE_BYTES)
  await images.read(file, Buffer.alloc(BLOCK_BYTES), 0)
  t.false(opened.threadWrite('disk', page, 0), 'a page of the base')
  await images.write(file, page, 0)
  t.false(opened.threadWrite('disk', page, 0), 'a sync of one page would travel in the journal')
  await images.write(file, many, 0)
  t.true(opened.threadWrite('disk', page, PAGE_BYTES))
  t.true(opened.threadWrite('disk', page.subarray(0, 100), PAGE_BYTES + 7))
  t.false(opened.threadWrite('disk', many, PAGE_BYTES), 'one of the pages is of the base')
  t.is(session.pendingBytes() % PAGE_BYTES, 0)

  const tick = session.changeTick(file.id, 0)
  t.false(opened.threadWrite('disk', page, 0), 'somebody wants to know whether it changes')
  t.is(session.changeTick(file.id, 0), tick)
  await images.write(file, page, 2 * PAGE_BYTES)
  t.true(opened.threadWrite('disk', page, 0))
  t.true(session.changeTick(file.id, 0) > tick)

  await images.write(file, page, 2 * PAGE_BYTES)
  const epoch = session.beginEpoch()
  t.false(opened.threadWrite('disk', page, 0))
  await images.write(file, page, 2 * BLOCK_BYTES)
  t.true(opened.threadWrite('disk', page, 0))
  const next = session.beginEpoch()
  t.true(session.changeEpoch(file.id, 0, 0) >= epoch && session.changeEpoch(file.id, 0, 0) < next)

  await images.write(file, many, 0)
  t.true(opened.threadWrite('disk', page, 0))
  await images.sync(file)
  t.false(opened.threadWrite('disk', page, 0), 'the next sync would not know of it')
  await images.write(file, page, 0)
  t.false(opened.threadWrite('disk', page, 0), 'again a sync of one page')
})

test('a region that a thread writes while it is sent to the share keeps its bytes', async (t) => {
  const random = new Random(10)
  const content = random.bytes(REGION_BYTES)
  const opened = new Opened(t, { disk: content }, look.ways)
  const { bed, images } = opened
  const file = bed.file('disk')
  await images.write(file, random.bytes(BLOCK_BYTES), 0)
  const page = random.bytes(PAGE_BYTES)
  const other = random.bytes(PAGE_BYTES)
  const uploading = opened.upload()
  t.false(opened.threadWrite('disk', page, 0))
  await images.write(file, other, PAGE_BYTES)
  t.true(opened.threadWrite('disk', page, 0))
  await uploading
  t.is(file.uploaded.size, 0)
  const read = Buffer.alloc(2 * PAGE_BYTES)
  await images.read(file, read, 0)
  t.true(read.equals(Buffer.concat([page, other])))
})
