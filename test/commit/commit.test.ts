import fs from 'node:fs'
import path from 'node:path'
import test, { type ExecutionContext } from 'ava'
import { sha256 } from '../../src/base/digest.js'
import { IntegrityError, NotPublishedError, PosixError } from '../../src/base/errors.js'
import { BLOCK_BYTES, BLOCKS_PER_MAP_PAGE, PAGE_BYTES, toGeneration } from '../../src/base/units.js'
import { CommitPool } from '../../src/commit/commit-pool.js'
import { UNIT_BLOCKS_MAX } from '../../src/commit/encode.js'
import { chunkName } from '../../src/format/chunk.js'
import { findSession, listBranches, publishGeneration, readBranch } from '../../src/format/generations.js'
import { breakLease, readLease } from '../../src/share/lease.js'
import { Random } from '../support/random.js'
import { blockAt, CLIENT, CommitBed, contentOf, entryOf, once, placesOf } from './commit-bed.js'

function bedOf(t: ExecutionContext, files: Readonly<Record<string, Buffer>>): CommitBed {
  const bed = new CommitBed(files)
  t.teardown(() => bed.destroy())
  return bed
}

function bytes(length: number, seed = 1): Buffer {
  return new Random(seed).bytes(length)
}

test('a session without changes publishes nothing', async (t) => {
  const bed = bedOf(t, { disk: bytes(BLOCK_BYTES) })
  const result = await bed.commit()
  t.like(result, { published: undefined, branch: undefined, changedBytes: 0, sentBytes: 0 })
  t.is(bed.newest().number, toGeneration(1))
})

test('bytes written again as they were send nothing and publish nothing', async (t) => {
  const content = bytes(3 * BLOCK_BYTES + 1000)
  const bed = bedOf(t, { disk: content })
  const file = bed.file('disk')
  bed.session.write(file, content.subarray(0, 5 * PAGE_BYTES), 0)
  bed.session.write(file, content.subarray(BLOCK_BYTES, 2 * BLOCK_BYTES), BLOCK_BYTES)
  bed.session.write(file, content.subarray(3 * BLOCK_BYTES), 3 * BLOCK_BYTES)
  const before = bed.chunks()
  const result = await bed.commit()
  t.like(result, { published: undefined, branch: undefined, changedBytes: 0, sentBytes: 0 })
  t.deepEqual(bed.chunks(), before)
})

test('changed pages lie over their base, and only their blocks travel', async (t) => {
  const content = bytes(4 * BLOCK_BYTES)
  const bed = bedOf(t, { disk: content, other: bytes(BLOCK_BYTES, 2) })
  const before = bed.base
  const page = bytes(PAGE_BYTES, 3)
  bed.session.write(bed.file('disk'), page, BLOCK_BYTES + PAGE_BYTES)
  page.copy(content, BLOCK_BYTES + PAGE_BYTES)
  const result = await bed.commit()
  const published = bed.newest()
  t.is(result.published?.digest, published.digest)
  t.is(result.changedBytes, BLOCK_BYTES)
  t.true(result.sentBytes < BLOCK_BYTES + 10_000)
  t.true(contentOf(bed.share, published, 'disk').equals(content))
  t.deepEqual(entryOf(published, 'other'), entryOf(before, 'other'))
  t.is(entryOf(published, 'disk').dataBlocks, 4)
  const places = placesOf(bed.share, entryOf(published, 'disk'))
  t.deepEqual(places.get(0), placesOf(bed.share, entryOf(before, 'disk')).get(0))
  t.is(published.manifest.session, bed.session.identity.sessionId)
  t.deepEqual(published.manifest.parent, { generation: before.number, digest: before.digest })
})

