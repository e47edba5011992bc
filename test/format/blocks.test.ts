import test from 'ava'
import fc from 'fast-check'
import { compress } from '@cloudpss/zstd/wasm'
import { IntegrityError } from '../../src/base/errors.js'
import { sha256, sha256Hex } from '../../src/base/digest.js'
import { BLOCK_BYTES, BLOCKS_PER_MAP_PAGE, CHUNK_BYTES_MAX } from '../../src/base/units.js'
import {
  decodeBlock,
  decodeObject,
  encodeBlock,
  encodeObject,
  isZeroBlock,
  OBJECT_BYTES_MAX,
  ZERO_BLOCK_DIGEST
} from '../../src/format/block-codec.js'
import { decodeMapRoot, encodeMapPage, encodeMapRoot, MapPage } from '../../src/format/block-map.js'
import type { BlockPlace, ObjectPlace } from '../../src/format/place.js'
import { zstdContentBytes } from '../../src/format/zstd-frame.js'
import { Random } from '../support/random.js'

const chunk = 'ab'.repeat(32)
const placeOf = (plain: Buffer, encoding: 'raw' | 'zstd', storedBytes: number): BlockPlace => ({
  encoding,
  chunk,
  offset: 0,
  storedBytes,
  digest: sha256(plain)
})

test('a block of any content comes back', (t) => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 3000 }), fc.nat(BLOCK_BYTES - 3000), (bytes, offset) => {
      const plain = Buffer.alloc(BLOCK_BYTES)
      plain.set(bytes, offset)
      if (isZeroBlock(plain)) return
      const encoded = encodeBlock(plain)
      t.true(decodeBlock(encoded.bytes, placeOf(plain, encoded.encoding, encoded.bytes.length)).equals(plain))
    }),
    { numRuns: 200 }
  )
  t.is(ZERO_BLOCK_DIGEST.toString('hex'), sha256Hex(Buffer.alloc(BLOCK_BYTES)))
})

test('incompressible blocks are raw without their trailing zeros, others zstd', (t) => {
  const random = new Random(1).bytes(BLOCK_BYTES)
  t.is(encodeBlock(random).encoding, 'raw')
  const short = Buffer.alloc(BLOCK_BYTES)
  random.copy(short, 0, 0, BLOCK_BYTES - 5000)
  const encoded = encodeBlock(short)
  t.deepEqual([encoded.encoding, encoded.bytes.length <= BLOCK_BYTES - 5000], ['raw', true])
  t.true(decodeBlock(encoded.bytes, placeOf(short, 'raw', encoded.bytes.length)).equals(short))
  t.is(encodeBlock(Buffer.alloc(BLOCK_BYTES, 'text')).encoding, 'zstd')
})

test('damaged, hostile and foreign stored bytes are refused, never decoded to something else', (t) => {
  const plain = Buffer.alloc(BLOCK_BYTES, 'some text')
  const { bytes } = encodeBlock(plain)
  const place = placeOf(plain, 'zstd', bytes.length)
  for (let at = 0; at < bytes.length; at++) {
    const damaged = Buffer.from(bytes)
    damaged[at] = (damaged[at] ?? 0) ^ 0x55
    try {
      t.true(decodeBlock(damaged, place).equals(plain)) // a bit that means nothing
    } catch (error) {
      t.true(error instanceof IntegrityError)
    }
    t.throws(() => decodeBlock(bytes.subarray(0, at), place), { instanceOf: IntegrityError })
  }
})

test('what would become more than a block is refused before anything is allocated for it', (t) => {
  const plain = Buffer.alloc(BLOCK_BYTES, 'some text')
  const { bytes } = encodeBlock(plain)
  const place = placeOf(plain, 'zstd', bytes.length)
  const refused = (stored: Buffer, message: RegExp): void => {
    const before = process.memoryUsage().rss
    t.throws(() => decodeBlock(stored, place), { instanceOf: IntegrityError, message })
    t.true(process.memoryUsage().rss - before < 64 * 2 ** 20)
  }
  const bomb = Buffer.from(compress(Buffer.alloc(64 * 1024 * 1024), 1))
  t.is(zstdContentBytes(bomb), 64 * 1024 * 1024)
  refused(bomb, /would become 67108864 bytes/)
  const oneFrame = /not one zstd frame that names its size/
  refused(Buffer.concat([bytes, bomb]), oneFrame)
  refused(Buffer.concat([bytes, bytes]), oneFrame)
  refused(Buffer.concat([bytes, Buffer.alloc(1)]), oneFrame)
  // no content size: 20,000 run-length blocks of 4 bytes that become 128 KiB each, 2.4 GiB in all
  const runs = Buffer.alloc(6 + 20_000 * 4)
  runs.write('28b52ffd0038', 'hex')
  for (let at = 6; at < runs.length; at += 4)
    runs.writeUIntLE((BLOCK_BYTES << 3) | 2 | (at + 4 === runs.length ? 1 : 0), at, 3)
  refused(runs, oneFrame)
  refused(Buffer.concat([bytes, runs]), oneFrame)
  // a skippable frame in front, a dictionary, a reserved bit, a reserved block type
  refused(Buffer.concat([Buffer.from('502a4d1800000000', 'hex'), bytes]), oneFrame)
  refused(Buffer.from('28b52ffd2101050100000061', 'hex'), oneFrame)
  refused(Buffer.from('28b52ffd28050100000061', 'hex'), oneFrame)
  refused(Buffer.from('28b52ffd2005070000', 'hex'), oneFrame)
  // says one byte and holds a block
  const liar = Buffer.concat([Buffer.from('28b52ffd2001', 'hex'), Buffer.from(bytes.subarray(9))])
  t.is(bytes.readUInt8(4), 0xa0)
  t.is(zstdContentBytes(liar), 1)
  refused(liar, /cannot decode/)
  t.throws(() => decodeBlock(Buffer.alloc(BLOCK_BYTES + 1), { ...place, encoding: 'raw' }), {
    instanceOf: IntegrityError,
    message: /longer than it may be/
  })
})

