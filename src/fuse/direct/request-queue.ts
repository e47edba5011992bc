/**
 * The way of requests from the reader threads to the owner: slots in shared memory, and a ring of filled slots.
 *
 * Each slot belongs to one reader. Its word says whose turn it is:
 *
 *     free --reader fills it, publish()--> queued --owner, next()--> (with the owner) --release()--> free
 *
 * A reader reads into a large slot, because the kernel wants room for the largest WRITE, and hands requests of a page in a small one
 * while there are any: a few large slots would let it wait for the owner after every few requests of a flood of small ones, and be
 * woken for each.
 *
 * Invariants:
 * 1. A slot's bytes are touched only by whose turn it is.
 * 2. The ring has a place for every slot, so publish() never finds it full. Their number is a power of two: the counters wrap,
 *    and no place may be skipped or taken twice when they do.
 * 3. After publish() the owner is awake, or the publisher was told to wake it (publish() answered true); the owner declares
 *    itself asleep before it looks at the ring for the last time, so no request is left lying.
 */
import assert from 'node:assert'
import { IO_BYTES_MAX } from './negotiation.js'
import { messageOn, type Message } from './answers.js'

export const LARGE_SLOTS_PER_READER = 8
/** with them a reader has room for all that the kernel keeps in the background (kernel-tuning.ts) */
const SMALL_SLOTS_PER_READER = 64
const SLOTS_PER_READER = LARGE_SLOTS_PER_READER + SMALL_SLOTS_PER_READER
/** the kernel wants room for the largest WRITE and its structures */
const LARGE_SLOT_BYTES = IO_BYTES_MAX + 4096
/** a WRITE of a page and its structures; two names of the longest kind */
const SMALL_SLOT_BYTES = 4096 + 256
const READER_BYTES = LARGE_SLOTS_PER_READER * LARGE_SLOT_BYTES + SMALL_SLOTS_PER_READER * SMALL_SLOT_BYTES

const FREE = 0
const TAKEN = 1

/** Words before the slots' own: */
const TAIL = 0
const AWAKE = 1
const STOP = 2
const FREED = 3
/** readers that wait for a slot, or are about to */
const WAITERS = 4
const WORDS = 5
const COUNT_MASK = 0x7fffffff

export class RequestQueue {
  readonly memory: SharedArrayBuffer
  readonly slots: readonly Message[]
  readonly #words: Int32Array
  readonly #ring: Int32Array
  readonly #states: Int32Array
  readonly #lengths: Int32Array
  #head: number

  /** Over new memory, or over that of another thread. */
  constructor(readers: number, memory?: SharedArrayBuffer) {
    const count = readers * SLOTS_PER_READER
    const places = 2 ** Math.ceil(Math.log2(count))
    const wordBytes = (WORDS + places + 2 * count) * 4
    this.memory = memory ?? new SharedArrayBuffer(wordBytes + readers * READER_BYTES)
    assert(this.memory.byteLength === wordBytes + readers * READER_BYTES)
    this.#words = new Int32Array(this.memory, 0, WORDS)
    this.#head = Atomics.load(this.#words, TAIL) & COUNT_MASK
    this.#ring = new Int32Array(this.memory, WORDS * 4, places)
    this.#states = new Int32Array(this.memory, (WORDS + places) * 4, count)
    this.#lengths = new Int32Array(this.memory, (WORDS + places + count) * 4, count)
    this.slots = Array.from({ length: count }, (_, index) => {
      const { at, length } = placeOf(index)
      return messageOn(Buffer.from(this.memory, wordBytes + at, length))
    })
  }

  // Readers

  /** A free large slot of this reader; waits for one. undefined when the readers are to stop. */
  takeSlot(reader: number): number | undefined {
    const first = reader * SLOTS_PER_READER
    for (;;) {
      const freed = Atomics.load(this.#words, FREED)
      if (this.isStopping) return undefined
      const slot = this.#freeSlot(first, first + LARGE_SLOTS_PER_READER)
      if (slot !== undefined) return slot
      Atomics.add(this.#words, WAITERS, 1)
      Atomics.wait(this.#words, FREED, freed) // release() counts FREED before it looks for waiters
      Atomics.sub(this.#words, WAITERS, 1)
    }
  }

  /** Moves a request to a small slot of the same reader; the slot that it was in when it is large or there is none. */
  moveToSmall(reader: number, slot: number, lengthBytes: number): number {
    if (lengthBytes > SMALL_SLOT_BYTES) return slot
    const end = (reader + 1) * SLOTS_PER_READER
    const small = this.#freeSlot(end - SMALL_SLOTS_PER_READER, end)
    const from = this.slots[slot]
    const to = small === undefined ? undefined : this.slots[small]
    if (small === undefined || from === undefined || to === undefined) return slot
    from.bytes.copy(to.bytes, 0, 0, lengthBytes)
    return small
  }

  #freeSlot(from: number, end: number): number | undefined {
    for (let slot = from; slot < end; slot++) if (Atomics.load(this.#states, slot) === FREE) return slot
    return undefined
  }

  /** Hands a filled slot to the owner; true when the owner has to be woken. */
  publish(slot: number, lengthBytes: number): boolean {
    this.#lengths[slot] = lengthBytes
    Atomics.store(this.#states, slot, TAKEN)
    const place = Atomics.add(this.#words, TAIL, 1) & COUNT_MASK
    Atomics.store(this.#ring, place % this.#ring.length, slot + 1)
    return Atomics.exchange(this.#words, AWAKE, 1) === 0
  }

  get isStopping(): boolean {
    return Atomics.load(this.#words, STOP) === 1
  }

  // The owner

  get hasNext(): boolean {
    return Atomics.load(this.#ring, this.#head % this.#ring.length) !== 0
  }

  /** The slot that was published longest ago; undefined when there is none. */
  next(): number | undefined {
    const place = this.#head % this.#ring.length
    const slot = Atomics.load(this.#ring, place) - 1
    if (slot < 0) return undefined
    Atomics.store(this.#ring, place, 0)
    this.#head = (this.#head + 1) & COUNT_MASK
    return slot
  }

  /** True when the owner may sleep until it is woken; false when something came in between. */
  fallAsleep(): boolean {
    Atomics.store(this.#words, AWAKE, 0)
    if (!this.hasNext) return true
    return Atomics.exchange(this.#words, AWAKE, 1) !== 0 // whoever set it meanwhile wakes us
  }

  lengthOf(slot: number): number {
    return this.#lengths[slot] ?? 0
  }

  release(slot: number): void {
    Atomics.store(this.#states, slot, FREE)
    Atomics.add(this.#words, FREED, 1)
    if (Atomics.load(this.#words, WAITERS) > 0) Atomics.notify(this.#words, FREED)
  }

  /** Readers end instead of taking another slot. One that waits in the kernel needs a request to notice. */
  stop(): void {
    Atomics.store(this.#words, STOP, 1)
    Atomics.add(this.#words, FREED, 1)
    Atomics.notify(this.#words, FREED)
  }
}

/** Where a slot lies behind the words. */
function placeOf(slot: number): { readonly at: number; readonly length: number } {
  const start = Math.floor(slot / SLOTS_PER_READER) * READER_BYTES
  const index = slot % SLOTS_PER_READER
  if (index < LARGE_SLOTS_PER_READER) return { at: start + index * LARGE_SLOT_BYTES, length: LARGE_SLOT_BYTES }
  const small = index - LARGE_SLOTS_PER_READER
  return { at: start + LARGE_SLOTS_PER_READER * LARGE_SLOT_BYTES + small * SMALL_SLOT_BYTES, length: SMALL_SLOT_BYTES }
}
