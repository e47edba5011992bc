import fs from 'node:fs'
import path from 'node:path'
import test from 'ava'
import { IntegrityError } from '../../src/base/errors.js'
import { BLOCK_BYTES, toGeneration, toInodeId } from '../../src/base/units.js'
import { BaseMaps } from '../../src/cache/base-maps.js'
import { Cache } from '../../src/cache/cache.js'
import { type BlockKeeper, type BlockRequest, Fetcher, isDamage } from '../../src/fetch/fetcher.js'
import { SharePool } from '../../src/fetch/share-pool.js'
import { chunkName } from '../../src/format/chunk.js'
import type { ObjectPlace } from '../../src/format/place.js'
import { waitFor } from '../support/bed.js'
import { makeVm, temporaryDirectory } from '../support/make-vm.js'
import { Random } from '../support/random.js'

const inode = toInodeId(2)
const disk = new Random(5).bytes(20 * BLOCK_BYTES)

/** `landings`: a cache into whose files threads write; undefined: all bytes come here. */
async function setUp(landings?: Pick<BlockKeeper, 'beginLanding' | 'endLanding'>): Promise<{
  pool: SharePool
  fetcher: Fetcher
  requests: BlockRequest[]
  kept: string[]
  root: string
}> {
  const root = path.join(temporaryDirectory('fetch'), 'vm')
  const { generation } = makeVm(root, new Map([['disk', disk]]))
  const pool = new SharePool(root, { threads: 2 })
  const kept: string[] = []
  const fetcher = new Fetcher(pool, {
    beginLanding: (...block) => landings?.beginLanding(...block),
    endLanding: (...block) => landings?.endLanding(...block),
    confirm: (_, region, block) => kept.push(`confirm ${String(region)}/${String(block)}`),
    place: (_, region, block) => kept.push(`place ${String(region)}/${String(block)}`)
  })
  const maps = new BaseMaps(async (place) =>
    Buffer.from((await pool.run('object', { place, candidate: undefined })).bytes)
  )
  const entry = generation.manifest.entries[1]
  const map = (entry?.type === 'file' ? entry.map : null) as ObjectPlace
  const requests: BlockRequest[] = []
  for (let block = 0; block < 20; block++) {
    const place = await maps.place(map, block)
    if (place !== undefined) requests.push({ inode, block, place, candidate: undefined })
  }
  return { pool, fetcher, requests, kept, root }
}

test('blocks come verified, neighbours together, and each is kept', async (t) => {
  const { pool, fetcher, requests, kept } = await setUp()
  const blocks = await Promise.all(fetcher.fetch(requests, 'demand', 'test'))
  t.true(Buffer.concat(blocks.map((block) => block ?? Buffer.alloc(0))).equals(disk))
  t.is(kept.length, 20)
  t.is(pool.counters.fetchedBlocks, 20)
  t.true(pool.counters.fetchedBytes >= disk.length)
  t.deepEqual(pool.waiting(), [])
  await pool.close()
})

test('a block that is being fetched is not fetched again: everyone waits for the one fetch', async (t) => {
  const { pool, fetcher, requests } = await setUp()
  const first = fetcher.fetch(requests.slice(0, 4), 'readahead', 'test')
  t.deepEqual(
    [...fetcher.inFlight()].map(({ block }) => block),
    requests.slice(0, 4).map(({ block }) => block)
  )
  t.true(pool.waiting().length > 0)
  const second = fetcher.fetch(requests.slice(2, 6), 'demand', 'test')
  await Promise.all([...first, ...second])
  t.is(pool.counters.fetchedBlocks, 6)
  t.deepEqual([...fetcher.inFlight()], [])
  t.true(pool.counters.busySeconds > 0)
  await pool.close()
})

test('a block that somebody begins to wait for overtakes what is fetched in the background', async (t) => {
  const { fetcher, requests, pool } = await setUp()
  const order: number[] = []
  const each = requests.map((request) => fetcher.fetch([request], 'warm', 'test'))
  for (const [index, [block]] of each.entries()) void block?.then(() => order.push(index))
  t.deepEqual(pool.waiting(), [], 'nobody waits for the background')
  const last = requests.length - 1
  const [wanted] = fetcher.fetch(requests.slice(last), 'demand', 'test')
  t.is(pool.waiting().length, 1)
  await wanted
  await Promise.all(each.flat())
  t.is(pool.counters.fetchedBlocks, requests.length, 'none was fetched twice')
  t.true(order.indexOf(last) < 4, `its turn was ${String(order.indexOf(last))}`)
  await pool.close()
})

