/** File images against a model: random reads, writes, truncates and holes, with a small cache, recovery in between. */
import fs from 'node:fs'
import path from 'node:path'
import test from 'ava'
import { PosixError } from '../../src/base/errors.js'
import { BLOCK_BYTES, PAGE_BYTES, toInodeId } from '../../src/base/units.js'
import { Cache } from '../../src/cache/cache.js'
import { SharePool } from '../../src/fetch/share-pool.js'
import { baseImageOf } from '../../src/image/base-image.js'
import { Images } from '../../src/image/images.js'
import type { Inode } from '../../src/session/namespace-types.js'
import { Session } from '../../src/session/session.js'
import { makeVm, temporaryDirectory } from '../support/make-vm.js'
import { Random } from '../support/random.js'

const KEEP_SIZE = 1
const PUNCH_HOLE = 2
const ZERO_RANGE = 16

interface Mounted {
  readonly images: Images
  readonly session: Session
  readonly cache: Cache
  readonly pool: SharePool
  readonly file: Inode
  readonly damage: string[]
  close(): Promise<void>
}

class Client {
  readonly directory = temporaryDirectory('image')
  readonly root = path.join(this.directory, 'vm')
  readonly generation

  constructor(files: ReadonlyMap<string, Buffer>) {
    this.generation = makeVm(this.root, files).generation
  }

  mount(): Mounted {
    const base = baseImageOf(this.generation.manifest)
    const sessionDirectory = path.join(this.directory, 'session')
    const session =
      Session.inspect(sessionDirectory) === undefined
        ? Session.create(sessionDirectory, this.#identity(), base)
        : Session.open(sessionDirectory, base)
    const damage: string[] = []
    const cache = Cache.open({ directory: path.join(this.directory, 'cache'), bytesMax: 1, onWarning: () => undefined })
    const pool = new SharePool(this.root, { threads: 2 })
    const images = new Images({
      session,
      cache,
      pool,
      onDamage: (message) => damage.push(message),
      onWarning: () => undefined
    })
    const file = session.namespace.get(toInodeId(2))
    if (file === undefined) throw new Error('no file')
    return {
      images,
      session,
      cache,
      pool,
      file,
      damage,
      close: async () => {
        await session.close()
        await cache.close()
        await pool.close()
      }
    }
  }

  #identity() {
    return {
      sessionId: 'fedcba9876543210',
      vmId: this.generation.manifest.vm,
      client: '0123456789abcdef',
      baseGeneration: 1,
      baseDigest: this.generation.digest,
      createdIso: new Date().toISOString(),
      leaseNumber: 1,
      discard: false
    }
  }
}

async function readAll({ images, file }: Mounted): Promise<Buffer> {
  const bytes = Buffer.alloc(file.sizeBytes)
  const step = 300_000
  for (let offset = 0; offset < bytes.length; offset += step) {
    const part = bytes.subarray(offset, offset + step)
    const count = await images.read(file, part, offset)
    if (count !== part.length) throw new Error(`short read at ${String(offset)}: ${String(count)}`)
  }
  return bytes
}

