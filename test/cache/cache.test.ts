import fs from 'node:fs'
import path from 'node:path'
import test from 'ava'
import { getBit } from '../../src/base/bits.js'
import { sha256 } from '../../src/base/digest.js'
import { BLOCK_BYTES, REGION_BYTES, toInodeId } from '../../src/base/units.js'
import { Cache, CACHE_BYTES_MIN } from '../../src/cache/cache.js'
import { landBlock } from '../../src/cache/landing.js'
import { CachedBytes } from '../../src/cache/find-cached.js'
import { waitFor } from '../support/bed.js'
import { temporaryDirectory } from '../support/make-vm.js'
import { Random } from '../support/random.js'

const inode = toInodeId(7)
const block = (fill: number): Buffer => Buffer.alloc(BLOCK_BYTES, fill)

function open(directory: string, bytesMax = CACHE_BYTES_MIN): { cache: Cache; warnings: string[] } {
  const warnings: string[] = []
  return { cache: Cache.open({ directory, bytesMax, onWarning: (message) => warnings.push(message) }), warnings }
}

/** What a commit does with blocks that it has published. */
function replace(cache: Cache, region: number, index: number, plain: Buffer): void {
  cache.forget(inode, region, index)
  const landing = cache.beginLanding(inode, region, index)
  const diskBytes = landing === undefined ? undefined : landBlock(landing, plain)
  cache.endLanding(inode, region, index, diskBytes === undefined ? undefined : { digest: sha256(plain), diskBytes })
}

test('a placed block is present and is read back', async (t) => {
  const { cache } = open(temporaryDirectory('cache'))
  const plain = new Random(1).bytes(BLOCK_BYTES)
  cache.place(inode, 3, 5, plain, sha256(plain))
  t.true(getBit(cache.region(inode, 3).present, 5))
  const into = Buffer.alloc(1000)
  t.true(cache.read(inode, 3, into, 5 * BLOCK_BYTES + 17))
  t.true(into.equals(plain.subarray(17, 1017)))
  await cache.close()
})

test('the next mount finds the block as a claim of its digest and of no other, and nothing is present before it is verified', async (t) => {
  const directory = temporaryDirectory('cache')
  const first = open(directory)
  first.cache.place(inode, 0, 1, block(1), sha256(block(1)))
  await first.cache.close()
  const second = open(directory)
  t.false(getBit(second.cache.region(inode, 0).present, 1))
  t.true(second.cache.claims(inode, 0, 1, sha256(block(1))))
  t.false(second.cache.claims(inode, 0, 1, sha256(block(2))))
  t.false(second.cache.claims(inode, 0, 2, sha256(block(1))))
  second.cache.confirm(inode, 0, 1, block(1), sha256(block(1)))
  t.true(getBit(second.cache.region(inode, 0).present, 1))
  await second.cache.close()
})

test('without a footer (a crash before the flush), or with a torn one, the region holds nothing', async (t) => {
  const directory = temporaryDirectory('cache')
  const first = open(directory)
  first.cache.place(inode, 0, 0, block(1), sha256(block(1)))
  const file = first.cache.pathOf(inode, 0)
  const beforeFlush = fs.readFileSync(file)
  await first.cache.close()
  const whole = fs.readFileSync(file)
  t.true(whole.length > REGION_BYTES)
  const damages = [
    beforeFlush,
    whole.subarray(0, whole.length - 1),
    Buffer.from(whole).fill(0, REGION_BYTES, REGION_BYTES + 4)
  ]
  for (const content of damages) {
    fs.writeFileSync(file, content)
    const { cache } = open(directory)
    t.false(cache.claims(inode, 0, 0, sha256(block(1))))
    await cache.close()
  }
})

test('two mounts of one VM have a slot each', async (t) => {
  const directory = temporaryDirectory('cache')
  const first = open(directory)
  const second = open(directory)
  t.not(first.cache.directory, second.cache.directory)
  await second.cache.close()
  await first.cache.close()
  const third = open(directory)
  t.is(third.cache.directory, first.cache.directory)
  await third.cache.close()
})

test('the least recently used regions are evicted by unlink when the limit is reached', async (t) => {
  const directory = temporaryDirectory('cache')
  const { cache } = open(directory)
  const perRegion = 64
  const regions = CACHE_BYTES_MIN / (perRegion * BLOCK_BYTES) + 3
  for (let region = 0; region < regions; region++) {
    for (let index = 0; index < perRegion; index++) cache.place(inode, region, index, block(1), sha256(block(1)))
  }
  t.true(cache.bytes <= CACHE_BYTES_MIN)
  t.true(cache.evictedBytes > 0)
  t.false(fs.existsSync(cache.pathOf(inode, 0)))
  t.false(getBit(cache.region(inode, 0).present, 0))
  t.true(getBit(cache.region(inode, regions - 1).present, 0))
  t.true(cache.evict(BLOCK_BYTES) >= BLOCK_BYTES)
  await cache.close()
})