test('blocks that are zero now, written or punched, vanish from the map; a file of zeros has none', async (t) => {
  const bed = bedOf(t, { disk: bytes(3 * BLOCK_BYTES), gone: bytes(2 * BLOCK_BYTES, 2) })
  const before = bed.chunks().size
  bed.session.write(bed.file('disk'), Buffer.alloc(BLOCK_BYTES), 0)
  bed.punch(bed.file('disk'), 2 * BLOCK_BYTES, BLOCK_BYTES)
  bed.punch(bed.file('gone'), 0, 2 * BLOCK_BYTES)
  const published = await bed.publish()
  t.deepEqual([...placesOf(bed.share, entryOf(published, 'disk')).keys()], [1])
  t.is(entryOf(published, 'disk').dataBlocks, 1)
  t.deepEqual([entryOf(published, 'gone').map, entryOf(published, 'gone').dataBlocks], [null, 0])
  t.is(bed.chunks().size, before + 2, 'a map page and a root, no data')
})

test('holes in a block keep the bytes around them', async (t) => {
  const content = bytes(2 * BLOCK_BYTES)
  const bed = bedOf(t, { disk: content })
  bed.punch(bed.file('disk'), BLOCK_BYTES - PAGE_BYTES, 3 * PAGE_BYTES)
  content.fill(0, BLOCK_BYTES - PAGE_BYTES, BLOCK_BYTES + 2 * PAGE_BYTES)
  t.true(contentOf(bed.share, await bed.publish(), 'disk').equals(content))
})

test('what a truncate has cut off stays zero when the file grows again', async (t) => {
  const content = bytes(4 * BLOCK_BYTES)
  const cut = BLOCK_BYTES + 5000
  const bed = bedOf(t, { disk: content, short: Buffer.from(content) })
  bed.resize(bed.file('disk'), cut)
  bed.resize(bed.file('disk'), 3 * BLOCK_BYTES + 7)
  bed.resize(bed.file('short'), cut)
  const published = await bed.publish()
  const expected = Buffer.concat([content.subarray(0, cut)], 3 * BLOCK_BYTES + 7)
  t.true(contentOf(bed.share, published, 'disk').equals(expected))
  t.is(entryOf(published, 'disk').dataBlocks, 2)
  t.true(contentOf(bed.share, published, 'short').equals(content.subarray(0, cut)))
  // and the generation is a base like any other
  bed.resize(bed.file('disk'), 0)
  const empty = await bed.publish()
  t.deepEqual([entryOf(empty, 'disk').size, entryOf(empty, 'disk').map], [0, null])
})

test('a truncate that ends in bytes that were zero anyway only changes the size', async (t) => {
  const content = Buffer.concat([bytes(BLOCK_BYTES), Buffer.alloc(BLOCK_BYTES)])
  const bed = bedOf(t, { disk: content })
  bed.resize(bed.file('disk'), BLOCK_BYTES + 100)
  const before = bed.chunks()
  const published = await bed.publish()
  t.is(entryOf(published, 'disk').size, BLOCK_BYTES + 100)
  t.deepEqual(bed.chunks(), before)
})

test("the base's own bytes, written again above a truncate, need their place but no transfer", async (t) => {
  const content = bytes(3 * BLOCK_BYTES)
  const bed = bedOf(t, { disk: content })
  const file = bed.file('disk')
  bed.resize(file, 0)
  bed.session.write(file, content, 0)
  bed.resize(file, 2 * BLOCK_BYTES)
  const result = await bed.commit()
  t.truthy(result.published)
  t.true(contentOf(bed.share, bed.newest(), 'disk').equals(content.subarray(0, 2 * BLOCK_BYTES)))
  t.deepEqual(
    [...placesOf(bed.share, entryOf(bed.newest(), 'disk')).values()],
    [...placesOf(bed.share, entryOf(bed.base, 'disk')).values()].slice(0, 2)
  )
  t.true(result.sentBytes < 10_000, 'map objects only')
})

