/** Looking after a VM's generations: diff, rollback, check, prune, over real directories. */
import fs from 'node:fs'
import path from 'node:path'
import test from 'ava'
import { FailedError, IntegrityError, LeaseHeldError, UsageError } from '../../src/base/errors.js'
import { BLOCK_BYTES, toGeneration } from '../../src/base/units.js'
import {
  bury,
  findSession,
  generationName,
  publishGeneration,
  readGeneration,
  readNewestGeneration,
  recordOf
} from '../../src/format/generations.js'
import { diffGenerations } from '../../src/history/diff.js'
import { prune } from '../../src/history/prune.js'
import { rollBack } from '../../src/history/rollback.js'
import { acquireLease } from '../../src/share/lease.js'
import { beatPin, createPin, createSessionPin } from '../../src/share/pin.js'
import { FaultyShare } from '../support/faulty-share.js'
import { CLIENT, historyOf, OTHER } from '../support/history-bed.js'
import { Random } from '../support/random.js'

test('diff names files and counts changed blocks, from maps alone', async (t) => {
  const history = await historyOf(t, 2)
  fs.writeFileSync(path.join(history.source, 'new'), 'x')
  fs.rmSync(path.join(history.source, 'config'))
  await history.next()
  const read = (number: number): ReturnType<typeof readGeneration> =>
    readGeneration(history.share, toGeneration(number))
  const differences = diffGenerations(history.share, read(1), read(3)).filter(({ change }) => change !== 'attributes')
  t.deepEqual(differences, [
    { path: '/config', change: 'removed', changedBytes: BLOCK_BYTES },
    { path: '/disk', change: 'changed', changedBytes: 2 * BLOCK_BYTES },
    { path: '/new', change: 'added', changedBytes: BLOCK_BYTES }
  ])
  t.deepEqual(diffGenerations(history.share, read(2), read(2)), [])
})

test('directories that lie in each other without end take no memory without end', async (t) => {
  const history = await historyOf(t, 1)
  const { manifest } = readNewestGeneration(history.share)
  const [root, ...others] = manifest.entries
  const file = others.find((entry) => entry.type === 'file')
  if (root === undefined || file === undefined) throw new Error('the generation has no file')
  const depth = 100_000
  const first = manifest.nextInode
  const chain = Array.from({ length: depth }, (_, index) => ({
    ...root,
    inode: first + index,
    parent: index === 0 ? root.inode : first + index - 1,
    name: 'd'
  }))
  const deep = { ...file, inode: first + depth, parent: first + depth - 1 }
  publishGeneration(history.share, {
    ...manifest,
    generation: 2,
    nextInode: first + depth + 1,
    entries: [...manifest.entries, ...chain, deep]
  })
  const [before, after] = [1, 2].map((number) => readGeneration(history.share, toGeneration(number)))
  if (before === undefined || after === undefined) throw new Error('not published')
  t.throws(() => diffGenerations(history.share, before, after), { instanceOf: FailedError, message: /too deep/ })
  fs.rmSync(history.share.pathOf('chunks'), { recursive: true })
  const { bad } = await history.check()
  t.true(bad.flatMap(({ suffers }) => suffers).every(({ path: name }) => name.length < 5000))
})

test('a rollback publishes old content as the newest generation, under the lease, and sends nothing', async (t) => {
  const history = await historyOf(t, 3)
  const before = history.chunks()
  const source = readGeneration(history.share, toGeneration(1))
  const options = { share: history.share, name: '1', source, client: CLIENT, acceptMissing: false }
  const published = rollBack(options)
  t.is(published?.number, toGeneration(4))
  t.is(published?.manifest.restores, '1')
  t.true((await history.contentOf(4)).equals(history.contents[0] ?? Buffer.alloc(0)))
  t.true((await history.contentOf(3)).equals(history.contents[2] ?? Buffer.alloc(0)), 'what was the newest stays')
  t.deepEqual(history.chunks(), before)
  acquireLease(history.share, OTHER)
  t.throws(() => rollBack(options), { instanceOf: LeaseHeldError })
})

