import test from 'ava'
import { anyBit, bitWords, clearBit, clearBits, countBits, getBit, setBit, setBits } from '../../src/base/bits.js'
import {
  errnoOf,
  fromPlainError,
  IntegrityError,
  messageOf,
  PosixError,
  ShareError,
  toPlainError
} from '../../src/base/errors.js'
import { parseDuration, parseSize } from '../../src/base/units.js'

test('sizes and durations are read as people write them', (t) => {
  t.deepEqual(['4096', '20G', '1.5M', '2TiB', '7kb'].map(parseSize), [
    4096,
    20 * 2 ** 30,
    1.5 * 2 ** 20,
    2 * 2 ** 40,
    7168
  ])
  t.deepEqual(['', 'G', '-1', '1X', '1e9', '99999999P'].map(parseSize), [
    undefined,
    undefined,
    undefined,
    undefined,
    undefined,
    undefined
  ])
  t.deepEqual(['30s', '500ms', '2m', '1h', '10'].map(parseDuration), [30_000, 500, 120_000, 3_600_000, 10_000])
  t.deepEqual(['', 's', '-1s', '1d'].map(parseDuration), [undefined, undefined, undefined, undefined])
})

test('bits at the borders of words', (t) => {
  const words = new Uint32Array(bitWords(100))
  t.is(words.length, 4)
  setBits(words, 30, 36)
  t.is(countBits(words), 36)
  t.deepEqual(
    [29, 30, 31, 32, 63, 64, 65, 66].map((index) => getBit(words, index)),
    [false, true, true, true, true, true, true, false]
  )
  clearBits(words, 31, 34)
  t.deepEqual(
    [30, 31, 65].map((index) => getBit(words, index)),
    [true, false, true]
  )
  setBit(words, 99)
  clearBit(words, 30)
  clearBit(words, 65)
  t.true(anyBit(words))
  clearBit(words, 99)
  t.false(anyBit(words))
})

test('errors keep class, errno, path and hint across a thread', (t) => {
  const share = fromPlainError(toPlainError(new ShareError('ENOSPC', '/x', 'full', { hint: 'free some' })))
  t.true(share instanceof ShareError)
  t.deepEqual([errnoOf(share), share.hint, messageOf(share)], ['ENOSPC', 'free some', 'full'])
  t.true(fromPlainError(toPlainError(new IntegrityError('bad'))) instanceof IntegrityError)
  t.is(errnoOf(fromPlainError(toPlainError(new PosixError('EROFS')))), 'EROFS')
  const system = Object.assign(new Error('x'), { code: 'EIO' })
  t.deepEqual(
    [errnoOf(system), errnoOf(new Error('x')), errnoOf('x'), messageOf('x')],
    ['EIO', undefined, undefined, 'x']
  )
  t.is(fromPlainError(toPlainError(system)).code, 'FAILED')
})
