import { randomBytes } from 'node:crypto'
import fs from 'node:fs'
import path from 'node:path'
import test from 'ava'
import { sha256 } from '../../src/base/digest.js'
import { FailedError, IntegrityError } from '../../src/base/errors.js'
import { BLOCK_BYTES, PAGE_BYTES, REGION_BYTES } from '../../src/base/units.js'
import { createGate, type Landing } from '../../src/cache/landing.js'
import { CommitPool } from '../../src/commit/commit-pool.js'
import { commitTasks } from '../../src/commit/commit-tasks.js'
import { type BlockResult, type BlockSource, encodeUnit } from '../../src/commit/encode.js'
import { OpenFiles } from '../../src/commit/encode-files.js'
import { assembleBlock } from '../../src/commit/encode-source.js'
import { chunkName } from '../../src/format/chunk.js'
import type { BlockPlace } from '../../src/format/place.js'
import { nodeFileSystem } from '../../src/share/file-system.js'
import { Share } from '../../src/share/share.js'
import { temporaryDirectory } from '../support/make-vm.js'

interface Bed {
  readonly root: string
  readonly share: Share
  /** stores a block and returns where it lies */
  readonly store: (bytes: Buffer) => BlockPlace
  readonly file: (name: string, bytes: Buffer) => string
}

function makeBed(t: { teardown: (action: () => void) => void }): Bed {
  const root = temporaryDirectory('encode')
  t.teardown(() => fs.rmSync(root, { recursive: true }))
  const share = new Share(path.join(root, 'vm'))
  fs.mkdirSync(share.root, { recursive: true })
  fs.writeFileSync(share.pathOf('vm.json'), '{}') // a share without it would be away, not damaged
  const file = (name: string, bytes: Buffer): string => {
    fs.writeFileSync(path.join(root, name), bytes)
    return path.join(root, name)
  }
  let stored = 0
  const store = (bytes: Buffer): BlockPlace => {
    const source = file(`stored-${stored++}`, bytes)
    return placeOf(encodeUnit(share, { blocks: [whole(source)] }).results[0])
  }
  return { root, share, store, file }
}

function whole(source: string): BlockSource {
  return { kind: 'file', parts: [{ path: source, offset: 0, lengthBytes: fs.statSync(source).size }] }
}

function placeOf(result: BlockResult | undefined): BlockPlace {
  if (result?.state !== 'placed') throw new Error(`${result?.state ?? 'no'} result instead of a place`)
  return result.place
}

type Layers = Extract<BlockSource, { kind: 'layers' }>

function layers(changes: Partial<Layers>): Layers {
  return {
    kind: 'layers',
    session: null,
    sessionOffset: 0,
    valid: [],
    zeroPages: [],
    baseBytesMax: BLOCK_BYTES,
    cachePath: null,
    cacheOffset: 0,
    base: undefined,
    baseIsNew: false,
    ...changes
  }
}

function assemble(bed: Bed, source: BlockSource): Buffer {
  const files = new OpenFiles()
  try {
    return assembleBlock(bed.share, source, files)
  } finally {
    files.close()
  }
}

function page(bytes: Buffer, index: number): Buffer {
  return bytes.subarray(index * PAGE_BYTES, (index + 1) * PAGE_BYTES)
}

test('session pages lie over punched pages over the base, which ends at its limit', (t) => {
  const bed = makeBed(t)
  const base = randomBytes(BLOCK_BYTES)
  const session = randomBytes(2 * BLOCK_BYTES)
  const source = layers({
    session: bed.file('session', session),
    sessionOffset: BLOCK_BYTES,
    valid: [3, 2, 7],
    zeroPages: [5, 7],
    baseBytesMax: 10 * PAGE_BYTES + 100,
    base: bed.store(base)
  })
  const expected = Buffer.alloc(BLOCK_BYTES)
  base.copy(expected, 0, 0, 10 * PAGE_BYTES + 100)
  page(expected, 5).fill(0)
  for (const index of [2, 3, 7]) page(session, 32 + index).copy(page(expected, index))
  const plain = assemble(bed, source)
  t.true(plain.equals(expected))
})

