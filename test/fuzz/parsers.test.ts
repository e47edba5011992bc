/**
 * Parsers of everything that somebody else may have written, fed with damaged and made-up bytes: each answers with a
 * value or with the error for damage, never with anything else. ISRFS_FUZZ_RUNS sets the number of cases for each
 * parser (2,000 here; the long run takes 100,000 and more), ISRFS_TEST_SEED repeats a run.
 */
import fs from 'node:fs'
import path from 'node:path'
import fc from 'fast-check'
import test from 'ava'
import { sha256, sha256Hex } from '../../src/base/digest.js'
import { IntegrityError } from '../../src/base/errors.js'
import { BLOCK_BYTES, toGeneration } from '../../src/base/units.js'
import { decodeBlock, decodeObject, encodeBlock, encodeObject } from '../../src/format/block-codec.js'
import { decodeMapRoot, encodeMapPage, encodeMapRoot, MapPage } from '../../src/format/block-map.js'
import { bury, generationName, readNewestGeneration } from '../../src/format/generations.js'
import { parseManifest } from '../../src/format/manifest.js'
import type { BlockPlace } from '../../src/format/place.js'
import { encodeProfile, parseProfile } from '../../src/format/profile.js'
import { readTombstone } from '../../src/format/tombstone.js'
import { readVmDescriptor } from '../../src/format/vm.js'
import { DamageError } from '../../src/session/bytes.js'
import { readJournal } from '../../src/session/journal.js'
import { decodeSnapshot, encodeSnapshot } from '../../src/session/snapshot.js'
import { readLease } from '../../src/share/lease.js'
import { readPins } from '../../src/share/pin.js'
import { Share } from '../../src/share/share.js'
import { temporaryDirectory } from '../support/make-vm.js'
import { Random } from '../support/random.js'
import { base, create } from '../support/session-bed.js'

const RUNS = Number(process.env['ISRFS_FUZZ_RUNS'] ?? 1000)
const random = new Random()
const SALT = 7

/** One thing that was done to good bytes. */
const change = fc.oneof(
  fc.record({ kind: fc.constant('flip' as const), at: fc.nat(), bit: fc.nat(7) }),
  fc.record({ kind: fc.constant('set' as const), at: fc.nat(), bytes: fc.uint8Array({ minLength: 1, maxLength: 8 }) }),
  fc.record({ kind: fc.constant('cut' as const), at: fc.nat() }),
  fc.record({
    kind: fc.constant('insert' as const),
    at: fc.nat(),
    bytes: fc.uint8Array({ minLength: 1, maxLength: 64 })
  })
)

function changed(
  good: Buffer,
  changes: readonly (typeof change extends fc.Arbitrary<infer Change> ? Change : never)[]
): Buffer {
  let bytes = Buffer.from(good)
  for (const each of changes) {
    const at = bytes.length === 0 ? 0 : each.at % bytes.length
    if (each.kind === 'flip') bytes[at] = (bytes[at] ?? 0) ^ (1 << each.bit)
    else if (each.kind === 'cut') bytes = bytes.subarray(0, at)
    else if (each.kind === 'set') bytes.set(each.bytes.subarray(0, bytes.length - at), at)
    else bytes = Buffer.concat([bytes.subarray(0, at), each.bytes, bytes.subarray(at)])
  }
  return bytes
}

function survives(good: Buffer, parse: (bytes: Buffer) => unknown): void {
  parse(good) // what is not damaged is read
  const bytes = fc.oneof(
    { weight: 9, arbitrary: fc.array(change, { minLength: 1, maxLength: 4 }).map((changes) => changed(good, changes)) },
    { weight: 1, arbitrary: fc.uint8Array({ maxLength: 512 }).map((made) => Buffer.from(made)) }
  )
  fc.assert(
    fc.property(bytes, (given) => {
      try {
        parse(given)
      } catch (error) {
        if (!(error instanceof IntegrityError) && !(error instanceof DamageError)) throw error
      }
    }),
    { numRuns: RUNS, seed: random.seed }
  )
}

/** A copy of the fixture in which one file is replaced by the given bytes, then read. */
function fileOf(name: string, read: (share: Share) => unknown): { good: Buffer; parse: (bytes: Buffer) => unknown } {
  const root = path.join(temporaryDirectory('fuzz'), 'vm')
  fs.cpSync('test/fixtures/vm-v1', root, { recursive: true })
  const share = new Share(root)
  if (name.endsWith('tombstone.json')) {
    bury(share, generationName(1), { generation: 1, digest: 'ab'.repeat(32), session: 'cd'.repeat(16), parent: null })
  }
  const file = share.pathOf(name)
  const parse = (bytes: Buffer): unknown => {
    fs.writeFileSync(file, bytes)
    return read(new Share(root)) // one that has read vm.json expects that VM
  }
  return { good: fs.readFileSync(file), parse }
}