test('a damaged block rejects for itself and its neighbours arrive; a missing chunk is damage, not absence', async (t) => {
  const { pool, fetcher, requests, root } = await setUp()
  const [, , third] = requests
  if (third === undefined) throw new Error('no third block')
  const chunk = path.join(root, chunkName(third.place.chunk))
  const content = fs.readFileSync(chunk)
  content.fill(0, third.place.offset + 100, third.place.offset + 200)
  fs.writeFileSync(chunk, content)
  const results = await Promise.allSettled(fetcher.fetch(requests.slice(0, 5), 'demand', 'test'))
  t.deepEqual(
    results.map(({ status }) => status),
    ['fulfilled', 'fulfilled', 'rejected', 'fulfilled', 'fulfilled']
  )
  t.true(results[2]?.status === 'rejected' && isDamage(results[2].reason))
  fs.rmSync(chunk)
  const [missing = Promise.resolve()] = fetcher.fetch(requests.slice(7, 8), 'demand', 'test')
  const error = await t.throwsAsync(missing, { instanceOf: IntegrityError })
  t.regex(error.message, /is missing/)
  fs.writeFileSync(chunk, content.subarray(0, 1000))
  const [cut = Promise.resolve()] = fetcher.fetch(requests.slice(8, 9), 'demand', 'test')
  await t.throwsAsync(cut, { instanceOf: IntegrityError })
  await pool.close()
})

test('a local copy counts when its digest is right, and is fetched again when it is not', async (t) => {
  const { pool, fetcher, requests, kept, root } = await setUp()
  const file = path.join(root, 'copy')
  fs.writeFileSync(file, disk)
  const withCandidate = (block: number, at: number): BlockRequest[] =>
    requests
      .slice(block, block + 1)
      .map((request) => ({ ...request, candidate: { path: file, offset: at * BLOCK_BYTES } }))
  const [good] = fetcher.fetch(withCandidate(3, 3), 'demand', 'test')
  t.true((await good)?.equals(disk.subarray(3 * BLOCK_BYTES, 4 * BLOCK_BYTES)))
  t.is(pool.counters.fetchedBlocks, 0)
  const [bad] = fetcher.fetch(withCandidate(4, 9), 'demand', 'test')
  t.true((await bad)?.equals(disk.subarray(4 * BLOCK_BYTES, 5 * BLOCK_BYTES)))
  t.is(pool.counters.fetchedBlocks, 1)
  t.deepEqual(kept, ['confirm 0/3', 'place 0/4'])
  await pool.close()
})

test('errors of the share arrive with their code and are counted', async (t) => {
  const { pool, root } = await setUp()
  t.is((await pool.run('openVm', {})).format, 'isrfs')
  t.is((await pool.run('newest', {})).number, toGeneration(1))
  await t.throwsAsync(pool.run('generation', { number: 9 }), { message: /there is no generation 9/ })
  fs.renameSync(path.join(root, 'vm.json'), path.join(root, 'not-vm.json'))
  await t.throwsAsync(pool.run('openVm', {}), { message: /vm.json is missing, although there are generations/ })
  fs.renameSync(path.join(root, 'not-vm.json'), path.join(root, 'vm.json'))
  const holder = { client: '0123456789abcdef', host: 'h', user: 'u', pid: 1, boot: 'b', mountpoint: '/m' }
  const held = await pool.run('acquireLease', { holder })
  t.true(await pool.run('leaseStillHeld', { held }))
  t.true(await pool.run('beatLease', { held, beats: 1 }))
  await pool.run('releaseLease', { held, generation: null })
  t.false(await pool.run('leaseStillHeld', { held }))
  const pin = await pool.run('createPin', { holder, generation: 1 })
  await pool.run('beatPin', { pin, beats: 1 })
  t.true(fs.existsSync(path.join(root, pin.name, 'beat.json')))
  await pool.run('removePin', { pin })
  t.false(fs.existsSync(path.join(root, pin.name)))
  t.is(await pool.run('findSession', { sessionId: 'abcdef0123456789', above: 1 }), undefined)
  t.is((await pool.run('findSession', { sessionId: 'abcdef0123456789', above: 0 }))?.number, toGeneration(1))
  await pool.close()
})

/** A cache, and what became of the landings of each block: 1 ended with its bytes, 0 without; undefined: it has not ended. */
function landingStrip(): { cache: Cache; ended: Map<number, (number | undefined)[]> } & Pick<
  BlockKeeper,
  'beginLanding' | 'endLanding'
> {
  const cache = Cache.open({ directory: temporaryDirectory('fetch'), bytesMax: 2 ** 30, onWarning: () => undefined })
  const ended = new Map<number, (number | undefined)[]>()
  return {
    cache,
    ended,
    beginLanding: (id, region, block) => {
      ended.set(block, [...(ended.get(block) ?? []), undefined])
      return cache.beginLanding(id, region, block)
    },
    endLanding: (id, region, block, landed) => {
      const all = ended.get(block) ?? []
      if (all.pop() !== undefined) throw new Error(`block ${String(block)} has landed twice`)
      ended.set(block, [...all, landed === undefined ? 0 : 1])
      cache.endLanding(id, region, block, landed)
    }
  }
}

test('threads write what they fetch into the cache, each block once, and hand nothing over', async (t) => {
  const strip = landingStrip()
  const { pool, fetcher, requests, kept } = await setUp(strip)
  const blocks = await Promise.all(fetcher.fetch(requests, 'readahead', 'test'))
  t.true(blocks.every((block) => block === undefined))
  t.deepEqual(kept, [])
  t.is(pool.counters.fetchedBlocks, 20)
  t.deepEqual([...strip.ended.values()], new Array(20).fill([1]))
  const into = Buffer.alloc(disk.length)
  t.true(strip.cache.read(inode, 0, into, 0))
  t.true(into.equals(disk))
  await strip.cache.close()
  await pool.close()
})

