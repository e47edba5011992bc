/** Chunks with pieces that no generation uses, put back or left. */
import fs from 'node:fs'
import path from 'node:path'
import test, { type ExecutionContext } from 'ava'
import { BLOCK_BYTES, BLOCKS_PER_MAP_PAGE, toGeneration } from '../../src/base/units.js'
import { CachedBytes } from '../../src/cache/find-cached.js'
import { emptyDigests, digestAt, writeFooter } from '../../src/cache/region-file.js'
import { chunkName } from '../../src/format/chunk.js'
import { readNewestGeneration } from '../../src/format/generations.js'
import type { BlockPlace } from '../../src/format/place.js'
import { moveOutOfDamaged } from '../../src/history/move-out.js'
import { readPage, readRoot } from '../../src/history/references.js'
import { repairChunks } from '../../src/history/repair.js'
import { acquireLease } from '../../src/share/lease.js'
import { CLIENT, type History, historyOf, OTHER } from '../support/history-bed.js'
import { temporaryDirectory } from '../support/make-vm.js'

const VM = 'aabb'
const nothing = Buffer.alloc(0)

/** Places of the newest generation's blocks of a file. */
function placesOf(history: History, file = 'disk'): BlockPlace[] {
  const { manifest } = readNewestGeneration(history.share)
  const disk = manifest.entries.find(({ name }) => name === file)
  if (disk?.type !== 'file' || disk.map === null) throw new Error(`no ${file}`)
  return [...readRoot(history.share, disk.map).values()].flatMap((place) => {
    const page = readPage(history.share, place)
    return Array.from({ length: BLOCKS_PER_MAP_PAGE }, (_, index) => page.place(index) ?? []).flat(1)
  })
}

/** A cache that has these blocks of the newest generation's disk, and its other file when there are any. */
function cacheOf(history: History, blocks: readonly number[]): CachedBytes {
  const directory = temporaryDirectory('cache')
  fs.mkdirSync(path.join(directory, VM, '0'), { recursive: true })
  const addRegion = (name: string, content: Buffer, places: readonly BlockPlace[], wanted: readonly number[]): void => {
    const fd = fs.openSync(path.join(directory, VM, '0', name), 'w+')
    const digests = emptyDigests()
    for (const block of wanted) {
      places[block]?.digest.copy(digestAt(digests, block))
      fs.writeSync(fd, content, block * BLOCK_BYTES, BLOCK_BYTES, block * BLOCK_BYTES)
    }
    writeFooter(fd, digests)
    fs.closeSync(fd)
  }
  addRegion('2-0', history.contents.at(-1) ?? nothing, placesOf(history), blocks)
  const config = Buffer.concat([Buffer.from('one')], BLOCK_BYTES)
  addRegion('3-0', config, placesOf(history, 'config'), blocks.length > 0 ? [0] : [])
  return new CachedBytes(directory, VM)
}

/** The chunk with the first generation's blocks, of which a VM with only the newest generation uses some. */
async function withGarbage(t: ExecutionContext, generations: number): Promise<[History, string, BlockPlace]> {
  const history = await historyOf(t, generations)
  history.prune()
  const [first] = placesOf(history)
  if (first === undefined) throw new Error('no block')
  return [history, history.share.pathOf(chunkName(first.chunk)), first]
}

function flip(file: string, at: number): void {
  const bytes = fs.readFileSync(file)
  bytes[at] = (bytes[at] ?? 0) ^ 1
  fs.writeFileSync(file, bytes)
}

async function badPaths(history: History): Promise<string[]> {
  return (await history.check()).bad.map((object) => object.path)
}

const ALL = [0, 1, 2, 3, 4, 5]

for (const [generations, unused] of [
  [2, 'a piece in the middle'],
  [6, 'all pieces but the first, its tail too']
] as const) {
  test(`a chunk of which nobody uses ${unused}, is put back byte for byte when a used one is damaged`, async (t) => {
    const [history, file, first] = await withGarbage(t, generations)
    const original = fs.readFileSync(file)
    flip(file, first.offset + 100)
    t.deepEqual(await badPaths(history), [file])
    t.deepEqual(repairChunks(history.share, [file], cacheOf(history, ALL)), { repaired: [file], failed: [] })
    t.true(fs.readFileSync(file).equals(original))
    t.deepEqual(await badPaths(history), [])
  })
}