test('a whole VM passes the check; a flipped bit, a cut and a missing chunk are named with all that suffers', async (t) => {
  const history = await historyOf(t, 2)
  t.deepEqual((await history.check()).bad, [])
  const largest = history.chunks().sort((first, second) => fs.statSync(second).size - fs.statSync(first).size)[0] ?? ''
  const good = fs.readFileSync(largest)
  const flipped = Buffer.from(good)
  const at = 3 * BLOCK_BYTES + 500 // the small file's block lies before those of the disk
  flipped[at] = (flipped[at] ?? 0) ^ 1
  fs.writeFileSync(largest, flipped)
  t.deepEqual((await history.check(false)).bad, [], 'structure alone does not read blocks')
  const { bad } = await history.check()
  t.is(bad.length, 1)
  t.is(bad[0]?.path, largest)
  const range = { path: 'disk', from: 3 * BLOCK_BYTES, to: 4 * BLOCK_BYTES }
  t.deepEqual(bad[0]?.suffers, [
    { generation: '1', ...range },
    { generation: '2', ...range }
  ])
  fs.writeFileSync(largest, good.subarray(0, 5 * BLOCK_BYTES + 500))
  t.is((await history.check(false)).bad[0]?.suffers[0]?.from, 5 * BLOCK_BYTES)
  fs.rmSync(largest)
  t.regex((await history.check(false)).bad[0]?.why ?? '', /missing/)
  fs.writeFileSync(largest, good)
  fs.writeFileSync(history.share.pathOf('generations/00000001/manifest.json'), '{}')
  t.regex((await history.check(false)).bad[0]?.why ?? '', /digest/)
})

test('prune leaves tombstones, keeps what is kept whole, and deletes chunks only after their time in the trash', async (t) => {
  const history = await historyOf(t, 4)
  const session = readGeneration(history.share, toGeneration(2)).manifest.session
  t.deepEqual(history.prune({ yes: false, keep: 2 }).removed, ['1', '2'])
  t.is((await history.check()).generations, 4, 'a dry run changes nothing')
  const chunks = history.chunks().length
  const pruned = history.prune({ keep: 2 })
  t.deepEqual(pruned.removed, ['1', '2'])
  t.true(pruned.trashedChunks > 0)
  t.is(history.chunks().length, chunks - pruned.trashedChunks)
  t.deepEqual((await history.check()).bad, [])
  for (const number of [3, 4])
    t.true((await history.contentOf(number)).equals(history.contents[number - 1] ?? Buffer.alloc(0)))
  t.throws(() => readGeneration(history.share, toGeneration(1)), { message: /was pruned/ })
  t.is(findSession(history.share, session, 0)?.name, '2', 'a pruned session is still known')
  t.is(history.prune({ keep: 2 }).removed.length, 0)
  t.deepEqual(fs.readdirSync(history.share.pathOf('trash')), [])
  await history.next()
  t.is(readNewestGeneration(history.share).number, toGeneration(5), 'numbers are never used again')
})

test('prune respects pins and sessions whose lease was broken, and is refused while somebody else has the lease', async (t) => {
  const history = await historyOf(t, 4)
  createPin(history.share, OTHER, 1)
  const kept = history.prune({ graceMs: 60_000 })
  t.deepEqual(
    kept.kept.map(({ name }) => name),
    ['1']
  )
  t.true((await history.contentOf(1)).equals(history.contents[0] ?? Buffer.alloc(0)))
  const { name } = createSessionPin(history.share, OTHER, 7, 4)
  const stray = history.share.pathOf(`chunks/ff/${'f'.repeat(64)}`)
  fs.mkdirSync(path.dirname(stray), { recursive: true })
  fs.writeFileSync(stray, 'sent by a session that is not published yet')
  for (const yes of [false, true]) {
    const { trashedChunks, heldBack } = history.prune({ graceMs: 0, yes })
    t.is(trashedChunks, 0)
    t.deepEqual(
      heldBack.map(({ path: pin }) => pin),
      [history.share.pathOf(name)]
    )
    t.regex(heldBack[0]?.why ?? '', /^there may have changes .* since 20\d\d-.*: rm -r \/.*-lease7$/)
  }
  t.true(fs.existsSync(stray))
  acquireLease(history.share, OTHER)
  t.throws(() => history.prune(), { instanceOf: LeaseHeldError })
})

test('a pin whose beats come counts whatever the grace; of one that was silent for long only a longer grace does', async (t) => {
  const history = await historyOf(t, 3)
  const { share } = history
  const { name } = createPin(share, OTHER, 1)
  const silentFor = (durationMs: number): void => {
    const time = new Date(Date.now() - durationMs)
    for (const file of fs.readdirSync(share.pathOf(name))) fs.utimesSync(share.pathOf(`${name}/${file}`), time, time)
    fs.utimesSync(share.pathOf(name), time, time)
  }
  const removed = (graceMs: number): readonly string[] => history.prune({ graceMs, yes: false }).removed
  t.deepEqual(removed(0), ['2'], 'no beat yet')
  beatPin(share, { name }, 1)
  silentFor(30_000)
  t.deepEqual(removed(0), ['2'], 'some beats are late')
  t.deepEqual(history.prune().removed, ['2'])
  history.prune()
  t.true((await history.contentOf(1)).equals(history.contents[0] ?? Buffer.alloc(0)))
  silentFor(3_600_000)
  t.deepEqual(removed(7_200_000), [])
  t.deepEqual(removed(0), ['1'])
})

