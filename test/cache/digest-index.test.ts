import test from 'ava'
import { sha256 } from '../../src/base/digest.js'
import { DigestIndex } from '../../src/cache/digest-index.js'

const digest = (number: number): Buffer => sha256(Buffer.from(String(number)))

test('what was added is found at its first location, and nothing else is', (t) => {
  const index = new DigestIndex(1024)
  for (let number = 1; number <= 400; number++) {
    index.add(digest(number), number)
    index.add(digest(number), 1000 + number)
  }
  for (let number = 1; number <= 400; number++) t.is(index.find(digest(number)), number)
  for (let number = 401; number <= 4000; number++) t.is(index.find(digest(number)), undefined)
})

test('a full table, or digests that were made to crowd, leave blocks out and find no wrong one', (t) => {
  const full = new DigestIndex(64)
  for (let number = 1; number <= 1000; number++) full.add(digest(number), number)
  const found = Array.from({ length: 1000 }, (_, index) => full.find(digest(index + 1)))
  t.true(found.every((location, index) => location === undefined || location === index + 1))
  t.is(found.filter((location) => location !== undefined).length, 64)
  const crowd = new DigestIndex(1024)
  for (let number = 1; number <= 1000; number++) {
    const made = digest(number)
    made.writeUInt32LE(7, 0)
    crowd.add(made, number)
    t.is(crowd.find(made), number <= 16 ? number : undefined)
  }
})