test('who asks for the bytes gets them, also when others are fetching the block into the cache', async (t) => {
  const strip = landingStrip()
  const { pool, fetcher, requests } = await setUp(strip)
  const all = Promise.all(fetcher.fetch(requests.slice(0, 4), 'readahead', 'test'))
  const [joined] = fetcher.fetch(requests.slice(1, 2), 'demand', 'test', { handOver: true })
  const [alone] = fetcher.fetch(requests.slice(9, 10), 'demand', 'test', { handOver: true })
  t.true((await joined)?.equals(disk.subarray(BLOCK_BYTES, 2 * BLOCK_BYTES)))
  t.true((await alone)?.equals(disk.subarray(9 * BLOCK_BYTES, 10 * BLOCK_BYTES)))
  await all
  t.deepEqual([...strip.ended.keys()], [0, 1, 2, 3], 'none of these landed')
  await strip.cache.close()
  await pool.close()
})

test('a joined fetch that fails before anybody waits for it fails only for who asked', async (t) => {
  const strip = landingStrip()
  const { pool, fetcher, requests, root } = await setUp(strip)
  const chunk = path.join(root, chunkName(requests[0]?.place.chunk ?? ''))
  const offset = requests[2]?.place.offset ?? 0
  fs.writeFileSync(chunk, Buffer.from(fs.readFileSync(chunk)).fill(0, offset, offset + 200))
  const unhandled: unknown[] = []
  const onUnhandled = (error: unknown): void => void unhandled.push(error)
  process.on('unhandledRejection', onUnhandled)
  t.teardown(() => process.off('unhandledRejection', onUnhandled))
  const [first] = fetcher.fetch(requests.slice(2, 3), 'readahead', 'test')
  const [joined] = fetcher.fetch(requests.slice(2, 3), 'demand', 'test', { handOver: true })
  await t.throwsAsync(async () => first, { instanceOf: IntegrityError })
  await new Promise((resolve) => setTimeout(resolve, 50))
  t.deepEqual(unhandled, [], 'it would end the daemon')
  await t.throwsAsync(async () => joined, { instanceOf: IntegrityError })
  await strip.cache.close()
  await pool.close()
})

test('a landing ends whatever becomes of its block: damage, a file that has gone, a share in trouble, a task that cannot be begun', async (t) => {
  const strip = landingStrip()
  const { pool, fetcher, requests, kept, root } = await setUp(strip)
  const chunk = path.join(root, chunkName(requests[0]?.place.chunk ?? ''))
  const content = fs.readFileSync(chunk)
  const third = requests[2]?.place.offset ?? 0
  fs.writeFileSync(chunk, Buffer.from(content).fill(0, third, third + 200))
  await Promise.allSettled(fetcher.fetch(requests.slice(0, 4), 'demand', 'test'))
  t.deepEqual([...strip.ended.values()], [[1], [1], [0], [1]])

  fs.rmSync(strip.cache.pathOf(inode, 0)) // the owner has it open still
  const [given] = await Promise.all(fetcher.fetch(requests.slice(4, 5), 'demand', 'test'))
  t.true(given?.equals(disk.subarray(4 * BLOCK_BYTES, 5 * BLOCK_BYTES)), 'handed over')
  t.deepEqual(kept, ['place 0/4'])
  t.deepEqual(strip.ended.get(4), [0])

  fs.renameSync(root, `${root}.away`)
  const [late] = fetcher.fetch(requests.slice(6, 7), 'demand', 'test')
  await waitFor(() => pool.counters.shareErrors > 0, 'the share to be asked in vain')
  t.deepEqual(strip.ended.get(6), [0], 'it waits without one')
  fs.renameSync(`${root}.away`, root)
  fs.writeFileSync(chunk, content)
  await late
  t.is(strip.ended.get(6)?.at(-1), 0, 'the file has gone still')
  t.true(strip.ended.get(6)?.every((each) => each === 0))

  const { run } = pool
  pool.run = (name, input) => {
    if (typeof input === 'function') (input as () => unknown)()
    return Promise.reject(new Error(`no thread for ${name}`))
  }
  const [failed = Promise.resolve()] = fetcher.fetch(requests.slice(8, 9), 'demand', 'test')
  await t.throwsAsync(failed, { message: 'no thread for blocks' })
  t.deepEqual(strip.ended.get(8), [0])
  pool.run = run.bind(pool)
  await strip.cache.close()
  await pool.close()
})

test('a task that was cut off when the pool was closed has not landed: its thread may still write', async (t) => {
  const strip = landingStrip()
  const { pool, fetcher, requests } = await setUp(strip)
  const [cut = Promise.resolve()] = fetcher.fetch(requests.slice(0, 1), 'demand', 'test')
  await waitFor(() => strip.ended.has(0), 'the task to begin')
  const closed = pool.close()
  await t.throwsAsync(cut)
  t.deepEqual(strip.ended.get(0), [undefined])
  await closed
  await strip.cache.close()
})
