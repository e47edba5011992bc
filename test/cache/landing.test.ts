/** Blocks that threads write into region files by themselves. The steps of owner and thread are taken here one after another. */
import fs from 'node:fs'
import path from 'node:path'
import test from 'ava'
import { getBit } from '../../src/base/bits.js'
import { sha256 } from '../../src/base/digest.js'
import { BLOCK_BYTES, PAGE_BYTES, toInodeId } from '../../src/base/units.js'
import { Cache, CACHE_BYTES_MIN } from '../../src/cache/cache.js'
import { landBlock, type Landing } from '../../src/cache/landing.js'
import { temporaryDirectory } from '../support/make-vm.js'
import { Random } from '../support/random.js'

const inode = toInodeId(7)
const block = (fill: number): Buffer => Buffer.alloc(BLOCK_BYTES, fill)
/** of the random test */
const BLOCKS = 4
const sparse = Buffer.concat([Buffer.alloc(PAGE_BYTES, 9), Buffer.alloc(BLOCK_BYTES - PAGE_BYTES)])

function open(directory = temporaryDirectory('landing')): { cache: Cache; warnings: string[] } {
  const warnings: string[] = []
  const bytesMax = CACHE_BYTES_MIN
  return { cache: Cache.open({ directory, bytesMax, onWarning: (message) => warnings.push(message) }), warnings }
}

function begin(cache: Cache, region = 1, index = 3): Landing {
  const landing = cache.beginLanding(inode, region, index)
  if (landing === undefined) throw new Error('the block may not land')
  return landing
}

const isPresent = (cache: Cache, region = 1, index = 3): boolean => getBit(cache.region(inode, region).present, index)

function bytesOf(cache: Cache, region = 1, index = 3): Buffer {
  const into = Buffer.alloc(BLOCK_BYTES)
  if (!cache.read(inode, region, into, index * BLOCK_BYTES)) throw new Error('the region was lost')
  return into
}

test('a block that has landed is present, is counted, and is claimed by the next mount', async (t) => {
  const directory = temporaryDirectory('landing')
  const { cache } = open(directory)
  const landing = begin(cache)
  t.false(isPresent(cache), 'not before it has ended')
  t.is(cache.beginLanding(inode, 1, 3), undefined, 'one at a time')
  const before = cache.bytes
  const diskBytes = landBlock(landing, sparse) ?? -1
  t.is(diskBytes, PAGE_BYTES, 'its zero pages are holes')
  cache.endLanding(inode, 1, 3, { digest: sha256(sparse), diskBytes })
  t.true(isPresent(cache))
  t.true(bytesOf(cache).equals(sparse))
  t.is(cache.bytes, before + PAGE_BYTES)
  t.is(cache.beginLanding(inode, 1, 3), undefined, 'it is here')
  await cache.close()
  const next = open(directory).cache
  t.true(next.claims(inode, 1, 3, sha256(sparse)))
  await next.close()
})

test('a block that landed unverified is a claim of its digest, and not present', async (t) => {
  const { cache } = open()
  const landing = begin(cache)
  const before = cache.bytes
  const diskBytes = landBlock(landing, block(4)) ?? -1
  cache.endLanding(inode, 1, 3, { digest: sha256(block(4)), diskBytes, isClaim: true })
  t.false(isPresent(cache))
  t.true(cache.claims(inode, 1, 3, sha256(block(4))))
  t.is(cache.bytes, before + BLOCK_BYTES, 'it counts')
  await cache.close()
})

test('a landing that its thread gave up leaves the block to be placed, whole', async (t) => {
  const { cache } = open()
  const landing = begin(cache)
  const fd = fs.openSync(landing.file, 'r+')
  fs.writeSync(fd, block(7), 0, BLOCK_BYTES, landing.offset) // torn, for all that the owner knows
  fs.closeSync(fd)
  cache.endLanding(inode, 1, 3, undefined)
  t.false(isPresent(cache))
  cache.place(inode, 1, 3, sparse, sha256(sparse))
  t.true(bytesOf(cache).equals(sparse), 'no page of what was written before is left')
  await cache.close()
})

for (const [what, interfere] of [
  ['placed', (cache: Cache) => cache.place(inode, 1, 3, block(5), sha256(block(5)))],
  ['confirmed', (cache: Cache) => cache.confirm(inode, 1, 3, block(5), sha256(block(5)))],
  ['forgotten', (cache: Cache) => cache.forget(inode, 1, 3)]
] as const) {
  test(`a block that was ${what} while another version of it lands is absent afterwards: nobody knows who wrote last`, async (t) => {
    const { cache } = open()
    const landing = begin(cache)
    interfere(cache)
    t.false(isPresent(cache))
    const diskBytes = landBlock(landing, block(4)) ?? -1
    t.is(diskBytes, BLOCK_BYTES)
    cache.endLanding(inode, 1, 3, { digest: sha256(block(4)), diskBytes })
    t.false(isPresent(cache))
    cache.place(inode, 1, 3, sparse, sha256(sparse))
    t.true(bytesOf(cache).equals(sparse), 'and it can be placed again')
    await cache.close()
  })
}