test('the cache is asked first, and believed only when its digest is right', (t) => {
  const bed = makeBed(t)
  const base = randomBytes(BLOCK_BYTES)
  const place = bed.store(base)
  const cached = bed.file('cache', Buffer.concat([Buffer.alloc(BLOCK_BYTES), base]))
  const read = (cacheOffset: number): Buffer => assemble(bed, layers({ base: place, cachePath: cached, cacheOffset }))
  t.true(read(0).equals(base), 'wrong bytes in the cache: the share has them')
  fs.rmSync(bed.share.pathOf(chunkName(place.chunk)))
  t.true(read(BLOCK_BYTES).equals(base), 'right bytes in the cache: the share is not asked')
  t.throws(() => read(0), { instanceOf: IntegrityError, message: /is missing on the share/ })
})

test('a base that every page covers is not read', (t) => {
  const bed = makeBed(t)
  const place = bed.store(randomBytes(BLOCK_BYTES))
  fs.rmSync(bed.share.pathOf(chunkName(place.chunk)))
  const session = randomBytes(BLOCK_BYTES)
  const valid = Array.from({ length: 31 }, (_, index) => index)
  const source = layers({ session: bed.file('session', session), valid, zeroPages: [31], base: place })
  t.true(
    assemble(bed, source)
      .subarray(0, 31 * PAGE_BYTES)
      .equals(session.subarray(0, 31 * PAGE_BYTES))
  )
})

test('a session file that lacks a page of the journal is damage; its last page may be cut', (t) => {
  const bed = makeBed(t)
  const session = bed.file('session', randomBytes(PAGE_BYTES + 10))
  t.notThrows(() => assemble(bed, layers({ session, valid: [0, 1] })))
  t.throws(() => assemble(bed, layers({ session, valid: [0, 1, 2] })), {
    instanceOf: IntegrityError,
    message: /page 1|page 2/
  })
})

test('zero blocks, blocks equal to their base and known blocks send nothing', (t) => {
  const bed = makeBed(t)
  const base = randomBytes(BLOCK_BYTES)
  const place = bed.store(base)
  const other = randomBytes(BLOCK_BYTES)
  const earlier = bed.store(other)
  const session = bed.file('session', Buffer.concat([base, other]))
  const all = Array.from({ length: 32 }, (_, index) => index)
  const { results, sentBytes } = encodeUnit(bed.share, {
    blocks: [
      layers({ base: place }), // cut nowhere: as it was
      layers({ base: place, zeroPages: all }), // punched
      layers({}), // zero as before
      layers({ session, valid: all, base: place, baseBytesMax: 0 }), // the same bytes above a truncate
      layers({ session, valid: all, sessionOffset: BLOCK_BYTES, base: place }) // sent by an earlier try
    ],
    known: [[earlier.digest.toString('hex'), earlier]]
  })
  t.deepEqual(
    results.map(({ state }) => state),
    ['same', 'zero', 'same', 'placed', 'placed']
  )
  t.deepEqual(placeOf(results[3]), place)
  t.deepEqual(placeOf(results[4]), earlier)
  t.is(sentBytes, 0)
})

test('a known place whose chunk is gone or too short is sent again', (t) => {
  const bed = makeBed(t)
  const bytes = randomBytes(BLOCK_BYTES)
  const place = bed.store(bytes)
  const name = bed.share.pathOf(chunkName(place.chunk))
  const again = (): number =>
    encodeUnit(bed.share, { blocks: [whole(bed.file('file', bytes))], known: [[place.digest.toString('hex'), place]] })
      .sentBytes
  fs.truncateSync(name, 100)
  t.is(again(), BLOCK_BYTES)
  fs.rmSync(name)
  t.is(again(), BLOCK_BYTES)
  t.is(again(), 0)
})

test('the same bytes twice in a unit lie in its chunk once', (t) => {
  const bed = makeBed(t)
  const file = bed.file('file', randomBytes(BLOCK_BYTES))
  const { results, sentBytes } = encodeUnit(bed.share, { blocks: [whole(file), whole(file)] })
  t.deepEqual(results[0], results[1])
  t.is(sentBytes, BLOCK_BYTES)
})

