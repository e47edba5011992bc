/** `check --repair` of manifests: the very one comes back, or nothing is changed. */
import fs from 'node:fs'
import path from 'node:path'
import test, { type ExecutionContext } from 'ava'
import { toGeneration } from '../../src/base/units.js'
import { generationName, publishBranch, readGeneration, readNewestGeneration } from '../../src/format/generations.js'
import { type ManifestCopies, repairManifests } from '../../src/history/repair-manifests.js'
import { acquireLease, releaseLease } from '../../src/share/lease.js'
import { type History, historyOf, OTHER } from '../support/history-bed.js'

interface Fixture {
  readonly history: History
  readonly share: History['share']
  readonly directory: (number: number) => string
  /** bytes of both files of every generation, as they were */
  readonly before: ReadonlyMap<string, Buffer>
  readonly copies: Map<string, Buffer>
  readonly repair: (needed?: ManifestCopies['needed']) => ReturnType<typeof repairManifests>
}

async function fixture(t: ExecutionContext, generations: number): Promise<Fixture> {
  const history = await historyOf(t, generations)
  const { share } = history
  const directory = (number: number): string => share.pathOf(generationName(number))
  const copies = new Map<string, Buffer>()
  for (let number = 1; number <= generations; number++) {
    const { digest } = readGeneration(share, toGeneration(number))
    copies.set(digest, fs.readFileSync(path.join(directory(number), 'manifest.json')))
  }
  const copyOf = (digest: string): Buffer | undefined => copies.get(digest)
  const repair: Fixture['repair'] = (needed = []) => repairManifests(share, { copyOf, needed })
  return { history, share, directory, before: filesOf(share.pathOf('generations')), copies, repair }
}

function filesOf(root: string): Map<string, Buffer> {
  const names = fs.readdirSync(root, { recursive: true, withFileTypes: true })
  const files = names.filter((entry) => entry.isFile()).map((entry) => path.join(entry.parentPath, entry.name))
  return new Map(files.sort().map((file) => [path.relative(root, file), fs.readFileSync(file)]))
}

function generationsOf({ share }: Fixture): Map<string, Buffer> {
  return filesOf(share.pathOf('generations'))
}

function flip(file: string, at: number): void {
  const bytes = fs.readFileSync(file)
  bytes[at] = (bytes[at] ?? 0) ^ 1
  fs.writeFileSync(file, bytes)
}

function referenceTo({ share }: Fixture, number: number): { generation: number; digest: string } {
  return { generation: number, digest: readGeneration(share, toGeneration(number)).digest }
}

test('whatever was lost or damaged of a generation comes back as it was', async (t) => {
  const bed = await fixture(t, 3)
  const manifest = (number: number): string => path.join(bed.directory(number), 'manifest.json')
  const digest = (number: number): string => path.join(bed.directory(number), 'manifest.sha256')
  const damages: ((number: number) => void)[] = [
    (number) => fs.rmSync(manifest(number)),
    (number) => flip(manifest(number), 100),
    (number) => fs.truncateSync(manifest(number), 0),
    (number) => fs.rmSync(digest(number)),
    (number) => flip(digest(number), 5),
    (number) => fs.truncateSync(digest(number), 0)
  ]
  for (const number of [1, 2, 3]) {
    for (const damage of damages) {
      damage(number)
      t.throws(() => readGeneration(bed.share, toGeneration(number)))
      t.deepEqual(bed.repair(), { repaired: [bed.directory(number)], failed: [] })
      t.deepEqual(generationsOf(bed), bed.before)
    }
  }
  t.deepEqual(bed.repair(), { repaired: [], failed: [] })
  t.deepEqual((await bed.history.check()).bad, [])
})

test('the newest generation is put back when nothing but the lease knows it; the next one follows it', async (t) => {
  const bed = await fixture(t, 3)
  fs.rmSync(bed.directory(3), { recursive: true })
  t.is(readNewestGeneration(bed.share).number, toGeneration(2))
  t.deepEqual(bed.repair(), { repaired: [bed.directory(3)], failed: [] })
  t.deepEqual(generationsOf(bed), bed.before)
  fs.rmSync(bed.share.pathOf('generations'), { recursive: true })
  t.deepEqual(bed.repair().repaired, [bed.directory(3)], 'also when it is the only one')
  await bed.history.next()
  t.is(readNewestGeneration(bed.share).number, toGeneration(4))
})

test('one that is whole again tells what the one before it has to be', async (t) => {
  const bed = await fixture(t, 3)
  for (const number of [1, 2, 3]) {
    for (const name of fs.readdirSync(bed.directory(number))) fs.truncateSync(path.join(bed.directory(number), name), 0)
  }
  t.deepEqual(bed.repair().repaired, [3, 2, 1].map(bed.directory))
  t.deepEqual(generationsOf(bed), bed.before)
})