for (const [when, isWrittenBefore] of [
  ['after', true],
  ['before', false]
] as const) {
  test(`a block that landed in a region which was evicted ${when} its thread wrote does not count`, async (t) => {
    const { cache } = open()
    const landing = begin(cache)
    if (isWrittenBefore) t.is(landBlock(landing, block(4)), BLOCK_BYTES)
    cache.evict(1)
    t.is(cache.knownRegion(inode, 1), undefined)
    cache.place(inode, 1, 0, block(1), sha256(block(1))) // a new file of the same name
    if (!isWrittenBefore) landBlock(landing, block(4)) // into it, when its inode number is the same
    const fd = fs.openSync(landing.file, 'r+')
    fs.writeSync(fd, block(4), 0, BLOCK_BYTES, landing.offset) // at the worst
    fs.closeSync(fd)
    cache.endLanding(inode, 1, 3, { digest: sha256(block(4)), diskBytes: BLOCK_BYTES })
    t.false(isPresent(cache))
    t.true(isPresent(cache, 1, 0))
    cache.place(inode, 1, 3, sparse, sha256(sparse))
    t.true(bytesOf(cache).equals(sparse), 'what the late thread has written is no hole')
    await cache.close()
  })
}

test('no thread writes where the file has gone, was cut, is not this user’s alone, or is a link', async (t) => {
  const { cache } = open()
  const landing = begin(cache)
  const there = fs.readFileSync(landing.file)
  const elsewhere = path.join(path.dirname(landing.file), 'elsewhere')
  const harms = [
    () => fs.truncateSync(landing.file, BLOCK_BYTES),
    () => fs.chmodSync(landing.file, 0o666),
    () => fs.chmodSync(landing.file, 0o600), // none: another file that looks the same
    () => {
      fs.renameSync(landing.file, elsewhere)
      fs.symlinkSync(elsewhere, landing.file)
    },
    () => fs.rmSync(landing.file)
  ]
  for (const harm of harms) {
    fs.rmSync(landing.file, { force: true })
    fs.writeFileSync(landing.file, there, { mode: 0o600 })
    harm()
    const ino = fs.statSync(landing.file, { throwIfNoEntry: false })?.ino ?? 0
    t.is(landBlock(landing, block(4)), undefined)
    if (harms.indexOf(harm) !== 2) t.is(landBlock({ ...landing, ino }, block(4)), undefined)
  }
  t.true(fs.readFileSync(elsewhere).equals(there))
  cache.endLanding(inode, 1, 3, undefined)
  await cache.close()
})

test('a block of which nobody knows what the file has is claimed by nothing: who has read it before confirms nothing', async (t) => {
  const directory = temporaryDirectory('landing')
  const first = open(directory).cache
  first.place(inode, 1, 3, block(5), sha256(block(5)))
  await first.close()
  const { cache } = open(directory)
  t.true(cache.claims(inode, 1, 3, sha256(block(5))))
  const landing = begin(cache)
  t.is(landBlock(landing, block(4)), BLOCK_BYTES)
  cache.forget(inode, 1, 3)
  cache.endLanding(inode, 1, 3, { digest: sha256(block(4)), diskBytes: BLOCK_BYTES })
  t.false(cache.claims(inode, 1, 3, sha256(block(5))))
  cache.confirm(inode, 1, 3, block(5), sha256(block(5))) // by somebody who had read it before the thread wrote
  t.true(bytesOf(cache).equals(block(5)), 'it was placed')
  await cache.close()
})

test('a file that somebody has cut behind the thread that wrote comes back empty', async (t) => {
  const { cache } = open()
  cache.place(inode, 1, 0, block(1), sha256(block(1)))
  const landing = begin(cache)
  t.is(landBlock(landing, block(4)), BLOCK_BYTES)
  fs.truncateSync(landing.file, 2 * BLOCK_BYTES)
  cache.place(inode, 1, 7, block(7), sha256(block(7)))
  cache.endLanding(inode, 1, 3, { digest: sha256(block(4)), diskBytes: BLOCK_BYTES })
  t.false(isPresent(cache), 'a hole is there now')
  t.true(bytesOf(cache, 1, 7).equals(block(7)))
  fs.truncateSync(landing.file, 2 * BLOCK_BYTES)
  await cache.flush()
  t.false(isPresent(cache, 1, 7), 'a footer behind it would make a hole of it')
  await cache.close()
})