test('bytes behind the end of a chunk are cut off when it is put back', async (t) => {
  const history = await historyOf(t, 1)
  const [first] = placesOf(history)
  const file = history.share.pathOf(chunkName(first?.chunk ?? ''))
  const original = fs.readFileSync(file)
  flip(file, first?.offset ?? 0)
  fs.appendFileSync(file, 'not of it')
  t.deepEqual(repairChunks(history.share, [file], cacheOf(history, ALL)), { repaired: [file], failed: [] })
  t.true(fs.readFileSync(file).equals(original))
})

test('what cannot be put back as it was is left: the cached blocks are in a generation with the same content', async (t) => {
  for (const damage of [
    (file: string) => fs.rmSync(file),
    (file: string) => fs.truncateSync(file, 1000),
    (file: string) => fs.writeFileSync(file, Buffer.alloc(fs.statSync(file).size, 7))
  ]) {
    const history = await historyOf(t, 4)
    history.prune({ keep: 2 })
    const chunk = placesOf(history)[0]?.chunk ?? ''
    const file = history.share.pathOf(chunkName(chunk))
    const cached = cacheOf(history, ALL)
    damage(file)
    const { repaired, failed } = repairChunks(history.share, [file], cached)
    t.deepEqual([repaired, failed.length], [[], 1])
    const moved = moveOutOfDamaged({ share: history.share, chunks: new Set([chunk]), cached, client: CLIENT })
    t.deepEqual('why' in moved ? moved.why : moved.number, toGeneration(5))
    t.true((await history.contentOf(5)).equals(history.contents.at(-1) ?? nothing))
    const suffers = (await history.check()).bad.flatMap((object) => object.suffers.map(({ generation }) => generation))
    t.deepEqual([...new Set(suffers)].sort(), ['3', '4'], 'manifests never change')
    t.deepEqual([...history.prune().removed].sort(), ['3', '4'])
    t.deepEqual(await badPaths(history), [])
    await history.next()
    t.true((await history.contentOf(6)).equals(history.contents.at(-1) ?? nothing))
  }
})

test('what the cache lacks stays where it is, and without anything to mend nothing is published', async (t) => {
  const history = await historyOf(t, 4)
  history.prune()
  const places = placesOf(history)
  const chunk = places[0]?.chunk ?? ''
  const file = history.share.pathOf(chunkName(chunk))
  const moveOut = (cached: CachedBytes): ReturnType<typeof moveOutOfDamaged> =>
    moveOutOfDamaged({ share: history.share, chunks: new Set([chunk]), cached, client: CLIENT })
  const cached = cacheOf(history, [0, 1])
  const none = cacheOf(history, [])
  fs.rmSync(file)
  const lacking = moveOut(none)
  t.regex('why' in lacking ? lacking.why : '', /has nothing of what is damaged/)
  t.is(readNewestGeneration(history.share).number, toGeneration(4))
  const moved = moveOut(cached)
  t.is('why' in moved ? moved.why : moved.number, toGeneration(5))
  const { bad } = await history.check()
  const suffers = bad[0]?.suffers.filter(({ generation, path: name }) => generation === '5' && name === 'disk')
  t.deepEqual(
    suffers?.map(({ from, to }) => [from, to]),
    [[4 * BLOCK_BYTES, 6 * BLOCK_BYTES]],
    'the others are in chunks of their own'
  )
  t.true('why' in moveOut(cached))
})

test('nobody publishes beside the holder of the lease', async (t) => {
  const history = await historyOf(t, 1)
  const chunk = placesOf(history)[0]?.chunk ?? ''
  const cached = cacheOf(history, ALL)
  fs.rmSync(history.share.pathOf(chunkName(chunk)))
  acquireLease(history.share, OTHER)
  const moved = moveOutOfDamaged({ share: history.share, chunks: new Set([chunk]), cached, client: CLIENT })
  t.regex('why' in moved ? moved.why : '', /there/)
  t.is(readNewestGeneration(history.share).number, toGeneration(1))
})
