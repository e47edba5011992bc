/** Who goes first on the way to the share: readers, then what is fetched for nobody yet, and whoever begins to wait overtakes. */
import test, { type ExecutionContext } from 'ava'
import { BLOCK_BYTES, BLOCKS_PER_MAP_PAGE } from '../../src/base/units.js'
import { SharePool } from '../../src/fetch/share-pool.js'
import type { AheadPriority } from '../../src/image/fetch-ahead.js'
import { Images } from '../../src/image/images.js'
import { CommitBed } from '../commit/commit-bed.js'
import { Random } from '../support/random.js'

function open(
  t: ExecutionContext,
  files: Record<string, Buffer>
): { bed: CommitBed; images: Images; pool: SharePool; read: (name: string, block: number) => Promise<Buffer> } {
  const bed = new CommitBed(files)
  const pool = new SharePool(bed.root, { threads: 1 })
  const images = new Images({
    session: bed.session,
    cache: bed.openCache(),
    pool,
    onDamage: (message) => t.fail(message),
    onWarning: () => undefined
  })
  t.teardown(async () => {
    images.stop()
    await pool.close()
    await bed.destroy()
  })
  const read = async (name: string, block: number): Promise<Buffer> => {
    const into = Buffer.alloc(BLOCK_BYTES)
    await images.read(bed.file(name), into, block * BLOCK_BYTES)
    return into
  }
  return { bed, images, pool, read }
}

/** Each has one page in its map, which names one block. */
function smallFiles(count: number): Record<string, Buffer> {
  const random = new Random(1)
  return Object.fromEntries(
    Array.from({ length: count }, (_, index) => [`disk-${String(index)}.vmdk`, random.bytes(BLOCK_BYTES)])
  )
}

const KINDS = ['warm', 'stream', 'profile', 'tables', 'readahead'] as const satisfies readonly AheadPriority[]
/** how many tasks that nobody waits for may end in another order than they began in: two run at once */
const OVERLAP = 1

test('what is asked for at the same time comes in order: demand, readahead, tables, profile, stream, warm', async (t) => {
  const files = smallFiles(6 * (KINDS.length + 1))
  const names = Object.keys(files)
  const { bed, images, pool, read } = open(t, files)
  for (const name of names) await images.maps.page(bed.file(name).base?.map ?? null, 0) // maps are another test
  const came: string[] = []
  const asked: Promise<unknown>[] = []
  const plug = pool.run('openVm', {}, { priority: 'demand' }) // the only thread works while everybody asks
  for (const kind of KINDS) {
    for (const name of names.splice(0, 6)) {
      asked.push(images.ahead.bring(bed.file(name), [0], kind).then(() => came.push(kind)))
    }
  }
  for (const name of names) asked.push(read(name, 0).then(() => came.push('demand')))
  await Promise.all([plug, ...asked])
  const order = ['demand', 'readahead', 'tables', 'profile', 'stream', 'warm']
  t.is(came.length, 6 * order.length)
  for (const [index, later] of order.entries()) {
    const first = came.indexOf(later)
    const overtaken = came.slice(first).filter((kind) => order.indexOf(kind) < index)
    t.true(overtaken.length <= OVERLAP, `${later} before ${overtaken.join(', ')}: ${came.join(' ')}`)
  }
})

test('a map that is looked at for nobody yet keeps no reader waiting, and whoever waits for it raises it', async (t) => {
  const files = smallFiles(24)
  const names = Object.keys(files)
  const { bed, images, pool, read } = open(t, files)
  const came: string[] = []
  const tables = images.fetchMetadata() // all of them at once
  t.deepEqual(pool.waiting(), [], 'nobody waits for it')
  t.is(pool.queues().demand, 0)
  const others = names.map(async (name) => {
    while (images.maps.knownPage(bed.file(name).base?.map ?? null, 0) === undefined) {
      await new Promise((resolve) => setImmediate(resolve))
    }
    came.push(name)
  })
  const last = names.at(-1) ?? ''
  t.deepEqual(await read(last, 0), files[last])
  came.push('read')
  t.true(came.indexOf('read') < names.length / 2, came.join(' '))
  await Promise.all([tables, ...others])
})

test('warm and what looks on keep their maps behind every reader', async (t) => {
  const disk = Buffer.alloc(3 * BLOCKS_PER_MAP_PAGE * BLOCK_BYTES)
  for (let page = 0; page < 3; page++) new Random(page).bytes(4096).copy(disk, page * BLOCKS_PER_MAP_PAGE * BLOCK_BYTES)
  const { bed, images, pool } = open(t, { disk })
  images.cells(bed.file('disk'), { firstBlock: 0, blocks: 3 * BLOCKS_PER_MAP_PAGE, cells: 10 })
  const warmed = images.warm(
    () => undefined,
    () => false
  )
  t.deepEqual(pool.waiting(), [])
  t.is(pool.queues().running, 1)
  t.is((await warmed).doneBytes, 3 * BLOCK_BYTES)
})

test('two sequential readers of one file who take turns are both read ahead for', async (t) => {
  const BLOCKS = 96
  const disk = new Random(7).bytes(2 * BLOCKS * BLOCK_BYTES)
  const { images, read } = open(t, { disk })
  for (let block = 0; block < BLOCKS; block++) {
    for (const at of [block, BLOCKS + block]) {
      t.true((await read('disk', at)).equals(disk.subarray(at * BLOCK_BYTES, (at + 1) * BLOCK_BYTES)))
    }
  }
  t.true(images.ahead.counters.readahead.usedBlocks > BLOCKS, String(images.ahead.counters.readahead.usedBlocks))
})