test('threads give the same answers, with places whose digests are Buffers, and errors of their class', async (t) => {
  const bed = makeBed(t)
  const pool = new CommitPool(bed.share.root)
  t.teardown(() => pool.close())
  const blocks = Array.from({ length: 128 }, (_, index) =>
    bed.file(`file${index}`, Buffer.concat([randomBytes(50_000), Buffer.alloc(50_000, index)]))
  )
  const units = await Promise.all(
    [0, 1, 2, 3].map((unit) => pool.run('encode', { blocks: blocks.slice(unit * 32, unit * 32 + 32).map(whole) }))
  )
  const places = units.flatMap(({ results }) => results.map(placeOf))
  for (const [index, { digest }] of places.entries()) {
    t.true(Buffer.isBuffer(digest))
    t.true(digest.equals(sha256(Buffer.concat([fs.readFileSync(blocks[index]!)], BLOCK_BYTES))))
  }
  await pool.run('verify', { places })
  await pool.run('checkChunks', { places })
  const file = bed.file('region', Buffer.alloc(REGION_BYTES))
  const landing = (block: number): Landing => {
    const { ino } = fs.statSync(file)
    return { file, ino, offset: block * BLOCK_BYTES, isHole: false, gate: createGate() }
  }
  fs.chmodSync(file, 0o600)
  const gone = { ...landing(2), file: bed.root }
  const written = await pool.run('keep', {
    blocks: [landing(1), gone].map((landing) => ({ source: whole(blocks[5]!), landing }))
  })
  t.deepEqual(written, [BLOCK_BYTES, undefined])
  const region = fs.readFileSync(file)
  t.true(region.subarray(BLOCK_BYTES, BLOCK_BYTES + 100_000).equals(fs.readFileSync(blocks[5]!)))
  t.true(region.subarray(2 * BLOCK_BYTES).equals(Buffer.alloc(REGION_BYTES - 2 * BLOCK_BYTES)))
  await t.throwsAsync(
    pool.run('encode', {
      blocks: [whole(blocks[0]!), { kind: 'file', parts: [{ path: bed.root, offset: 0, lengthBytes: 1 }] }]
    }),
    {
      instanceOf: FailedError,
      message: /cannot read/
    }
  )
})

test('verify finds damage, checkChunks what is missing or too short', (t) => {
  const bed = makeBed(t)
  const place = bed.store(randomBytes(BLOCK_BYTES))
  const name = bed.share.pathOf(chunkName(place.chunk))
  const bytes = fs.readFileSync(name)
  bytes[77]! ^= 1
  fs.writeFileSync(name, bytes)
  t.throws(() => commitTasks.verify(bed.share, { places: [place] }), { instanceOf: IntegrityError })
  t.notThrows(() => commitTasks.checkChunks(bed.share, { places: [place] }))
  fs.truncateSync(name, 5)
  t.throws(() => commitTasks.checkChunks(bed.share, { places: [place] }), { message: /has 5 bytes/ })
  fs.rmSync(name)
  t.throws(() => commitTasks.checkChunks(bed.share, { places: [place] }), { message: /is missing/ })
  t.throws(() => commitTasks.verify(bed.share, { places: [place] }), { message: /is missing/ })
})

test('map objects come back as they were written, from the local file when it is the right one', (t) => {
  const bed = makeBed(t)
  const objects = [randomBytes(500), Buffer.alloc(3000, 7)]
  const { places } = commitTasks.objects(bed.share, { objects })
  for (const [index, place] of places.entries()) {
    t.deepEqual(Buffer.from(commitTasks.mapObject(bed.share, { place, candidate: undefined })), objects[index])
    t.deepEqual(
      Buffer.from(commitTasks.mapObject(bed.share, { place, candidate: bed.file('wrong', Buffer.alloc(500)) })),
      objects[index]
    )
  }
  const right = bed.file('right', objects[0]!)
  for (const { chunk } of places) fs.rmSync(bed.share.pathOf(chunkName(chunk)), { force: true })
  t.deepEqual(Buffer.from(commitTasks.mapObject(bed.share, { place: places[0]!, candidate: right })), objects[0])
})

test('a known chunk that cannot be re-dated does not stop the commit: its blocks are sent again', (t) => {
  const root = temporaryDirectory('known')
  const bytes = randomBytes(BLOCK_BYTES)
  const file = path.join(root, 'file')
  fs.mkdirSync(path.join(root, 'vm'))
  fs.writeFileSync(file, bytes)
  const blocks: BlockSource[] = [{ kind: 'file', parts: [{ path: file, offset: 0, lengthBytes: BLOCK_BYTES }] }]
  const [first] = encodeUnit(new Share(path.join(root, 'vm')), { blocks }).results
  if (first?.state !== 'placed') throw new Error('not placed')
  const notOurs = new Share(path.join(root, 'vm'), {
    ...nodeFileSystem,
    utimesSync: () => {
      throw Object.assign(new Error('not the owner'), { code: 'EPERM' })
    }
  })
  const [again] = encodeUnit(notOurs, { blocks, known: [[first.place.digest.toString('hex'), first.place]] }).results
  t.is(again?.state, 'placed')
})
