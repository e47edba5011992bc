import test from 'ava'
import { toInodeId } from '../../src/base/units.js'
import { Readahead, READAHEAD_BLOCKS_MAX } from '../../src/image/readahead.js'

const file = toInodeId(2)

test('misses in sequence open a window that doubles, a miss elsewhere closes it', (t) => {
  const readahead = new Readahead()
  t.is(readahead.afterMiss(file, 10, 10), 0)
  t.is(readahead.afterMiss(file, 11, 11), 4)
  t.is(readahead.afterMiss(file, 16, 16), 8)
  t.is(readahead.afterMiss(file, 500, 500), 0)
  t.is(readahead.afterHit(file, 500), undefined)
})

test('a reader never comes to the end of what is fetched ahead, and never gets more than twice the bound', (t) => {
  const readahead = new Readahead()
  readahead.afterMiss(file, 0, 0)
  let end = 1 + 1 + readahead.afterMiss(file, 1, 1)
  for (let block = 2; block < 1000; block++) {
    t.true(block < end, `block ${String(block)} was not fetched`)
    const further = readahead.afterHit(file, block)
    if (further === undefined) continue
    t.is(further.first, end)
    end += further.count
    t.true(end - block <= 2 * READAHEAD_BLOCKS_MAX)
  }
  t.is(readahead.afterHit(file, 5), undefined, 'somebody who reads far behind asks for nothing')
})
