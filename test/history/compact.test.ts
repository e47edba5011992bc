/** Chunks that are mostly garbage: copied into dense ones by prune, and nothing is lost at any step. */
import fs from 'node:fs'
import test, { type ExecutionContext } from 'ava'
import { BLOCK_BYTES, toGeneration } from '../../src/base/units.js'
import { chunkName } from '../../src/format/chunk.js'
import { generationName, readGeneration, readNewestGeneration } from '../../src/format/generations.js'
import { ChunkUse } from '../../src/history/chunk-use.js'
import { prune, type Pruned } from '../../src/history/prune.js'
import { rootsOf } from '../../src/history/references.js'
import { createPin, createSessionPin } from '../../src/share/pin.js'
import { FaultyShare } from '../support/faulty-share.js'
import { CLIENT, type History, historyOf, OTHER } from '../support/history-bed.js'
import { Random } from '../support/random.js'

const GENERATIONS = 6
const nothing = Buffer.alloc(0)

/** A VM whose first chunk is mostly garbage when only the newest generation is kept. */
function sparseHistory(t: ExecutionContext): Promise<History> {
  return historyOf(t, GENERATIONS)
}

function pruneCompacting(history: History, options: Parameters<History['prune']>[0] = {}): Pruned {
  return history.prune({ compactBytesMin: 1, ...options })
}

async function showsNewest(history: History, generation: number): Promise<boolean> {
  return (await history.contentOf(generation)).equals(history.contents.at(-1) ?? nothing)
}

function shareBytes(history: History): number {
  return history.chunks().reduce((total, chunk) => total + fs.statSync(chunk).size, 0)
}

test('pieces of a chunk count once, however often and however partly they are used', (t) => {
  const use = new ChunkUse()
  t.is(use.usedBytes('aa'), 0)
  use.add({ chunk: 'aa', offset: 0, storedBytes: 1 })
  use.add({ chunk: 'aa', offset: 4000, storedBytes: 200 })
  use.add({ chunk: 'aa', offset: 16 * 1024 * 1024 - 1, storedBytes: 1 })
  use.add({ chunk: 'bb', offset: 0, storedBytes: 128 * 1024 })
  t.is(use.usedBytes('aa'), 3 * 4096)
  t.is(use.usedBytes('bb'), 128 * 1024)
  t.deepEqual([use.has('aa'), use.has('cc')], [true, false])
})

test('what is used of sparse chunks is copied, the same content is a generation of its own, and the next prune frees the space', async (t) => {
  const history = await sparseHistory(t)
  t.is(pruneCompacting(history, { yes: false }).compaction?.generation, undefined, 'a dry run only says so')
  t.is(readNewestGeneration(history.share).number, toGeneration(GENERATIONS))
  const first = pruneCompacting(history)
  t.is(first.compaction?.generation, GENERATIONS + 1)
  t.is(first.compaction?.why, undefined)
  const { manifest } = readNewestGeneration(history.share)
  t.true(manifest.compaction)
  t.is(manifest.parent?.generation, toGeneration(GENERATIONS))
  const before = readGeneration(history.share, toGeneration(GENERATIONS)).manifest
  const withoutMaps = (entries: typeof manifest.entries): unknown[] => entries.map((entry) => ({ ...entry, map: null }))
  t.deepEqual(withoutMaps(manifest.entries), withoutMaps(before.entries))
  for (const number of [GENERATIONS, GENERATIONS + 1]) t.true(await showsNewest(history, number))
  t.deepEqual((await history.check()).bad, [])
  const bytes = shareBytes(history)

  const second = pruneCompacting(history)
  t.deepEqual(second.removed, [String(GENERATIONS)])
  t.is(second.compaction, undefined, 'nothing is sparse any more')
  t.true(shareBytes(history) < bytes - BLOCK_BYTES)
  t.true(await showsNewest(history, GENERATIONS + 1))
  t.deepEqual((await history.check()).bad, [])
  await history.next()
  t.is(readNewestGeneration(history.share).manifest.compaction, undefined)
  t.true(await showsNewest(history, GENERATIONS + 2))
})

