import test from 'ava'
import { toInodeId } from '../../src/base/units.js'
import { Readahead, READAHEAD_BLOCKS_MAX, READERS_MAX } from '../../src/image/readahead.js'
import { Random } from '../support/random.js'

const file = toInodeId(2)

/** Reads a file through a readahead, with a cache that keeps everything. */
class Reading {
  readonly readahead = new Readahead()
  readonly #here = new Set<number>()
  /** blocks that were marked as fetched ahead and not read */
  readonly #ahead = new Set<number>()
  fetchedAhead = 0

  /** True when the reader had to wait. */
  read(block: number): boolean {
    if (!this.#here.has(block)) {
      this.#here.add(block)
      this.#fetch(block + 1, this.readahead.afterMiss(file, block, block))
      return true
    }
    if (!this.#ahead.delete(block)) return false
    const further = this.readahead.afterHit(file, block)
    if (further !== undefined) this.#fetch(further.first, further.count)
    return false
  }

  #fetch(first: number, count: number): void {
    for (let block = first; block < first + count; block++) {
      if (this.#here.has(block)) continue
      this.#here.add(block)
      this.#ahead.add(block)
      this.fetchedAhead++
    }
  }
}

test('misses in sequence open a window that doubles, a miss elsewhere opens none', (t) => {
  const readahead = new Readahead()
  t.is(readahead.afterMiss(file, 10, 10), 0)
  t.is(readahead.afterMiss(file, 11, 11), 4)
  t.is(readahead.afterMiss(file, 16, 16), 8)
  t.is(readahead.afterMiss(file, 500, 500), 0)
  t.is(readahead.afterHit(file, 500), undefined)
  t.is(readahead.afterMiss(toInodeId(3), 25, 25), 0, 'of another file')
  t.is(readahead.afterMiss(file, 25, 25), 16, 'the first reader goes on')
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

test('readers of one file who take turns each wait only until they are known to be sequential', (t) => {
  for (let readers = 2; readers <= READERS_MAX; readers++) {
    const reading = new Reading()
    let waits = 0
    for (let step = 0; step < 500; step++) {
      for (let reader = 0; reader < readers; reader++) if (reading.read(reader * 10_000 + step)) waits++
    }
    t.is(waits, 2 * readers)
  }
})

test('a sequential reader among scattered reads, as a guest on its disk, keeps its window', (t) => {
  const random = new Random(3)
  const reading = new Reading()
  let waits = 0
  for (let step = 0; step < 500; step++) {
    if (reading.read(step)) waits++
    const scattered = step < 3 ? 1 : 3 * READERS_MAX // more between two reads than are remembered
    for (let read = 0; read < scattered; read++) reading.read(100_000 + 7 * random.below(1_000_000))
  }
  t.is(waits, 2)
  t.true(reading.fetchedAhead < 500 + 2 * READAHEAD_BLOCKS_MAX + 100, 'and next to nothing is fetched for the others')
})

test('readers who came to their end make room for new ones', (t) => {
  const reading = new Reading()
  for (let reader = 0; reader < 5 * READERS_MAX; reader++) {
    let waits = 0
    for (let step = 0; step < 100; step++) if (reading.read(reader * 10_000 + step)) waits++
    t.is(waits, 2)
  }
})