test('an older generation of which nothing is left comes back for a session that needs it, and else not', async (t) => {
  const bed = await fixture(t, 3)
  const needed = [referenceTo(bed, 2)]
  fs.rmSync(bed.directory(2), { recursive: true })
  t.deepEqual(bed.repair(), { repaired: [], failed: [] })
  fs.mkdirSync(bed.directory(2))
  t.regex(bed.repair().failed[0]?.why ?? '', /may have been pruned/)
  t.deepEqual(fs.readdirSync(bed.directory(2)), [])
  t.deepEqual(bed.repair(needed), { repaired: [bed.directory(2)], failed: [] })
  fs.rmSync(bed.directory(2), { recursive: true })
  t.deepEqual(bed.repair(needed), { repaired: [bed.directory(2)], failed: [] })
  t.deepEqual(generationsOf(bed), bed.before)
})

test('a share that went back in time is not brought forward by what a session needs', async (t) => {
  const bed = await fixture(t, 3)
  const needed = [referenceTo(bed, 3)]
  const { digest } = readGeneration(bed.share, toGeneration(2))
  fs.rmSync(bed.directory(3), { recursive: true })
  fs.rmSync(bed.share.pathOf('leases'), { recursive: true })
  releaseLease(bed.share, acquireLease(bed.share, OTHER), { number: 2, digest })
  t.deepEqual(bed.repair(needed).repaired, [])
  t.is(bed.repair(needed).failed.length, 1)
  t.is(readNewestGeneration(bed.share).number, toGeneration(2))
})

test('a tombstone is never undone, not even a damaged one', async (t) => {
  const bed = await fixture(t, 3)
  const needed = [referenceTo(bed, 1)]
  bed.history.prune({ keep: 2 })
  const pruned = generationsOf(bed)
  t.deepEqual(bed.repair(needed), { repaired: [], failed: [] })
  fs.truncateSync(path.join(bed.directory(1), 'tombstone.json'), 10)
  t.regex(bed.repair(needed).failed[0]?.why ?? '', /never undone/)
  t.deepEqual([...generationsOf(bed).keys()], [...pruned.keys()])
})

test('without the right copy, or when what names it does not agree, nothing is changed', async (t) => {
  const bed = await fixture(t, 3)
  const whole = bed.copies.get(referenceTo(bed, 2).digest) ?? Buffer.alloc(0)
  const other = referenceTo(bed, 1).digest
  fs.rmSync(path.join(bed.directory(2), 'manifest.json'))
  const damaged = generationsOf(bed)
  const refused = (why: RegExp, needed: ManifestCopies['needed'] = []): void => {
    const { repaired, failed } = bed.repair(needed)
    t.deepEqual(repaired, [])
    t.regex(failed[0]?.why ?? '', why)
    t.deepEqual(generationsOf(bed), damaged)
  }
  refused(/does not agree/, [{ generation: 2, digest: other }])
  bed.copies.clear()
  refused(/no copy of the manifest/)
  fs.writeFileSync(path.join(bed.directory(2), 'manifest.sha256'), `${other}  manifest.json\n`)
  damaged.set('00000002/manifest.sha256', fs.readFileSync(path.join(bed.directory(2), 'manifest.sha256')))
  refused(/does not agree/)
  t.true(whole.length > 0)
})

test('what can be read is left alone, although others name another one', async (t) => {
  const bed = await fixture(t, 3)
  const needed = [{ generation: 2, digest: referenceTo(bed, 1).digest }]
  t.deepEqual(bed.repair(needed), { repaired: [], failed: [] })
  t.deepEqual(generationsOf(bed), bed.before)
})

test('a branch comes back when its manifest.sha256 is there', async (t) => {
  const bed = await fixture(t, 2)
  const { manifest } = readNewestGeneration(bed.share)
  const branch = publishBranch(bed.share, { ...manifest, session: 'de'.repeat(16) })
  const directory = bed.share.pathOf(`${generationName(2)}-${'de'.repeat(8)}`)
  const file = path.join(directory, 'manifest.json')
  const bytes = fs.readFileSync(file)
  bed.copies.set(branch.digest, bytes)
  fs.rmSync(file)
  t.deepEqual(bed.repair(), { repaired: [directory], failed: [] })
  t.deepEqual(fs.readFileSync(file), bytes)
})

test('a repair that the share stops at any step leaves a generation that can be repaired', async (t) => {
  const bed = await fixture(t, 2)
  const write = bed.share.write.bind(bed.share)
  for (const name of ['manifest.json', 'manifest.sha256']) {
    for (const file of fs.readdirSync(bed.directory(2))) fs.truncateSync(path.join(bed.directory(2), file), 0)
    bed.share.write = (given, bytes) => {
      if (given.endsWith(name)) throw Object.assign(new Error('no space'), { code: 'ENOSPC' })
      write(given, bytes)
    }
    t.deepEqual(bed.repair(), { repaired: [], failed: [{ path: bed.directory(2), why: 'no space' }] })
    bed.share.write = write
    t.deepEqual(bed.repair().repaired, [bed.directory(2)])
    t.deepEqual(generationsOf(bed), bed.before)
  }
})