test('what earlier mounts left counts for the limit', async (t) => {
  const directory = temporaryDirectory('cache')
  const first = open(directory)
  for (let region = 0; region < 4; region++) first.cache.place(inode, region, 0, block(1), sha256(block(1)))
  await first.cache.close()
  const second = open(directory)
  await waitFor(() => second.cache.bytes >= 4 * BLOCK_BYTES, 'the cache to be listed')
  t.true(second.cache.evict(1) > 0)
  await second.cache.close()
})

test('a region file that somebody removed or cut is forgotten, not served', async (t) => {
  const { cache } = open(temporaryDirectory('cache'))
  for (const damage of ['truncate', 'directory'] as const) {
    cache.place(inode, 1, 0, block(3), sha256(block(3)))
    if (damage === 'truncate') fs.truncateSync(cache.pathOf(inode, 1), 10)
    else fs.truncateSync(cache.pathOf(inode, 1), 0)
    t.false(cache.read(inode, 1, Buffer.alloc(100), 50))
    t.false(getBit(cache.region(inode, 1).present, 0))
  }
  await cache.close()
})

test('zero pages of a block take no space in a new region file, and replace what an older one has', async (t) => {
  const directory = temporaryDirectory('cache')
  const sparse = Buffer.alloc(BLOCK_BYTES)
  sparse.fill(5, 8192, 12_288)
  const first = open(directory)
  first.cache.place(inode, 1, 0, sparse, sha256(sparse))
  first.cache.place(inode, 1, 2, block(0), sha256(block(0)))
  const file = first.cache.pathOf(inode, 1)
  t.true(fs.statSync(file).blocks * 512 < BLOCK_BYTES)
  t.true(first.cache.bytes < BLOCK_BYTES)
  const into = block(9)
  t.true(first.cache.read(inode, 1, into, 0))
  t.true(into.equals(sparse))
  t.true(first.cache.read(inode, 1, into, 2 * BLOCK_BYTES))
  t.true(into.equals(block(0)))
  replace(first.cache, 1, 0, block(3))
  replace(first.cache, 1, 0, sparse)
  t.true(first.cache.read(inode, 1, into, 0))
  t.true(into.equals(sparse), 'written over what this mount has written')
  first.cache.place(inode, 1, 3, block(4), sha256(block(4)))
  await first.cache.close()
  const second = open(directory)
  replace(second.cache, 1, 3, sparse)
  t.true(second.cache.read(inode, 1, into, 3 * BLOCK_BYTES))
  t.true(into.equals(sparse), 'written over what an earlier mount has left')
  await second.cache.close()
})

test('a block that was evicted while a worker verified it is placed again', async (t) => {
  const { cache } = open(temporaryDirectory('cache'))
  cache.place(inode, 1, 0, block(3), sha256(block(3)))
  await cache.flush()
  cache.evict(REGION_BYTES)
  cache.confirm(inode, 1, 0, block(3), sha256(block(3)))
  const into = Buffer.alloc(10)
  t.true(cache.read(inode, 1, into, 0))
  t.true(into.equals(block(3).subarray(0, 10)))
  await cache.close()
})

test('a published block replaces the version that the region had', async (t) => {
  const { cache } = open(temporaryDirectory('cache'))
  cache.place(inode, 1, 0, block(3), sha256(block(3)))
  replace(cache, 1, 0, block(4))
  const into = Buffer.alloc(1)
  t.true(cache.read(inode, 1, into, 0))
  t.is(into[0], 4)
  t.true(cache.claims(inode, 1, 0, sha256(block(4))))
  await cache.close()
})

test('map objects are kept by digest, and a full or broken cache only warns', async (t) => {
  const { cache, warnings } = open(temporaryDirectory('cache'))
  await cache.keepMap('ab'.repeat(32), Buffer.from('map'))
  t.is(fs.readFileSync(cache.mapPath('ab'.repeat(32)), 'utf8'), 'map')
  fs.rmSync(path.join(cache.directory, 'maps'), { recursive: true })
  await cache.keepMap('cd'.repeat(32), Buffer.from('map'))
  t.is(warnings.length, 1)
  await cache.close()
})

test('a region file that was removed while nobody had it open comes back empty: no hole of it is served', async (t) => {
  const { cache } = open(temporaryDirectory('cache'))
  cache.place(inode, 1, 0, block(3), sha256(block(3)))
  // 256 descriptors are kept: these push the first one out
  for (let region = 2; region < 300; region++) cache.place(inode, region, 0, block(4), sha256(block(4)))
  fs.unlinkSync(cache.pathOf(inode, 1))
  cache.place(inode, 1, 5, block(5), sha256(block(5)))
  t.false(getBit(cache.region(inode, 1).present, 0), 'its bytes are gone')
  t.true(getBit(cache.region(inode, 1).present, 5))
  await cache.close()
})

test('a region file that was cut while it is open comes back empty, too', async (t) => {
  const { cache } = open(temporaryDirectory('cache'))
  cache.place(inode, 1, 3, block(3), sha256(block(3)))
  fs.truncateSync(cache.pathOf(inode, 1), BLOCK_BYTES)
  cache.place(inode, 1, 5, block(5), sha256(block(5)))
  t.false(getBit(cache.region(inode, 1).present, 3), 'a hole is there now')
  t.true(getBit(cache.region(inode, 1).present, 5))
  await cache.close()
})

