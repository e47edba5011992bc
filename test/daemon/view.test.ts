/** What those who watch a mount are told: estimates and samples. */
import test from 'ava'
import { BLOCK_BYTES } from '../../src/base/units.js'
import { Samples } from '../../src/daemon/samples.js'
import { estimateSuspend } from '../../src/daemon/estimate.js'

test('what a suspend sends is estimated from what was fetched', (t) => {
  const nothing = { fetchedBytes: 0, fetchedBlocks: 0, busySeconds: 0 }
  const none = { bytes: 0, seconds: 0 }
  const blocks = (unsent: number) => ({ changed: 1000, unsent })
  t.deepEqual(estimateSuspend(blocks(0), nothing, none), { bytes: 0, seconds: 3 }, 'all of them are looked at')
  t.deepEqual(
    estimateSuspend(blocks(10), nothing, none),
    { bytes: 5 * BLOCK_BYTES, seconds: null },
    'nobody knows the share yet'
  )
  const quarter = { fetchedBytes: (100 * BLOCK_BYTES) / 4, fetchedBlocks: 100, busySeconds: 2 }
  const { bytes, seconds } = estimateSuspend(blocks(400), quarter, none)
  t.is(bytes, 100 * BLOCK_BYTES)
  t.is(seconds, 3 + 8)
  const grown = { fetchedBytes: 200 * BLOCK_BYTES, fetchedBlocks: 100, busySeconds: 2 }
  t.is(estimateSuspend(blocks(3), grown, none).bytes, 3 * BLOCK_BYTES, 'never more than the blocks themselves')
  const slow = { bytes: 10 * BLOCK_BYTES, seconds: 5 }
  t.is(
    estimateSuspend(blocks(400), quarter, slow).seconds,
    3 + 50,
    'what was sent tells more of sending than what was fetched'
  )
})

test('samples are numbered, and whoever has seen some gets the others', (t) => {
  let count = 0
  const samples = new Samples(() => [count++])
  try {
    const { first, rows, columns } = samples.since(0)
    t.is(first, 0)
    t.deepEqual(rows, [[0]])
    t.true(columns.includes('readBytes'))
    t.deepEqual(samples.since(1).rows, [])
    t.is(samples.since(1).first, 1)
    t.is(samples.since(Number.MAX_SAFE_INTEGER).first, 1, 'somebody who has seen another mount begins anew')
  } finally {
    samples.stop()
  }
})