test('a file that grows past a map page gets a second one and stays sparse', async (t) => {
  const span = BLOCKS_PER_MAP_PAGE * BLOCK_BYTES
  const bed = bedOf(t, { disk: bytes(BLOCK_BYTES) })
  const tail = bytes(2 * PAGE_BYTES + 100, 4)
  bed.session.write(bed.file('disk'), tail, span - PAGE_BYTES)
  const published = await bed.publish()
  const entry = entryOf(published, 'disk')
  t.is(entry.size, span + PAGE_BYTES + 100)
  const places = placesOf(bed.share, entry)
  t.deepEqual([...places.keys()], [0, BLOCKS_PER_MAP_PAGE - 1, BLOCKS_PER_MAP_PAGE])
  const [, last, next] = [...places.values()].map((place) => blockAt(bed.share, place))
  t.true(last?.subarray(-PAGE_BYTES).equals(tail.subarray(0, PAGE_BYTES)))
  t.true(next?.equals(Buffer.concat([tail.subarray(PAGE_BYTES)], BLOCK_BYTES)))
  // the first page was not touched any more when only the second one changes
  bed.session.write(bed.file('disk'), bytes(PAGE_BYTES, 5), span)
  const again = placesOf(bed.share, entryOf(await bed.publish(), 'disk'))
  t.deepEqual(again.get(0), places.get(0))
  t.is(again.size, 3)
})

test('new files come with their bytes, removed ones go, names move; numbers are not used again', async (t) => {
  const content = bytes(BLOCK_BYTES + 77)
  const bed = bedOf(t, { keep: content, gone: bytes(BLOCK_BYTES, 2) })
  const { session } = bed
  const made = bed.create('made')
  session.write(made, content.subarray(0, 5000), 0)
  const open = bed.create('still open')
  session.write(open, content.subarray(0, 5000), 0)
  const root = session.namespace.get(made.parent) ?? made
  const keep = bed.file('keep').id
  session.record({ kind: 'unlink', parent: root.id, name: 'gone' })
  session.record({ kind: 'unlink', parent: root.id, name: 'still open' })
  session.record({ kind: 'unlink', parent: root.id, name: 'keep' })
  session.record({ kind: 'link', parent: root.id, name: 'kept', inode: keep })
  const published = await bed.publish()
  t.deepEqual(
    published.manifest.entries.map(({ name }) => name),
    ['', 'kept', 'made']
  )
  t.true(contentOf(bed.share, published, 'made').equals(content.subarray(0, 5000)))
  t.true(contentOf(bed.share, published, 'kept').equals(content))
  t.is(entryOf(published, 'kept').inode, keep)
  t.is(published.manifest.nextInode, open.id + 1)
})

test('attributes alone make a generation and send nothing', async (t) => {
  const bed = bedOf(t, { disk: bytes(BLOCK_BYTES) })
  const { id, type, uid, gid, atimeNs, ctimeNs, rdev, target } = bed.file('disk')
  const attributes = { type, uid, gid, atimeNs, ctimeNs, rdev, target }
  bed.session.record({ kind: 'inode', inode: id, ...attributes, mode: 0o600, mtimeNs: 77n })
  const result = await bed.commit()
  t.is(result.sentBytes, 0)
  const entry = entryOf(bed.newest(), 'disk')
  t.deepEqual([entry.mode, entry.mtime, entry.map], [0o600, '77', entryOf(bed.base, 'disk').map])
})

for (const when of ['before the upload', 'after the upload'] as const) {
  test(`a lease that was broken ${when} makes the session a branch`, async (t) => {
    const content = bytes(2 * BLOCK_BYTES)
    const bed = bedOf(t, { disk: content })
    bed.session.write(bed.file('disk'), bytes(PAGE_BYTES, 9), PAGE_BYTES)
    bytes(PAGE_BYTES, 9).copy(content, PAGE_BYTES)
    const takeAway = (): void => {
      const state = readLease(bed.share)
      if (state !== undefined) breakLease(bed.share, state, { ...CLIENT, client: 'fedcba9876543210' })
    }
    if (when === 'before the upload') takeAway()
    const onProgress = once('publish', when === 'after the upload' ? takeAway : () => undefined)
    const { published, branch } = await bed.commit({ onProgress })
    t.is(published, undefined)
    t.regex(branch?.why ?? '', /lease .* was taken/)
    t.is(bed.newest().number, toGeneration(1))
    t.deepEqual(listBranches(bed.share), [branch?.published.name])
    t.true(contentOf(bed.share, readBranch(bed.share, '2-'), 'disk').equals(content))
  })
}