test('random writes, truncates, holes and reads equal a model, across recoveries', async (t) => {
  const random = new Random()
  t.log(`seed ${String(random.seed)}`)
  const base = Buffer.concat([random.bytes(700_000), Buffer.alloc(400_000), random.bytes(900_001)])
  const client = new Client(new Map([['disk', base]]))
  let model = Buffer.from(base)
  const resize = (size: number): void => {
    const next = Buffer.alloc(size)
    model.copy(next, 0, 0, size)
    model = next
  }
  let mounted = client.mount()
  for (let step = 0; step < 400; step++) {
    const { images, file } = mounted
    const offset = random.below(model.length + 5000)
    const length = 1 + Math.floor(2 ** (random.next() * 18))
    const end = offset + length
    switch (random.below(8)) {
      case 0:
      case 1:
      case 2: {
        const bytes = random.bytes(length)
        t.is(await images.write(file, bytes, offset), length)
        if (end > model.length) resize(end)
        bytes.copy(model, offset)
        break
      }
      case 3: {
        const aligned = offset - (offset % PAGE_BYTES)
        const bytes = random.bytes(PAGE_BYTES * (1 + random.below(40)))
        await images.write(file, bytes, aligned)
        if (aligned + bytes.length > model.length) resize(aligned + bytes.length)
        bytes.copy(model, aligned)
        break
      }
      case 4: {
        const into = Buffer.alloc(length, 0xee)
        const count = await images.read(file, into, offset)
        t.is(count, Math.max(0, Math.min(length, model.length - offset)))
        t.true(into.subarray(0, count).equals(model.subarray(offset, offset + count)), `read at ${String(offset)}`)
        break
      }
      case 5: {
        if (random.below(3) > 0) break
        const size = random.below(2_500_000)
        images.truncate(file, size)
        resize(size)
        break
      }
      case 6: {
        await images.fallocate(file, PUNCH_HOLE | KEEP_SIZE, offset, length)
        model.fill(0, Math.min(offset, model.length), Math.min(end, model.length))
        break
      }
      default: {
        const mode = random.pick([ZERO_RANGE, ZERO_RANGE | KEEP_SIZE, 0, KEEP_SIZE])
        await images.fallocate(file, mode, offset, length)
        if ((mode & KEEP_SIZE) === 0 && end > model.length) resize(end)
        if ((mode & ZERO_RANGE) !== 0) model.fill(0, Math.min(offset, model.length), Math.min(end, model.length))
      }
    }
    t.is(file.sizeBytes, model.length, `size after step ${String(step)}`)
    if (step % 80 === 79) {
      t.true((await readAll(mounted)).equals(model), `bytes after step ${String(step)}`)
      await mounted.close()
      mounted = client.mount()
      t.true((await readAll(mounted)).equals(model), `bytes after recovery at step ${String(step)}`)
    }
  }
  await mounted.close()
})

test('reads of absent blocks fetch them once; present ones are answered at once, zero blocks cost nothing', async (t) => {
  const random = new Random(3)
  const content = Buffer.concat([random.bytes(2 * BLOCK_BYTES), Buffer.alloc(2 * BLOCK_BYTES)])
  const mounted = new Client(new Map([['disk', content]])).mount()
  const { images, file, pool } = mounted
  const into = Buffer.alloc(10)
  t.true(images.read(file, into, 5) instanceof Promise)
  await images.read(file, into, 5)
  t.is(images.read(file, into, 5), 10)
  t.true(into.equals(content.subarray(5, 15)))
  t.is(pool.counters.fetchedBlocks, 1)
  t.is(await images.read(file, into, 3 * BLOCK_BYTES), 10)
  t.is(pool.counters.fetchedBlocks, 1)
  t.is(images.read(file, into, content.length), 0)
  t.is(images.read(file, into, content.length - 3), 3)
  await mounted.close()
})

test('a write of whole pages into absent blocks never touches the share; part of a page waits for one fetch', async (t) => {
  const random = new Random(4)
  const content = random.bytes(4 * BLOCK_BYTES)
  const mounted = new Client(new Map([['disk', content]])).mount()
  const { images, file, pool } = mounted
  t.is(images.write(file, random.bytes(2 * PAGE_BYTES), BLOCK_BYTES), 2 * PAGE_BYTES)
  t.is(pool.counters.fetchedBytes, 0)
  t.is(images.write(file, Buffer.from('inside a valid page'), BLOCK_BYTES + 5), 19)
  const partial = images.write(file, Buffer.from('part'), 3 * BLOCK_BYTES + 10)
  t.true(partial instanceof Promise)
  t.is(await partial, 4)
  t.is(pool.counters.fetchedBlocks, 1)
  t.is(images.write(file, Buffer.from('at the end'), file.sizeBytes), 10)
  await images.sync(file)
  await mounted.close()
})

