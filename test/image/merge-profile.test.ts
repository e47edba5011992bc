import test from 'ava'
import { toInodeId } from '../../src/base/units.js'
import { PROFILE_BLOCKS_MAX } from '../../src/format/profile.js'
import { FirstTouches } from '../../src/image/first-touches.js'
import { mergeProfile } from '../../src/image/merge-profile.js'

function touched(...blocks: readonly (readonly [inode: number, block: number])[]): FirstTouches {
  const touches = new FirstTouches()
  for (const [inode, block] of blocks) touches.add(toInodeId(inode), block)
  return touches
}

const run = (inode: number, first: number, count: number, missed = 0) => ({ inode, first, count, missed })

test('a first profile is the order of first reads, each block once', (t) => {
  const touches = touched([2, 7], [2, 8], [3, 0], [2, 7], [2, 9])
  t.deepEqual(mergeProfile(undefined, touches).runs, [run(2, 7, 2), run(3, 0, 1), run(2, 9, 1)])
})

test('what this mount read comes first, what it did not read stays once and then drops out', (t) => {
  const first = mergeProfile({ runs: [run(2, 0, 4)] }, touched([2, 2], [2, 3], [2, 9]))
  t.deepEqual(first.runs, [run(2, 2, 2), run(2, 9, 1), run(2, 0, 2, 1)])
  const second = mergeProfile(first, touched([2, 2], [2, 3]))
  t.deepEqual(second.runs, [run(2, 2, 2), run(2, 9, 1, 1)])
  t.deepEqual(mergeProfile(second, touched([2, 9], [2, 2])).runs, [run(2, 9, 1), run(2, 2, 1), run(2, 3, 1, 1)])
})

test('a mount in which somebody only looked around neither ages a profile nor comes before it', (t) => {
  const old = { runs: [run(2, 0, 100), run(3, 0, 10, 1)] }
  t.deepEqual(mergeProfile(old, touched([2, 50], [4, 1])).runs, [...old.runs, run(4, 1, 1)])
})

test('a profile is bounded, whatever was read', (t) => {
  const touches = new FirstTouches()
  for (let block = 0; block < PROFILE_BLOCKS_MAX + 500; block++) touches.add(toInodeId(2), block * 2)
  t.is(touches.count, PROFILE_BLOCKS_MAX)
  const { runs } = mergeProfile({ runs: [run(7, 0, 500)] }, touches)
  t.is(
    runs.reduce((blocks, { count }) => blocks + count, 0),
    PROFILE_BLOCKS_MAX
  )
})