test('what was compacted does not count among those that are kept, but stays as long as it is pinned', async (t) => {
  const history = await sparseHistory(t)
  pruneCompacting(history, { keep: 1 })
  createPin(history.share, OTHER, GENERATIONS)
  await history.next()
  const { removed, kept } = history.prune({ keep: 2, graceMs: 60_000 })
  t.deepEqual(removed, [])
  t.deepEqual(
    kept.map(({ name }) => name),
    [String(GENERATIONS)]
  )
  fs.rmSync(history.share.pathOf('pins'), { recursive: true })
  t.deepEqual(history.prune({ keep: 2 }).removed, [String(GENERATIONS)])
  t.true((await history.contentOf(GENERATIONS + 1)).equals(history.contents.at(-2) ?? nothing))
})

test('nothing is compacted for little garbage, without space, from damaged chunks, or beside a session that is not published', async (t) => {
  const history = await sparseHistory(t)
  const newest = (): number => readNewestGeneration(history.share).number
  t.is(history.prune().compaction, undefined, 'less than a chunk of garbage')

  const freeBytes = history.share.freeBytes.bind(history.share)
  history.share.freeBytes = () => 1000
  t.regex(pruneCompacting(history).compaction?.why ?? '', /too full/)
  history.share.freeBytes = freeBytes

  createSessionPin(history.share, OTHER, 7, GENERATIONS)
  t.is(pruneCompacting(history).compaction, undefined)
  fs.rmSync(history.share.pathOf('pins'), { recursive: true })

  const chunks = history.chunks().sort((first, second) => fs.statSync(second).size - fs.statSync(first).size)
  const good = fs.readFileSync(chunks[0] ?? '')
  fs.writeFileSync(chunks[0] ?? '', Buffer.from(good.map((byte) => byte ^ 1)))
  t.regex(pruneCompacting(history).compaction?.why ?? '', /does not have its digest|cannot decode/)
  t.is(newest(), GENERATIONS)
  fs.writeFileSync(chunks[0] ?? '', good)
  t.is(pruneCompacting(history).compaction?.generation, GENERATIONS + 1)
  t.true(await showsNewest(history, GENERATIONS + 1))
})

test('map pages and roots leave sparse chunks, too', async (t) => {
  const history = await sparseHistory(t)
  const { compaction } = pruneCompacting(history)
  t.truthy(compaction?.generation)
  const after = readNewestGeneration(history.share)
  const roots = [...rootsOf([{ name: '', published: after }]).values()]
  t.true(roots.length > 0)
  for (const { place } of roots) t.truthy(history.share.size(chunkName(place.chunk)))
})

test('a compaction that fails at some call leaves a whole VM with the same content, and the next one ends the work', async (t) => {
  const { seed } = new Random()
  t.log(`seed ${String(seed)}`)
  const step = Number(process.env['ISRFS_PRUNE_STEP'] ?? 307)
  for (let call = 1 + (seed % step); ; call += step) {
    const history = await sparseHistory(t)
    const after = seed % 2 === 0
    const faulty = new FaultyShare(history.share.root, { call, errno: 'EIO', after })
    const options = { client: CLIENT, keep: 1, branches: [], graceMs: 0, yes: true, compactBytesMin: 1 }
    try {
      prune({ share: faulty.share, ...options })
    } catch (error) {
      t.true(error instanceof Error)
    }
    t.deepEqual((await history.check()).bad, [], `call ${String(call)}`)
    const newest = readNewestGeneration(history.share)
    t.true(await showsNewest(history, newest.number), `call ${String(call)}`)
    pruneCompacting(history)
    pruneCompacting(history)
    t.is(readNewestGeneration(history.share).number, toGeneration(GENERATIONS + 1))
    t.deepEqual(fs.readdirSync(history.share.pathOf(generationName(GENERATIONS))), ['tombstone.json'])
    t.deepEqual((await history.check()).bad, [], `call ${String(call)}`)
    t.true(await showsNewest(history, GENERATIONS + 1))
    if (!faulty.wasReached) break
  }
})