test('holes: SEEK_DATA and SEEK_HOLE tell the truth when nothing is unflushed, and everything is data when it may be', async (t) => {
  const random = new Random(6)
  const content = Buffer.concat([random.bytes(BLOCK_BYTES), Buffer.alloc(3 * BLOCK_BYTES), random.bytes(BLOCK_BYTES)])
  const mounted = new Client(new Map([['disk', content]])).mount()
  const { images, file } = mounted
  t.is(await images.seek(file, 0, 'hole', false), BLOCK_BYTES)
  t.is(await images.seek(file, BLOCK_BYTES + 1, 'data', false), 4 * BLOCK_BYTES)
  t.is(await images.seek(file, 4 * BLOCK_BYTES, 'hole', false), content.length)
  t.throws(() => images.seek(file, content.length, 'data', false), { instanceOf: PosixError })
  t.is(images.seek(file, BLOCK_BYTES + 1, 'data', true), BLOCK_BYTES + 1)
  await images.write(file, random.bytes(PAGE_BYTES), 2 * BLOCK_BYTES)
  t.is(await images.seek(file, BLOCK_BYTES, 'data', false), 2 * BLOCK_BYTES)
  t.is(await images.seek(file, 2 * BLOCK_BYTES, 'hole', false), 2 * BLOCK_BYTES + PAGE_BYTES)
  await images.fallocate(file, PUNCH_HOLE | KEEP_SIZE, 0, BLOCK_BYTES)
  t.is(await images.seek(file, 0, 'data', false), 2 * BLOCK_BYTES)
  images.truncate(file, 3 * BLOCK_BYTES)
  images.truncate(file, 200 * BLOCK_BYTES)
  await t.throwsAsync(async () => images.seek(file, 3 * BLOCK_BYTES, 'data', false), { instanceOf: PosixError })
  t.true(images.allocatedBytes(file) < file.sizeBytes)
  t.throws(() => images.fallocate(file, 8, 0, PAGE_BYTES), { instanceOf: PosixError })
  t.throws(() => images.fallocate(file, PUNCH_HOLE, 0, PAGE_BYTES), { instanceOf: PosixError })
  await mounted.close()
})

test('a damaged block is EIO and is reported with the file; others are read', async (t) => {
  const random = new Random(7)
  const client = new Client(new Map([['disk', random.bytes(3 * BLOCK_BYTES)]]))
  const chunks = path.join(client.root, 'chunks')
  const [biggest] = fs
    .readdirSync(chunks, { recursive: true })
    .map((name) => path.join(chunks, String(name)))
    .filter((name) => fs.statSync(name).isFile())
    .sort((first, second) => fs.statSync(second).size - fs.statSync(first).size)
  const fd = fs.openSync(biggest ?? '', 'r+')
  fs.writeSync(fd, 'damage', BLOCK_BYTES + 5)
  fs.closeSync(fd)
  const mounted = client.mount()
  const { images, file, damage } = mounted
  t.is(await images.read(file, Buffer.alloc(10), 0), 10)
  const error = await t.throwsAsync(async () => images.read(file, Buffer.alloc(10), BLOCK_BYTES), {
    instanceOf: PosixError
  })
  t.is(error.errno, 'EIO')
  t.regex(damage[0] ?? '', /disk: .*digest/)
  t.is(await images.read(file, Buffer.alloc(10), 2 * BLOCK_BYTES), 10)
  t.is(images.counters.damagedBlocks, 1)
  await mounted.close()
})

test('a block that the cache loses while it comes is handed to its reader, and to a write into part of it', async (t) => {
  const content = new Random(8).bytes(3 * BLOCK_BYTES)
  const mounted = new Client(new Map([['disk', content]])).mount()
  const { images, file, cache, pool } = mounted
  const { endLanding } = cache
  let landings = 0
  cache.endLanding = (id, region, block, landed) => {
    landings++
    endLanding.call(cache, id, region, block, landed)
    cache.evict(1)
  }
  const into = Buffer.alloc(2 * BLOCK_BYTES)
  t.is(await images.read(file, into, 0), into.length)
  t.true(into.equals(content.subarray(0, into.length)))
  t.true(landings > 0)
  t.true(pool.counters.fetchedBlocks > 2, 'it was asked for twice')
  await images.write(file, Buffer.from('new'), 2 * BLOCK_BYTES + 100)
  content.write('new', 2 * BLOCK_BYTES + 100)
  t.true((await readAll(mounted)).equals(content))
  await mounted.close()
})

test('space is required early, and what is present is counted', async (t) => {
  const mounted = new Client(new Map([['disk', new Random(8).bytes(BLOCK_BYTES)]])).mount()
  const { images, file } = mounted
  t.notThrows(() => {
    images.requireSpace(4096)
  })
  t.throws(
    () => {
      images.requireSpace(2 ** 60)
    },
    { instanceOf: PosixError }
  )
  const { totalBytes, freeBytes } = images.space()
  t.true(freeBytes > 0 && freeBytes <= totalBytes)
  t.is(images.totalBytes(), BLOCK_BYTES)
  await images.read(file, Buffer.alloc(1), 0)
  t.is(images.presentBytes(), BLOCK_BYTES)
  t.deepEqual(images.waiting(), [])
  await mounted.close()
})
