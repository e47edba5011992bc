/** The way of requests from readers to the owner, from one thread: slots, their sizes, and who is woken. */
import test from 'ava'
import { LARGE_SLOTS_PER_READER, RequestQueue } from '../../src/fuse/direct/request-queue.js'

/** A request of `lengthBytes` that begins with `mark` arrives at a reader. */
function arrive(queue: RequestQueue, reader: number, mark: number, lengthBytes: number): number {
  const slot = queue.takeSlot(reader) ?? -1
  queue.slots[slot]?.bytes.fill(mark, 0, lengthBytes)
  const place = queue.moveToSmall(reader, slot, lengthBytes)
  queue.publish(place, lengthBytes)
  return place
}

test('requests come in the order in which they were published, each with its bytes', (t) => {
  const readerSide = new RequestQueue(2)
  const owner = new RequestQueue(2, readerSide.memory)
  const sent: number[] = []
  for (let mark = 1; mark <= 60; mark++) {
    arrive(readerSide, mark % 2, mark, mark % 7 === 0 ? 100_000 : 4176)
    sent.push(mark)
  }
  const seen: number[] = []
  for (let slot = owner.next(); slot !== undefined; slot = owner.next()) {
    const bytes = owner.slots[slot]?.bytes.subarray(0, owner.lengthOf(slot))
    t.true(bytes?.every((byte) => byte === bytes[0]))
    seen.push(bytes?.[0] ?? 0)
    owner.release(slot)
  }
  t.deepEqual(seen, sent)
})

test('small requests leave the large slots to what comes next, until there is no small one', (t) => {
  const queue = new RequestQueue(1)
  const large = queue.takeSlot(0)
  const places = Array.from({ length: 64 + LARGE_SLOTS_PER_READER }, () => arrive(queue, 0, 1, 100))
  t.is(new Set(places).size, places.length)
  t.false(places.slice(0, 64).includes(large ?? -1))
  t.deepEqual(
    places.slice(64),
    Array.from({ length: LARGE_SLOTS_PER_READER }, (_, index) => index)
  )
  const released = queue.next() ?? -1
  queue.release(released)
  queue.release(places.at(-1) ?? -1)
  t.is(arrive(queue, 0, 1, 100), released)
})

test('a request that is larger than a small slot stays where it is', (t) => {
  const queue = new RequestQueue(1)
  const slot = queue.takeSlot(0) ?? -1
  t.is(queue.moveToSmall(0, slot, 4096 + 257), slot)
  t.not(queue.moveToSmall(0, slot, 4096 + 256), slot)
})

test('readers that are to stop get no slot', (t) => {
  const queue = new RequestQueue(1)
  queue.stop()
  t.is(queue.takeSlot(0), undefined)
})

test('the owner is to be woken for what comes while it sleeps, and not while it is awake', (t) => {
  const queue = new RequestQueue(1)
  const publish = (): boolean => queue.publish(queue.moveToSmall(0, queue.takeSlot(0) ?? -1, 50), 50)
  t.true(queue.fallAsleep())
  t.true(publish())
  t.false(publish())
  t.true(queue.hasNext)
  t.false(queue.fallAsleep(), 'there are requests')
})

for (const readers of [2, 3, 4]) {
  test(`${readers} readers: every request comes once and in order, also when the counters wrap`, (t) => {
    const { memory } = new RequestQueue(readers)
    new Int32Array(memory)[0] = 2 ** 31 - 5 // so many have gone through
    const queue = new RequestQueue(readers, memory)
    for (let round = 1; round < 4; round++) {
      const published: number[] = []
      for (let index = 0; index < 64; index++) {
        for (let reader = 0; reader < readers; reader++) published.push(arrive(queue, reader, round, 100 + index))
      }
      for (const [index, slot] of published.entries()) {
        t.is(queue.next(), slot)
        t.is(queue.lengthOf(slot), 100 + Math.floor(index / readers))
        queue.release(slot)
      }
      t.is(queue.next(), undefined)
      t.true(queue.fallAsleep())
    }
  })
}
