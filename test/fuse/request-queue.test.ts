/** The way of requests from the reader threads to the owner (src/fuse/direct/request-queue.ts). */
import test from 'ava'
import { RequestQueue, SLOTS_PER_READER } from '../../src/fuse/direct/request-queue.js'

/** Takes all of the slots of each reader and publishes them, in turn. */
function publishAll(queue: RequestQueue, readers: number, round: number): number[] {
  const published: number[] = []
  for (let index = 0; index < SLOTS_PER_READER; index++) {
    for (let reader = 0; reader < readers; reader++) {
      const slot = queue.takeSlot(reader)
      if (slot === undefined) throw new Error('no slot')
      queue.publish(slot, round)
      published.push(slot)
    }
  }
  return published
}

for (const readers of [2, 3, 4]) {
  test(`${String(readers)} readers: every request comes once and in order, also when the counters wrap`, (t) => {
    const { memory } = new RequestQueue(readers)
    new Int32Array(memory)[0] = 2 ** 31 - 5 // so many have gone through
    const queue = new RequestQueue(readers, memory)
    for (let round = 1; round < 4; round++) {
      const published = publishAll(queue, readers, round)
      for (const slot of published) {
        t.is(queue.next(), slot)
        t.is(queue.lengthOf(slot), round)
        queue.release(slot)
      }
      t.is(queue.next(), undefined)
      t.true(queue.fallAsleep())
    }
  })
}

test('whoever publishes to an owner that sleeps has to wake it, once', (t) => {
  const queue = new RequestQueue(2)
  t.true(queue.fallAsleep())
  t.true(queue.publish(0, 1))
  t.false(queue.publish(1, 1))
  t.is(queue.next(), 0)
  t.is(queue.next(), 1)
  t.true(queue.fallAsleep())
  queue.stop()
  t.is(queue.takeSlot(0), undefined)
})