test('whatever owner and threads do in whatever order, a block that is present is the one that is claimed', async (t) => {
  const random = new Random()
  t.log(`seed ${String(random.seed)}`)
  const { cache, warnings } = open()
  const versions = [block(1), block(2), sparse]
  const anyVersion = (): Buffer => versions[random.below(versions.length)] ?? block(1)
  const landings: { index: number; landing: Landing; plain: Buffer; diskBytes: number | undefined }[] = []
  const confirmations: { index: number; plain: Buffer }[] = []
  const take = <Item>(from: Item[]): Item | undefined => from.splice(random.below(from.length + 1), 1)[0]
  const counts = { landed: 0, spoiled: 0 }
  const index = (): number => random.below(BLOCKS)
  const steps: (() => void)[] = [
    () => {
      const at = index()
      const landing = cache.beginLanding(inode, 1, at)
      if (landing !== undefined) landings.push({ index: at, landing, plain: anyVersion(), diskBytes: undefined })
    },
    () => {
      const task = landings[random.below(landings.length + 1)]
      if (task !== undefined) task.diskBytes = landBlock(task.landing, task.plain)
    },
    () => {
      const task = take(landings)
      if (task === undefined) return
      const { diskBytes, plain } = task
      const landed = diskBytes === undefined ? undefined : { digest: sha256(plain), diskBytes }
      cache.endLanding(inode, 1, task.index, landed)
      if (isPresent(cache, 1, task.index)) counts.landed++
      else counts.spoiled++
    },
    () => {
      // somebody reads a candidate in the region file, and compares it
      const at = index()
      const plain = anyVersion()
      if (!cache.claims(inode, 1, at, sha256(plain)) || !fs.existsSync(cache.pathOf(inode, 1))) return
      const found = fs.readFileSync(cache.pathOf(inode, 1)).subarray(at * BLOCK_BYTES, (at + 1) * BLOCK_BYTES)
      if (found.equals(plain)) confirmations.push({ index: at, plain })
    },
    () => {
      const confirmed = take(confirmations)
      if (confirmed !== undefined) cache.confirm(inode, 1, confirmed.index, confirmed.plain, sha256(confirmed.plain))
    },
    () => {
      const plain = anyVersion()
      cache.place(inode, 1, index(), plain, sha256(plain))
    },
    () => {
      const plain = anyVersion()
      const at = index()
      cache.forget(inode, 1, at)
      cache.place(inode, 1, at, plain, sha256(plain))
    },
    () => cache.forget(inode, 1, index()),
    () => {
      if (random.below(6) === 0) cache.evict(1)
    }
  ]
  for (let step = 0; step < 5000; step++) {
    // a landing needs three of its steps, in order, and an absent block
    steps[random.below(2) === 0 ? random.below(3) : random.below(steps.length)]?.()
    if (random.below(3) === 0) cache.forget(inode, 1, index())
    if (random.below(50) === 0) await cache.flush()
    for (let at = 0; at < BLOCKS; at++) {
      if (!isPresent(cache, 1, at)) continue
      const bytes = bytesOf(cache, 1, at)
      if (!cache.claims(inode, 1, at, sha256(bytes)) || !versions.some((version) => version.equals(bytes))) {
        t.fail(`step ${String(step)}: block ${String(at)}`)
        return
      }
    }
  }
  t.true(counts.landed > 20 && counts.spoiled > 100, JSON.stringify(counts))
  t.deepEqual(warnings, [])
  await cache.close()
})

test('a closed cache waits for the threads that write, and none writes after it', async (t) => {
  const directory = temporaryDirectory('landing')
  const { cache } = open(directory)
  const landing = begin(cache)
  Atomics.add(landing.gate, 0, 1) // a thread that is at it
  let isClosed = false
  const closing = cache.close().then(() => (isClosed = true))
  await new Promise((resolve) => setTimeout(resolve, 300))
  t.false(isClosed)
  Atomics.sub(landing.gate, 0, 1)
  await closing
  t.is(landBlock(landing, block(4)), undefined)
  cache.endLanding(inode, 1, 3, { digest: sha256(block(4)), diskBytes: BLOCK_BYTES })
  t.true(
    fs
      .readFileSync(landing.file)
      .subarray(landing.offset, landing.offset + BLOCK_BYTES)
      .equals(block(0))
  )
  const next = open(directory).cache
  t.is(next.directory, cache.directory, 'the slot is free')
  t.false(next.claims(inode, 1, 3, sha256(block(4))))
  await next.close()
})

test('a cache whose writer does not end keeps its slot: the next mount has another one', async (t) => {
  const directory = temporaryDirectory('landing')
  const { cache } = open(directory)
  Atomics.add(begin(cache).gate, 0, 1) // a thread that hangs, or was ended in the middle
  await cache.close()
  const next = open(directory).cache
  t.not(next.directory, cache.directory)
  await next.close()
})

test('a disk that has no file for the region lets nothing land', async (t) => {
  const { cache, warnings } = open()
  fs.rmSync(cache.directory, { recursive: true })
  t.is(cache.beginLanding(inode, 1, 3), undefined)
  t.is(warnings.length, 1)
  await cache.close()
})