test('a generation that somebody else has published makes the session a branch', async (t) => {
  const bed = bedOf(t, { disk: bytes(BLOCK_BYTES) })
  const page = bytes(PAGE_BYTES, 9)
  bed.session.write(bed.file('disk'), page, 0)
  const publishOther = (): void => {
    publishGeneration(bed.share, {
      ...bed.base.manifest,
      generation: toGeneration(2),
      parent: { generation: 1, digest: bed.base.digest },
      session: 'ff'.repeat(16),
      client: { id: 'fedcba9876543210', host: 'elsewhere' }
    })
  }
  const { published, branch } = await bed.commit({ onProgress: once('publish', publishOther) })
  t.is(published, undefined)
  t.regex(branch?.why ?? '', /generation 2 was published by elsewhere since generation 1/)
  t.is(bed.newest().manifest.client.host, 'elsewhere')
  const kept = readBranch(bed.share, branch?.published.name ?? '')
  t.true(contentOf(bed.share, kept, 'disk').subarray(0, PAGE_BYTES).equals(page))
  t.is(findSession(bed.share, bed.session.identity.sessionId, 1)?.kind, 'branch')
  const again = await bed.commit()
  t.is(again.branch?.published.digest, kept.digest, 'a second try finds the first one')
})

test('a try after a failure sends only what was not sent', async (t) => {
  const bed = bedOf(t, { disk: bytes(BLOCK_BYTES) })
  const content = bytes(140 * BLOCK_BYTES, 6)
  bed.session.write(bed.file('disk'), content, 0)
  const fail = (): void => {
    throw new Error('the share went away')
  }
  const onProgress = once('upload', fail, ({ sentBytes }) => sentBytes > 0)
  await t.throwsAsync(bed.commit({ onProgress }), { instanceOf: NotPublishedError, message: /went away/ })
  t.is(bed.newest().number, toGeneration(1))
  await bed.reopen()
  const recorded = [...bed.session.uploads.entries()]
  const recordedBytes = recorded.reduce((sum, [, place]) => sum + place.storedBytes, 0)
  t.true(recorded.length > 0)
  const result = await bed.commit()
  t.true(result.sentBytes <= content.length - recordedBytes + 50_000, 'what was not sent, and map objects')
  t.true(contentOf(bed.share, bed.newest(), 'disk').equals(content))
})

test('a try that only failed at the end sends no block again', async (t) => {
  const bed = bedOf(t, { disk: bytes(BLOCK_BYTES) })
  const content = bytes(4 * BLOCK_BYTES, 6)
  bed.session.write(bed.file('disk'), content, 0)
  const fail = (): void => {
    throw new Error('no')
  }
  await t.throwsAsync(bed.commit({ onProgress: once('publish', fail) }), { instanceOf: NotPublishedError })
  await bed.reopen()
  const result = await bed.commit()
  t.is(result.sentBytes, 0)
  t.is(result.changedBytes, 4 * BLOCK_BYTES)
  t.true(contentOf(bed.share, bed.newest(), 'disk').equals(content))
})

test('--verify publishes what the share gives back', async (t) => {
  const bed = bedOf(t, { disk: bytes(BLOCK_BYTES) })
  const content = bytes(2 * BLOCK_BYTES, 6)
  bed.session.write(bed.file('disk'), content, 0)
  const phases: string[] = []
  await bed.commit({ verify: true, onProgress: ({ phase }) => phases.push(phase) })
  t.true(phases.includes('verify'))
  t.true(contentOf(bed.share, bed.newest(), 'disk').equals(content))
})