test('nothing is removed from a damaged VM', async (t) => {
  const history = await historyOf(t, 3)
  fs.writeFileSync(history.share.pathOf('generations/00000002/manifest.json'), '{}')
  const before = history.chunks()
  t.throws(() => history.prune(), { instanceOf: IntegrityError, message: /nothing is removed/ })
  t.deepEqual(history.chunks(), before)
})

test('a prune that fails at some call leaves a VM in which all that is kept is whole, and the next one ends the work', async (t) => {
  const { seed } = new Random()
  t.log(`seed ${String(seed)}`)
  const step = Number(process.env['ISRFS_PRUNE_STEP'] ?? 97)
  for (let call = 1 + (seed % step); ; call += step) {
    const history = await historyOf(t, 3)
    const faulty = new FaultyShare(history.share.root, { call, errno: 'EIO' })
    try {
      prune({ share: faulty.share, client: CLIENT, keep: 1, branches: [], graceMs: 0, yes: true })
    } catch (error) {
      t.true(error instanceof Error)
    }
    t.deepEqual((await history.check()).bad, [], `call ${String(call)}`)
    history.prune()
    t.true((await history.contentOf(3)).equals(history.contents[2] ?? Buffer.alloc(0)))
    if (!faulty.wasReached) break
  }
})

test('a damaged generation that a person gives up becomes a tombstone, and prune goes on', async (t) => {
  const damages: ((file: (name: string) => string) => void)[] = [
    (file) => fs.writeFileSync(file('manifest.json'), '{}'),
    (file) => fs.rmSync(file('manifest.sha256')),
    (file) => fs.writeFileSync(file('tombstone.json'), 'junk')
  ]
  for (const damage of damages) {
    const history = await historyOf(t, 3)
    damage((name) => history.share.pathOf(`${generationName(2)}/${name}`))
    const refusal = t.throws(() => history.prune({ keep: 3 }), { instanceOf: IntegrityError })
    t.regex(refusal.hint ?? '', /--give-up 2/)
    t.throws(() => history.prune({ giveUp: ['2', '3'] }), { instanceOf: UsageError, message: /3 is no damaged/ })
    t.deepEqual(history.prune({ keep: 3, giveUp: ['2'], yes: false }).removed, ['2'])
    t.deepEqual(history.prune({ keep: 3, giveUp: ['2'] }).removed, ['2'])
    t.deepEqual(fs.readdirSync(history.share.pathOf(generationName(2))), ['tombstone.json'])
    for (const number of [1, 3]) {
      t.true((await history.contentOf(number)).equals(history.contents[number - 1] ?? Buffer.alloc(0)))
    }
    t.deepEqual((await history.check()).bad, [])
  }
})

test('what somebody has put between the files of a VM does not stop a prune', async (t) => {
  const history = await historyOf(t, 2)
  for (const name of [
    'generations/.DS_Store',
    'generations/x/y',
    'chunks/notes',
    'chunks/zz/x',
    'pins/notes',
    'trash/x',
    'x'
  ]) {
    fs.mkdirSync(path.dirname(history.share.pathOf(name)), { recursive: true })
    fs.writeFileSync(history.share.pathOf(name), 'not ours')
  }
  t.deepEqual(history.prune().removed, ['1'])
  t.deepEqual((await history.check()).bad, [])
  t.true(fs.existsSync(history.share.pathOf('chunks/zz/x')), 'and stays')
})

test('chunks of a generation that was pinned while it was buried stay', async (t) => {
  const history = await historyOf(t, 3)
  const write = history.share.write.bind(history.share)
  history.share.write = (name, bytes) => {
    if (name.startsWith(generationName(2))) createPin(history.share, OTHER, 2)
    write(name, bytes)
  }
  const chunks = history.chunks()
  for (const chunk of chunks) fs.utimesSync(chunk, 1, 1)
  const { removed, trashedChunks } = history.prune({ graceMs: 3_600_000 })
  t.deepEqual([removed, trashedChunks], [['1', '2'], 0])
  t.is(history.prune({ graceMs: 3_600_000 }).trashedChunks, 0)
  t.deepEqual(history.chunks(), chunks)
  fs.rmSync(history.share.pathOf('pins'), { recursive: true })
  t.true(history.prune({ graceMs: 3_600_000 }).trashedChunks > 0)
})

test('a burial that stopped in the middle counts as done, and is ended by the next prune', async (t) => {
  const history = await historyOf(t, 2)
  const first = readGeneration(history.share, toGeneration(1))
  const manifest = fs.readFileSync(history.share.pathOf(`${generationName(1)}/manifest.json`))
  bury(history.share, generationName(1), recordOf(first))
  fs.writeFileSync(history.share.pathOf(`${generationName(1)}/manifest.json`), manifest)
  t.throws(() => readGeneration(history.share, toGeneration(1)), { message: /was pruned/ })
  history.prune()
  t.deepEqual(fs.readdirSync(history.share.pathOf(generationName(1))), ['tombstone.json'])
})