test('the announced size of a frame is read in each of its forms', (t) => {
  for (const size of [1, 200, 255, 256, 257, 65_791, 65_792, BLOCK_BYTES, 5_000_000]) {
    t.is(zstdContentBytes(Buffer.from(compress(new Random(size).bytes(size), 1))), size)
    t.is(zstdContentBytes(Buffer.from(compress(Buffer.alloc(size, 'a'), 1))), size)
  }
  t.is(zstdContentBytes(Buffer.from('no frame at all')), undefined)
  t.is(zstdContentBytes(Buffer.from('28b52ffd00', 'hex')), undefined)
  t.is(zstdContentBytes(Buffer.from('28b52ffd2005010000', 'hex')), 5)
  t.is(zstdContentBytes(Buffer.from('28b52ffd600001010000', 'hex')), 512)
  t.is(zstdContentBytes(Buffer.from('28b52ffde00100000000000000010000', 'hex')), 1)
  t.is(zstdContentBytes(Buffer.from('28b52ffd240501000000000000', 'hex')), 5, 'with a checksum')
  t.is(zstdContentBytes(Buffer.from('28b52ffde00100', 'hex')), undefined, 'cut')
  t.is(zstdContentBytes(Buffer.from('28b52ffd2005000000', 'hex')), undefined, 'no last block')
})

test('no bytes at all make the decoder return something else than the block, or fail otherwise than by IntegrityError', (t) => {
  const plain = Buffer.alloc(BLOCK_BYTES, 'some text')
  const place = placeOf(plain, 'zstd', 1)
  const header = fc.constantFrom('', '28b52ffd', '28b52ffda000000200', '28b52ffd2005')
  fc.assert(
    fc.property(header, fc.uint8Array({ maxLength: 200 }), fc.constantFrom('raw', 'zstd'), (start, bytes, encoding) => {
      const stored = Buffer.concat([Buffer.from(start, 'hex'), bytes])
      t.throws(() => decodeBlock(stored, { ...place, encoding }), { instanceOf: IntegrityError })
    }),
    { numRuns: 500 }
  )
})

test('map objects come back and are compared with their digest and length', (t) => {
  for (const plain of [Buffer.alloc(5000, 'map'), new Random(2).bytes(5000)]) {
    const encoded = encodeObject(plain)
    const place: ObjectPlace = {
      encoding: encoded.encoding,
      chunk,
      offset: 0,
      storedBytes: encoded.bytes.length,
      plainBytes: 5000,
      digest: sha256Hex(plain)
    }
    t.true(decodeObject(encoded.bytes, place).equals(plain))
    t.throws(() => decodeObject(encoded.bytes, { ...place, digest: sha256Hex(Buffer.from('other')) }), {
      instanceOf: IntegrityError
    })
    t.throws(() => decodeObject(encoded.bytes, { ...place, plainBytes: 5001 }), { instanceOf: IntegrityError })
  }
})

test('map pages keep every place, and zero blocks take nothing', (t) => {
  const random = new Random(3)
  const places = Array.from({ length: BLOCKS_PER_MAP_PAGE }, (_, index): BlockPlace | undefined =>
    index % 3 === 0
      ? undefined
      : {
          encoding: index % 2 === 0 ? 'raw' : 'zstd',
          chunk: sha256Hex(Buffer.from([index % 5])),
          offset: index * 7,
          storedBytes: index,
          digest: random.bytes(32)
        }
  )
  const bytes = encodeMapPage(places)
  if (bytes === undefined) throw new Error('no page')
  const page = new MapPage(bytes)
  for (const [index, place] of places.entries()) t.deepEqual(page.place(index), place)
  t.is(page.place(BLOCKS_PER_MAP_PAGE), undefined)
  t.is(encodeMapPage([undefined, undefined]), undefined)
})