for (const what of ['a block', 'a map object'] as const) {
  test(`--verify finds ${what} damaged before anything is published, and says the way out`, async (t) => {
    const bed = bedOf(t, { disk: bytes(BLOCK_BYTES) })
    const content = bytes(2 * BLOCK_BYTES, 6)
    bed.session.write(bed.file('disk'), content, 0)
    const before = bed.chunks()
    let damaged = ''
    const damage = (): void => {
      const [data] = [...bed.session.uploads.entries()]
      const dataChunk = path.join(bed.root, chunkName(data?.[1].chunk ?? ''))
      const added = [...bed.chunks().keys()].filter((file) => !before.has(file) && file !== dataChunk)
      damaged = what === 'a block' ? dataChunk : (added[0] ?? '')
      const stored = fs.readFileSync(damaged)
      fs.writeFileSync(damaged, stored.fill(0x55, Math.floor(stored.length / 2)))
    }
    const onProgress = once('verify', damage)
    const error = await t.throwsAsync(bed.commit({ verify: true, onProgress }), { instanceOf: NotPublishedError })
    t.true(error.cause instanceof IntegrityError)
    t.is(bed.newest().number, toGeneration(1), 'a published session would be dropped by the next mount')
    t.true(error.hint?.includes(damaged))
    await bed.reopen()
    fs.rmSync(damaged)
    await bed.commit({ verify: true })
    t.true(contentOf(bed.share, bed.newest(), 'disk').equals(content))
  })
}

test('a chunk that is gone when all is sent stops the publish, and is sent anew', async (t) => {
  const bed = bedOf(t, { disk: bytes(BLOCK_BYTES) })
  const content = bytes(2 * BLOCK_BYTES, 6)
  bed.session.write(bed.file('disk'), content, 0)
  const lose = (): void => {
    for (const [, { chunk }] of bed.session.uploads.entries()) {
      fs.rmSync(path.join(bed.root, chunkName(chunk)), { force: true })
    }
  }
  const error = await t.throwsAsync(bed.commit({ onProgress: once('maps', lose) }), { instanceOf: NotPublishedError })
  t.regex(error.message, /is missing on the share/)
  t.is(bed.newest().number, toGeneration(1))
  await bed.commit()
  t.true(contentOf(bed.share, bed.newest(), 'disk').equals(content))
})

test('a full disk of the client keeps no session from being published', async (t) => {
  const bed = bedOf(t, { disk: bytes(BLOCK_BYTES) })
  const cache = bed.openCache()
  const plain = bytes(BLOCK_BYTES, 8)
  cache.place(bed.file('disk').id, 9, 0, plain, Buffer.alloc(32, 1))
  bed.session.write(bed.file('disk'), bytes(BLOCK_BYTES, 6), 0)
  const { session } = bed
  const sync = session.sync.bind(session)
  const full = (): never => {
    throw new PosixError('ENOSPC', 'full')
  }
  let syncs = 0
  session.sync = async (inode) => (syncs++ === 0 ? full() : sync(inode))
  session.uploads.add = full
  session.markPublished = full
  const { published } = await bed.commit()
  t.is(published?.number, toGeneration(2))
  t.true(cache.evictedBytes > 0, 'the cache made way')
})

test.serial(
  'a thread that cannot keep what was published costs the next mount its fetches, and nothing else',
  async (t) => {
    const bed = bedOf(t, { disk: bytes(BLOCK_BYTES) })
    const cache = bed.openCache()
    const { id } = bed.file('disk')
    const content = bytes(BLOCK_BYTES, 6)
    bed.session.write(bed.file('disk'), content, 0)
    const { run } = CommitPool.prototype
    t.teardown(() => {
      CommitPool.prototype.run = run
    })
    let isAsked = false
    CommitPool.prototype.run = function (this: CommitPool, name, input) {
      if (name !== 'keep') return run.call(this, name, input as never) as never
      isAsked = true
      return Promise.reject(new Error('the thread has ended'))
    }
    await bed.commit()
    t.true(isAsked)
    t.true(contentOf(bed.share, bed.newest(), 'disk').equals(content))
    t.false(cache.claims(id, 0, 0, sha256(content)))
    t.not(cache.beginLanding(id, 0, 0), undefined, 'nobody is at it any more')
  }
)

