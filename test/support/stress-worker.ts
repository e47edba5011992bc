/**
 * One of several threads that write, read and check one file (versioned-pages.ts). Stripes of pages belong to one thread each, which
 * alone writes them; all read all. The last thread owns the end of the file instead, cuts it off and lets it grow again.
 */
import fs from 'node:fs'
import { parentPort, workerData } from 'node:worker_threads'
import { PAGE_BYTES } from '../../src/base/units.js'
import { Random } from './random.js'
import { isZeroVersion, mayBeZero, pageOf, type StressData, wrongUnits } from './versioned-pages.js'

const STRIPE_PAGES = 32
const READ_PAGES_MAX = 256
/** stripes of the beginning are visited more often: the same regions are written, read and evicted */
const HOT_STRIPES = 64

// what the test starts this thread with
const { file, seed, worker, workers, operations, versions } = workerData as StressData
const { begun, done } = versions
const random = new Random(seed)
const { O_RDWR, O_DIRECT } = fs.constants
const descriptor = fs.openSync(file, O_RDWR | O_DIRECT)
const stripes = Math.floor(begun.length / STRIPE_PAGES)
const isCutter = worker === workers - 1
/** the cutter's; the others' stripes end there */
const endStripe = stripes - 40
const wrong: string[] = []

for (let operation = 0; operation < operations && wrong.length === 0; operation++) {
  const kind = random.below(10)
  if (kind < 3) write()
  else if (kind === 3 && isCutter && random.below(4) === 0) cut()
  else read()
}
fs.fsyncSync(descriptor)
fs.closeSync(descriptor)
parentPort?.postMessage(wrong)

function someStripe(): number {
  return random.below(2) === 0 ? random.below(HOT_STRIPES) : random.below(stripes)
}

function write(): void {
  const stripe = isCutter
    ? endStripe + random.below(stripes - endStripe)
    : Math.min(Math.floor(someStripe() / (workers - 1)) * (workers - 1) + worker, endStripe - workers + worker)
  const first = stripe * STRIPE_PAGES + random.below(STRIPE_PAGES)
  const count = 1 + random.below((stripe + 1) * STRIPE_PAGES - first)
  const parts: Buffer[] = []
  for (let page = first; page < first + count; page++) {
    let version = (begun[page] ?? 0) + 1
    if (isZeroVersion(version)) version++
    Atomics.store(begun, page, version)
    parts.push(pageOf(page, version))
  }
  const bytes = Buffer.concat(parts)
  const written = fs.writeSync(descriptor, bytes, 0, bytes.length, first * PAGE_BYTES)
  if (written !== bytes.length) wrong.push(`a write of ${String(bytes.length)} bytes took ${String(written)}`)
  for (let page = first; page < first + count; page++) Atomics.store(done, page, begun[page] ?? 0)
}

/** To a page of the last stripes, and back to the whole length. */
function cut(): void {
  const first = endStripe * STRIPE_PAGES + random.below((stripes - endStripe) * STRIPE_PAGES)
  for (let page = first; page < begun.length; page++) {
    let version = (begun[page] ?? 0) + 1
    while (!isZeroVersion(version)) version++
    Atomics.store(begun, page, version)
  }
  fs.ftruncateSync(descriptor, first * PAGE_BYTES)
  fs.ftruncateSync(descriptor, begun.length * PAGE_BYTES)
  for (let page = first; page < begun.length; page++) Atomics.store(done, page, begun[page] ?? 0)
}

function read(): void {
  const first = someStripe() * STRIPE_PAGES + random.below(STRIPE_PAGES)
  const pages = Math.min(1 + random.below(random.below(4) === 0 ? READ_PAGES_MAX : 4), begun.length - first)
  const before = { done: done.slice() }
  const bytes = Buffer.alloc(pages * PAGE_BYTES)
  const count = fs.readSync(descriptor, bytes, 0, bytes.length, first * PAGE_BYTES)
  const after = { begun: begun.slice() }
  // short only where the file was shorter for a moment
  for (let page = first + Math.floor(count / PAGE_BYTES); page < first + pages; page++) {
    if (!mayBeZero(before.done[page] ?? 0, after.begun[page] ?? 0)) wrong.push(`page ${String(page)} was not read`)
  }
  wrong.push(...wrongUnits(bytes.subarray(0, count - (count % PAGE_BYTES)), first, before, after))
}
