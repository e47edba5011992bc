/**
 * The way of requests from the reader threads to the owner: slots in shared memory, and a ring of filled slots.
 *
 * Each slot belongs to one reader. Its word says whose turn it is:
 *
 *     free --reader fills it, publish()--> queued --owner, next()--> (with the owner) --release()--> free
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

export const SLOTS_PER_READER = 8
/** the kernel wants room for the largest WRITE and its structures */
const SLOT_BYTES = IO_BYTES_MAX + 4096

const FREE = 0
const TAKEN = 1

/** Words before the slots' own: */
const TAIL = 0
const AWAKE = 1
const STOP = 2
const FREED = 3
const WORDS = 4
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
    this.memory = memory ?? new SharedArrayBuffer(wordBytes + count * SLOT_BYTES)
    assert(this.memory.byteLength === wordBytes + count * SLOT_BYTES)
    this.#words = new Int32Array(this.memory, 0, WORDS)
    this.#head = Atomics.load(this.#words, TAIL) & COUNT_MASK
    this.#ring = new Int32Array(this.memory, WORDS * 4, places)
    this.#states = new Int32Array(this.memory, (WORDS + places) * 4, count)
    this.#lengths = new Int32Array(this.memory, (WORDS + places + count) * 4, count)
    this.slots = Array.from({ length: count }, (_, index) =>
      messageOn(Buffer.from(this.memory, wordBytes + index * SLOT_BYTES, SLOT_BYTES))
    )
  }

  // Readers

  /** A free slot of this reader; waits for one. undefined when the readers are to stop. */
  takeSlot(reader: number): number | undefined {
    for (;;) {
      const freed = Atomics.load(this.#words, FREED)
      if (this.isStopping) return undefined
      for (let slot = reader * SLOTS_PER_READER; slot < (reader + 1) * SLOTS_PER_READER; slot++) {
        if (Atomics.load(this.#states, slot) === FREE) return slot
      }
      Atomics.wait(this.#words, FREED, freed)
    }
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
    if (Atomics.load(this.#ring, this.#head % this.#ring.length) === 0) return true
    return Atomics.exchange(this.#words, AWAKE, 1) !== 0 // whoever set it meanwhile wakes us
  }

  lengthOf(slot: number): number {
    return this.#lengths[slot] ?? 0
  }

  release(slot: number): void {
    Atomics.store(this.#states, slot, FREE)
    Atomics.add(this.#words, FREED, 1)
    Atomics.notify(this.#words, FREED)
  }

  /** Readers end instead of taking another slot. One that waits in the kernel needs a request to notice. */
  stop(): void {
    Atomics.store(this.#words, STOP, 1)
    Atomics.add(this.#words, FREED, 1)
    Atomics.notify(this.#words, FREED)
  }
}