test.serial('the threads of a commit that fails are closed when none of its units runs any more', async (t) => {
  const bed = bedOf(t, { disk: bytes(PAGE_BYTES) })
  bed.session.write(bed.file('disk'), bytes((UNIT_BLOCKS_MAX + 1) * BLOCK_BYTES, 6), 0)
  const { run, close } = CommitPool.prototype
  t.teardown(() => {
    CommitPool.prototype.run = run
    CommitPool.prototype.close = close
  })
  const happened: string[] = []
  CommitPool.prototype.run = async function (this: CommitPool, name, input) {
    if (name !== 'encode') return run.call(this, name, input as never) as never
    if (happened.push('begun') === 1) {
      await new Promise((resolve) => setTimeout(resolve, 200))
      happened.push('done')
    }
    throw new Error('the share is full')
  }
  CommitPool.prototype.close = function () {
    happened.push('closed')
    return close.call(this)
  }
  await t.throwsAsync(bed.commit(), { message: /the share is full/ })
  t.deepEqual(happened, ['begun', 'begun', 'done', 'closed'])
})

test('threads that have ended are not started again', async (t) => {
  const bed = bedOf(t, { disk: bytes(PAGE_BYTES) })
  const pool = new CommitPool(bed.share.root)
  await pool.close()
  await t.throwsAsync(pool.run('keep', { blocks: [] }), { message: /have ended/ })
})

test('what was published is in the cache for the next mount', async (t) => {
  const bed = bedOf(t, { disk: bytes(3 * BLOCK_BYTES) })
  const cache = bed.openCache()
  const { id } = bed.file('disk')
  bed.session.write(bed.file('disk'), bytes(BLOCK_BYTES, 6), BLOCK_BYTES)
  bed.session.write(bed.file('disk'), bytes(PAGE_BYTES, 6), 2 * BLOCK_BYTES)
  await bed.commit()
  const places = placesOf(bed.share, entryOf(bed.newest(), 'disk'))
  t.true(cache.claims(id, 0, 1, places.get(1)?.digest ?? Buffer.alloc(0)))
  const into = Buffer.alloc(BLOCK_BYTES)
  t.true(cache.read(id, 0, into, BLOCK_BYTES))
  t.true(into.equals(bytes(BLOCK_BYTES, 6)))
  t.false(
    cache.claims(id, 0, 2, places.get(2)?.digest ?? Buffer.alloc(0)),
    'its base was never here: not fetched for it'
  )
})

test('a share that is clearly too small is told before anything is sent; one that does not know its space is tried', async (t) => {
  const content = bytes(5 * BLOCK_BYTES)
  const bed = bedOf(t, { disk: bytes(BLOCK_BYTES, 3) })
  bed.session.write(bed.file('disk'), content, 0)
  const before = bed.chunks()
  let freeBytes = 2.5 * BLOCK_BYTES - 1
  const asked: string[] = []
  const { run } = CommitPool.prototype
  CommitPool.prototype.run = function (this: CommitPool, name: string, input: never) {
    if (this.vmPath !== bed.root) return run.call(this, name as never, input) // tests of this file run side by side
    asked.push(name)
    return name === 'freeBytes' ? Promise.resolve(freeBytes) : run.call(this, name as never, input)
  } as typeof run
  t.teardown(() => (CommitPool.prototype.run = run))

  const refused = await t.throwsAsync(bed.commit(), { instanceOf: NotPublishedError })
  t.is(
    refused.message,
    `the share is too full: ${String(5 * BLOCK_BYTES)} bytes were changed, and ${String(freeBytes)} are free at ${bed.root}`
  )
  t.regex(refused.hint ?? '', /make space there \(isrfs prune/)
  t.is(asked.at(-1), 'freeBytes')
  t.false(asked.some((name) => name === 'encode' || name === 'objects'))
  t.deepEqual(bed.chunks(), before)
  t.is(bed.newest().number, toGeneration(1))

  // half of it is room enough for blocks that may compress, and the session has lost nothing
  freeBytes++
  t.true(contentOf(bed.share, await bed.publish(), 'disk').equals(content))
  freeBytes = 0
  bed.session.write(bed.file('disk'), bytes(BLOCK_BYTES, 2), 0)
  bytes(BLOCK_BYTES, 2).copy(content)
  t.true(contentOf(bed.share, await bed.publish(), 'disk').equals(content))
  // names and attributes alone need no such look
  freeBytes = 1
  bed.create('empty')
  await t.notThrowsAsync(bed.publish())
})
