import test from 'ava'
import fc from 'fast-check'
import { compress } from '@cloudpss/zstd/wasm'
import { IntegrityError } from '../../src/base/errors.js'
import { sha256, sha256Hex } from '../../src/base/digest.js'
import { BLOCK_BYTES, BLOCKS_PER_MAP_PAGE } from '../../src/base/units.js'
import {
  decodeBlock,
  decodeObject,
  encodeBlock,
  encodeObject,
  isZeroBlock,
  ZERO_BLOCK_DIGEST,
  zstdContentBytes
} from '../../src/format/block-codec.js'
import { decodeMapRoot, encodeMapPage, encodeMapRoot, MapPage } from '../../src/format/block-map.js'
import type { BlockPlace, ObjectPlace } from '../../src/format/place.js'
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
  const bomb = Buffer.from(compress(Buffer.alloc(64 * 1024 * 1024), 1))
  t.is(zstdContentBytes(bomb), 64 * 1024 * 1024)
  t.throws(() => decodeBlock(bomb, place), { instanceOf: IntegrityError, message: /size that fits/ })
  t.throws(() => decodeBlock(Buffer.alloc(BLOCK_BYTES + 1), { ...place, encoding: 'raw' }), {
    instanceOf: IntegrityError
  })
  t.is(zstdContentBytes(Buffer.from('no frame at all')), undefined)
  t.is(zstdContentBytes(Buffer.from('28b52ffd00', 'hex')), undefined)
  t.is(zstdContentBytes(Buffer.from('28b52ffd2005aa', 'hex')), 5)
  t.is(zstdContentBytes(Buffer.from('28b52ffd600001aa', 'hex')), 512)
  t.is(zstdContentBytes(Buffer.from('28b52ffde00100000000000000', 'hex')), 1)
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