const place = (index: number): BlockPlace => ({
  encoding: index % 2 === 0 ? 'raw' : 'zstd',
  chunk: random.bytes(32).toString('hex'),
  offset: index * 1000,
  storedBytes: 900,
  digest: random.bytes(32)
})

const manifest = fs.readFileSync('test/fixtures/vm-v1/generations/00000002/manifest.json')
const page = encodeMapPage([place(0), undefined, place(2), place(3)]) ?? Buffer.alloc(0)
const objectPlace = {
  encoding: 'raw',
  chunk: 'ab'.repeat(32),
  offset: 5,
  storedBytes: 100,
  plainBytes: 100,
  digest: 'cd'.repeat(32)
} as const
const block = Buffer.concat([Buffer.from('text '.repeat(5000)), random.bytes(3000)], BLOCK_BYTES)
const encodedBlock = encodeBlock(block)
const object = encodeObject(page)

const cases: Readonly<Record<string, () => { good: Buffer; parse: (bytes: Buffer) => unknown }>> = {
  'a manifest': () => ({ good: manifest, parse: (bytes) => parseManifest(bytes, 'it') }),
  'a manifest with hard links': () => ({
    good: fs.readFileSync('test/fixtures/manifest-v2.json'),
    parse: (bytes) => parseManifest(bytes, 'it')
  }),
  'a map page': () => ({
    good: page,
    parse: (bytes) => {
      const read = new MapPage(bytes)
      for (let index = 0; index < 1024; index++) read.place(index)
    }
  }),
  'a map root': () => ({
    good: encodeMapRoot(
      new Map([
        [3, objectPlace],
        [9, objectPlace]
      ])
    ),
    parse: decodeMapRoot
  }),
  'a block': () => ({
    good: encodedBlock.bytes,
    parse: (bytes) => decodeBlock(bytes, { ...place(1), encoding: 'zstd', digest: sha256(block) })
  }),
  'a map object': () => ({
    good: object.bytes,
    parse: (bytes) =>
      decodeObject(bytes, {
        ...objectPlace,
        encoding: object.encoding,
        plainBytes: page.length,
        digest: sha256Hex(page)
      })
  }),
  'vm.json': () => fileOf('vm.json', readVmDescriptor),
  'a generation': () => fileOf('generations/00000002/manifest.json', readNewestGeneration),
  'a lease': () => fileOf('leases/00000001/lease.json', readLease),
  'a pin': () => fileOf('pins/c0c0c0c0c0c0c0c0-00112233/pin.json', readPins),
  'a tombstone': () =>
    fileOf('generations/00000001/tombstone.json', (share) => readTombstone(share, generationName(toGeneration(1)))),
  'a journal': () => {
    const { directory, session, file } = create()
    for (let index = 0; index < 5; index++) session.write(file, random.bytes(4096), index * 4096)
    session.record({ kind: 'link', parent: file.parent, name: 'other', inode: file.id, hardLink: true })
    const { salt } = JSON.parse(fs.readFileSync(path.join(directory, 'session.json'), 'utf8')) as { salt: number }
    const target = temporaryDirectory('journal')
    const parse = (bytes: Buffer): unknown => {
      fs.writeFileSync(path.join(target, 'journal-0'), bytes)
      return readJournal(target, 0, salt, undefined)
    }
    return { good: fs.readFileSync(path.join(directory, 'journal-0')), parse }
  },
  'a snapshot': () => ({
    good: encodeSnapshot(create().session.namespace, SALT),
    parse: (bytes) => decodeSnapshot(bytes, SALT, base)
  }),
  'a snapshot with hard links': () => {
    const { session, file } = create()
    session.record({ kind: 'link', parent: file.parent, name: 'other', inode: file.id, hardLink: true })
    return { good: encodeSnapshot(session.namespace, SALT), parse: (bytes) => decodeSnapshot(bytes, SALT, base) }
  }
}

for (const [name, make] of Object.entries(cases)) {
  test(`${name}: damaged or made up, it is read or refused as damage`, (t) => {
    t.log(`seed ${String(random.seed)}`)
    const { good, parse } = make()
    t.notThrows(() => survives(good, parse))
  })
}

test('profiles', (t) => {
  const runs = [
    { inode: 2, first: 7, count: 3, missed: 0 },
    { inode: 5, first: 0, count: 900, missed: 1 }
  ]
  survives(encodeProfile({ runs }), (bytes) => parseProfile(bytes, 'a profile'))
  t.pass()
})