test('random pages and roots come back, and random bytes are refused or are a page', (t) => {
  const digest = fc.uint8Array({ minLength: 32, maxLength: 32 }).map((bytes) => Buffer.from(bytes))
  const chunkNames = fc.constantFrom(...['00', '5a', 'ff'].map((byte) => byte.repeat(32)))
  const stored = fc.record({
    encoding: fc.constantFrom('raw' as const, 'zstd' as const),
    chunk: chunkNames,
    offset: fc.nat(CHUNK_BYTES_MAX - BLOCK_BYTES),
    storedBytes: fc.integer({ min: 1, max: BLOCK_BYTES })
  })
  const block = fc.tuple(stored, digest).map(([place, of]): BlockPlace => ({ ...place, digest: of }))
  fc.assert(
    fc.property(fc.array(fc.option(block, { nil: undefined }), { maxLength: 40 }), (places) => {
      const bytes = encodeMapPage(places)
      t.is(
        bytes === undefined,
        places.every((place) => place === undefined)
      )
      if (bytes === undefined) return
      const page = new MapPage(bytes)
      for (const [index, place] of places.entries()) {
        t.deepEqual(page.place(index), place)
        t.deepEqual(page.digest(index), place?.digest)
      }
      t.true(encodeMapPage(places.map((_, index) => page.place(index)))?.equals(bytes))
    })
  )
  const object = fc
    .tuple(stored, digest, fc.integer({ min: 16, max: OBJECT_BYTES_MAX }))
    .map(([place, of, plainBytes]): ObjectPlace => ({ ...place, plainBytes, digest: of.toString('hex') }))
  fc.assert(
    fc.property(fc.array(fc.tuple(fc.nat(131_071), object), { maxLength: 40 }), (pages) => {
      const root = new Map([...new Map(pages)].sort(([one], [other]) => one - other))
      t.deepEqual(decodeMapRoot(encodeMapRoot(root)), root)
      t.deepEqual([...decodeMapRoot(encodeMapRoot(new Map([...root].reverse()))).keys()], [...root.keys()])
    })
  )
  fc.assert(
    fc.property(fc.constantFrom('49534d50', '49534d52'), fc.uint8Array({ maxLength: 300 }), (magic, bytes) => {
      const hostile = Buffer.concat([Buffer.from(magic, 'hex'), Buffer.from('01000000', 'hex'), bytes])
      for (const read of [() => new MapPage(hostile), () => decodeMapRoot(hostile)]) {
        try {
          read()
        } catch (error) {
          t.true(error instanceof IntegrityError, String(error))
        }
      }
    })
  )
})

test('the largest file has a root that fits', (t) => {
  const pages = new Map(
    Array.from({ length: 131_072 }, (_, page): [number, ObjectPlace] => [
      page,
      {
        encoding: 'zstd',
        chunk: sha256Hex(Buffer.from(String(page))),
        offset: 0,
        storedBytes: 9,
        plainBytes: 99,
        digest: chunk
      }
    ])
  )
  const root = encodeMapRoot(pages)
  t.true(root.length <= OBJECT_BYTES_MAX)
  t.is(decodeMapRoot(root).size, 131_072)
})

test('damaged map pages and roots are refused', (t) => {
  const place: BlockPlace = { encoding: 'raw', chunk, offset: 0, storedBytes: 10, digest: sha256(Buffer.from('x')) }
  const page = encodeMapPage([place]) ?? Buffer.alloc(0)
  const change = (bytes: Buffer, at: number, value: number): Buffer => {
    const copy = Buffer.from(bytes)
    copy.writeUInt32LE(value, at)
    return copy
  }
  const pages = [
    Buffer.alloc(3),
    change(page, 0, 1),
    change(page, 4, 2),
    change(page, 8, 2000),
    change(page, 12, 9),
    change(page, 48, 0x10007),
    change(page, 48 + 4, 2 ** 31),
    change(page, 48 + 8, 2 ** 20)
  ]
  for (const bytes of pages) t.throws(() => new MapPage(bytes), { instanceOf: IntegrityError })
  const object: ObjectPlace = { encoding: 'raw', chunk, offset: 0, storedBytes: 10, plainBytes: 100, digest: chunk }
  const root = encodeMapRoot(
    new Map([
      [3, object],
      [1, object]
    ])
  )
  t.deepEqual([...decodeMapRoot(root).keys()], [1, 3])
  t.deepEqual(decodeMapRoot(root).get(3), object)
  const roots = [
    change(root, 0, 0),
    change(root, 4, 9),
    change(root, 8, 3),
    change(root, 48, 3),
    change(root, 48, 2 ** 20),
    change(root, 52, 5),
    change(root, 56, 3),
    change(root, 64, 0),
    change(root, 68, 2 ** 30)
  ]
  for (const bytes of roots) t.throws(() => decodeMapRoot(bytes), { instanceOf: IntegrityError })
})