test.serial(
  'a region that the disk could not keep is forgotten: its bytes may be gone from the page cache as well',
  async (t) => {
    const { cache, warnings } = open(temporaryDirectory('cache'))
    const lost: number[] = []
    cache.share((_, index) => lost.push(index))
    cache.place(inode, 1, 0, block(3), sha256(block(3)))
    cache.place(inode, 2, 0, block(4), sha256(block(4)))
    const real = fs.promises.open
    t.teardown(() => {
      fs.promises.open = real
    })
    fs.promises.open = async (file, ...how) => {
      const handle = await real(file, ...how)
      if (String(file) === cache.pathOf(inode, 1)) handle.datasync = () => Promise.reject(new Error('EIO'))
      return handle
    }
    await cache.flush()
    t.false(getBit(cache.region(inode, 1).present, 0))
    t.deepEqual(lost.slice(-1), [1], 'request threads are told')
    t.false(fs.existsSync(cache.pathOf(inode, 1)))
    t.true(getBit(cache.region(inode, 2).present, 0))
    t.is(warnings.length, 1)
    await cache.close()
  }
)

test('a region file that cannot be opened claims nothing, and nobody fails because of it', async (t) => {
  const { cache, warnings } = open(temporaryDirectory('cache'))
  fs.symlinkSync('/dev/null', cache.pathOf(inode, 1))
  t.false(cache.claims(inode, 1, 0, sha256(block(1))))
  t.notThrows(() => {
    cache.confirm(inode, 1, 0, block(1), sha256(block(1)))
  })
  t.false(getBit(cache.region(inode, 1).present, 0))
  t.true(warnings.length > 0)
  await cache.close()
})

test('a repair finds blocks and maps of the same VM only, in all of its slots', async (t) => {
  const directory = temporaryDirectory('cache')
  for (const [vm, fill] of [
    ['aa', 1],
    ['bb', 2]
  ] as const) {
    const [first, second] = [open(path.join(directory, vm)), open(path.join(directory, vm))]
    second.cache.place(inode, 0, 3, block(fill), sha256(block(fill)))
    await second.cache.keepMap(sha256(Buffer.of(fill)).toString('hex'), Buffer.of(fill))
    await first.cache.close()
    await second.cache.close()
  }
  const found = new CachedBytes(directory, 'aa')
  t.deepEqual(found.block(sha256(block(1)).toString('hex')), block(1))
  t.is(found.block(sha256(block(2)).toString('hex')), undefined)
  t.deepEqual(found.mapObject(sha256(Buffer.of(1)).toString('hex')), Buffer.of(1))
  t.is(found.mapObject(sha256(Buffer.of(2)).toString('hex')), undefined)
})

test('a slot that somebody else has made beforehand, or may write to, is refused at each level', (t) => {
  for (const level of ['', '0', '0/maps']) {
    for (const plant of [
      (place: string): void => fs.chmodSync(place, 0o777),
      (place: string): void => {
        fs.rmSync(place, { recursive: true })
        fs.symlinkSync(temporaryDirectory('elsewhere'), place)
      },
      (place: string): void => {
        fs.rmSync(place, { recursive: true })
        fs.writeFileSync(place, '')
      },
      ...(process.getuid?.() === 0 ? [(place: string): void => fs.chownSync(place, 4321, 4321)] : [])
    ]) {
      const directory = path.join(temporaryDirectory('cache'), 'vm')
      fs.mkdirSync(path.join(directory, '0', 'maps'), { recursive: true, mode: 0o700 })
      plant(path.join(directory, level))
      const error = t.throws(() => open(directory))
      t.regex(String((error as { hint?: string }).hint), /another directory with --cache-dir/)
    }
  }
})

test('a region file that others may write to claims nothing and is made anew', async (t) => {
  const directory = path.join(temporaryDirectory('cache'), 'vm')
  const first = open(directory).cache
  first.place(inode, 0, 3, block(1), sha256(block(1)))
  await first.close()
  const file = path.join(directory, '0', `${String(inode)}-0`)
  const planted = fs.readFileSync(file)
  for (const plant of [
    (): void => fs.chmodSync(file, 0o666),
    ...(process.getuid?.() === 0 ? [(): void => fs.chownSync(file, 4321, 4321)] : [])
  ]) {
    fs.rmSync(file, { force: true })
    fs.writeFileSync(file, planted, { mode: 0o600 })
    plant()
    const held = fs.openSync(file, 'r+') // as the other user
    const { cache } = open(directory)
    t.false(cache.claims(inode, 0, 3, sha256(block(1))))
    cache.place(inode, 0, 3, block(1), sha256(block(1)))
    fs.writeSync(held, Buffer.alloc(BLOCK_BYTES, 66), 0, BLOCK_BYTES, 3 * BLOCK_BYTES)
    const read = Buffer.alloc(BLOCK_BYTES)
    t.true(cache.read(inode, 0, read, 3 * BLOCK_BYTES))
    t.true(read.equals(block(1)))
    fs.closeSync(held)
    await cache.close()
  }
})
