/**
 * State that one thread (the owner) publishes for others (request threads): from which files the pages of a region are to be
 * had. A table in shared memory of the regions that were read lately; each entry is a lock of its own.
 *
 * Entry: OPEN, USERS, which region of which file, descriptors of its cached and of its session file, and for each page a
 * bit in CACHED and in CHANGED (the session's): the bytes of the file are at their place in that descriptor. Neither bit: ask the owner.
 * WRITABLE: threads may also write to pages in CHANGED, and note the blocks in WRITTEN.
 *
 * Invariants:
 * 1. A thread looks at an entry's pages and descriptors only between enter() and leave(): it adds itself to USERS first,
 *    and is in when the entry is open and names its region after that.
 * 2. The owner changes an entry, a byte that its bits promise, or closes its descriptors only while the entry is closed and
 *    nobody is in: pauseEntry() clears OPEN first and then waits for USERS to be zero.
 * 3. While an entry is open, every bit in it is true, and while it is WRITABLE a write needs nothing but the bytes.
 * By 1 and 2 the owner and a thread are never both in; so by 3 a thread reads the bytes that the file has at that moment.
 * Nobody is kept out for ever: a thread that finds an entry closed does not wait but gives its request to the owner, so only those
 * few that were in keep the owner waiting, each for one read.
 *
 * Everything shared is touched by Atomics only. test/base/region-table.test.ts runs these very functions in all interleavings.
 */
import { BLOCK_BYTES, BLOCKS_PER_REGION, PAGE_BYTES, PAGES_PER_BLOCK, REGION_BYTES } from './units.js'

/** entries that a region can lie in */
const WAYS = 4
const OPEN = 0
const USERS = 1
const INODE_LOW = 2
const INODE_HIGH = 3
const REGION = 4
const CACHED_DESCRIPTOR = 5
const CHANGED_DESCRIPTOR = 6
const HITS = 7
/** 1: threads may write to pages that are in CHANGED */
const WRITABLE = 8
/** a bit for each block that threads have written to since the owner looked; four words */
const WRITTEN = 9
/** how many bytes, in pages */
const WRITTEN_PAGES = 13
const CACHED = 16
const CHANGED = CACHED + BLOCKS_PER_REGION
const ENTRY_WORDS = CHANGED + BLOCKS_PER_REGION
const WORD = 2 ** 32
const NOBODY = -1

/** Reads all of `length` bytes into `bytes` from `at`, or writes all of them; false when that cannot be done. */
export type Transfer = (descriptor: number, bytes: Uint8Array, at: number, length: number, position: number) => boolean

/** Memory for a table of so many regions, a multiple of 4. */
export function createTable(regions: number): Int32Array {
  const words = new Int32Array(new SharedArrayBuffer(regions * ENTRY_WORDS * 4))
  for (let entry = 0; entry < words.length; entry += ENTRY_WORDS) words[entry + REGION] = NOBODY
  return words
}

// Everybody

/** The first of the entries that the region may have: the others follow. */
export function firstEntry(words: Int32Array, low: number, high: number, region: number): number {
  const sets = words.length / ENTRY_WORDS / WAYS
  return (((Math.imul(low ^ high, 31) + region) >>> 0) % sets) * WAYS * ENTRY_WORDS
}

/** The entry that names the region, open or not; -1 when there is none. */
export function findEntry(words: Int32Array, low: number, high: number, region: number): number {
  const first = firstEntry(words, low, high, region)
  for (let entry = first; entry < first + WAYS * ENTRY_WORDS; entry += ENTRY_WORDS) {
    if (isEntryOf(words, entry, low, high, region)) return entry
  }
  return -1
}

function isEntryOf(words: Int32Array, entry: number, low: number, high: number, region: number): boolean {
  return (
    Atomics.load(words, entry + REGION) === region &&
    Atomics.load(words, entry + INODE_LOW) === low &&
    Atomics.load(words, entry + INODE_HIGH) === high
  )
}

// Request threads

/** The entry of the region, for its bytes to be read until leave(); -1 when there is none, or not now. */
export function enter(words: Int32Array, low: number, high: number, region: number): number {
  const entry = findEntry(words, low, high, region)
  if (entry < 0) return -1
  Atomics.add(words, entry + USERS, 1)
  if (Atomics.load(words, entry + OPEN) === 1 && isEntryOf(words, entry, low, high, region)) return entry
  leave(words, entry)
  return -1
}

export function leave(words: Int32Array, entry: number): void {
  const others = Atomics.sub(words, entry + USERS, 1) - 1
  if (others === 0 && Atomics.load(words, entry + OPEN) === 0) Atomics.notify(words, entry + USERS)
}

/** The descriptor that has the page's bytes; -1 when none has. */
function sourceOf(words: Int32Array, entry: number, page: number): number {
  const word = Math.floor(page / PAGES_PER_BLOCK) // a block is one word
  const bit = 1 << (page % PAGES_PER_BLOCK)
  if ((Atomics.load(words, entry + CHANGED + word) & bit) !== 0) return Atomics.load(words, entry + CHANGED_DESCRIPTOR)
  if ((Atomics.load(words, entry + CACHED + word) & bit) !== 0) return Atomics.load(words, entry + CACHED_DESCRIPTOR)
  return -1
}

/** Bytes start..start+length of a region whose entry was entered. */
function readPages(
  words: Int32Array,
  entry: number,
  into: Uint8Array,
  at: number,
  start: number,
  length: number,
  readFully: Transfer
): boolean {
  const end = start + length
  for (let from = start; from < end;) {
    const page = Math.floor(from / PAGE_BYTES)
    const source = sourceOf(words, entry, page)
    if (source < 0) return false
    let next = page + 1
    while (next * PAGE_BYTES < end && sourceOf(words, entry, next) === source) next++
    const to = Math.min(next * PAGE_BYTES, end)
    if (!readFully(source, into, at + from - start, to - from, from)) return false
    from = to
  }
  return true
}

/**
 * Reads bytes offset..offset+length of a file (inode as two words) into `into` from `at`. False when it cannot be done here: then
 * what `into` has there means nothing, and the owner is to be asked.
 */
export function readShared(
  words: Int32Array,
  low: number,
  high: number,
  into: Uint8Array,
  at: number,
  offset: number,
  length: number,
  readFully: Transfer
): boolean {
  const region = Math.floor(offset / REGION_BYTES)
  const start = offset - region * REGION_BYTES
  if (length === 0 || start + length > REGION_BYTES) return false
  const entry = enter(words, low, high, region)
  if (entry < 0) return false
  try {
    if (!readPages(words, entry, into, at, start, length, readFully)) return false
    Atomics.add(words, entry + HITS, 1)
    return true
  } finally {
    leave(words, entry)
  }
}

/**
 * Writes bytes into pages that the session has already: only their bytes change, there is nothing to decide. False when
 * the owner has to do it, all of it, even though some bytes may be written.
 */
export function writeShared(
  words: Int32Array,
  low: number,
  high: number,
  bytes: Uint8Array,
  at: number,
  offset: number,
  length: number,
  writeFully: Transfer
): boolean {
  const region = Math.floor(offset / REGION_BYTES)
  const start = offset - region * REGION_BYTES
  if (length === 0 || start + length > REGION_BYTES) return false
  const entry = enter(words, low, high, region)
  if (entry < 0) return false
  try {
    if (Atomics.load(words, entry + WRITABLE) !== 1 || !areChanged(words, entry, start, start + length)) return false
    for (let block = Math.floor(start / BLOCK_BYTES); block * BLOCK_BYTES < start + length; block++) {
      Atomics.or(words, entry + WRITTEN + (block >>> 5), 1 << (block & 31))
    }
    Atomics.add(words, entry + WRITTEN_PAGES, Math.ceil(length / PAGE_BYTES))
    return writeFully(Atomics.load(words, entry + CHANGED_DESCRIPTOR), bytes, at, length, start)
  } finally {
    leave(words, entry)
  }
}

/** Whether the session has all pages of start..end. */
function areChanged(words: Int32Array, entry: number, start: number, end: number): boolean {
  for (let page = Math.floor(start / PAGE_BYTES); page * PAGE_BYTES < end; page++) {
    const word = Atomics.load(words, entry + CHANGED + Math.floor(page / PAGES_PER_BLOCK))
    if (((word >>> (page % PAGES_PER_BLOCK)) & 1) === 0) return false
  }
  return true
}

// The owner

/** From now on until resumeEntry() no thread is in. Waits for those that are: at most one read of each. */
export function pauseEntry(words: Int32Array, entry: number): void {
  Atomics.store(words, entry + OPEN, 0)
  for (;;) {
    const users = Atomics.load(words, entry + USERS)
    if (users === 0) return
    Atomics.wait(words, entry + USERS, users)
  }
}

export function resumeEntry(words: Int32Array, entry: number): void {
  Atomics.store(words, entry + OPEN, 1)
}

/** Gives a paused entry without pages to a region; the descriptors may be -1. */
export function nameEntry(words: Int32Array, entry: number, low: number, high: number, region: number): void {
  Atomics.store(words, entry + INODE_LOW, low)
  Atomics.store(words, entry + INODE_HIGH, high)
  Atomics.store(words, entry + CACHED_DESCRIPTOR, -1)
  Atomics.store(words, entry + CHANGED_DESCRIPTOR, -1)
  Atomics.store(words, entry + HITS, 0)
  Atomics.store(words, entry + WRITABLE, 0)
  Atomics.store(words, entry + REGION, region)
}

/** Takes a paused entry from its region. */
export function clearEntry(words: Int32Array, entry: number): void {
  Atomics.store(words, entry + REGION, NOBODY)
  for (let word = CACHED; word < ENTRY_WORDS; word++) Atomics.store(words, entry + word, 0)
}

/** Which pages of a block (bits of a word) are where; the entry is paused. */
export function setPages(words: Int32Array, entry: number, block: number, cached: number, changed: number): void {
  Atomics.store(words, entry + CACHED + block, cached)
  Atomics.store(words, entry + CHANGED + block, changed)
}

export function setDescriptors(words: Int32Array, entry: number, cached: number, changed: number): void {
  Atomics.store(words, entry + CACHED_DESCRIPTOR, cached)
  Atomics.store(words, entry + CHANGED_DESCRIPTOR, changed)
}

/** Lets threads write to pages of a paused entry that the session has. */
export function allowWrites(words: Int32Array, entry: number): void {
  Atomics.store(words, entry + WRITABLE, 1)
}

/** They may not any more. Answers the blocks of a paused entry that they have written to, and forgets them. */
export function endWrites(words: Int32Array, entry: number): number[] {
  Atomics.store(words, entry + WRITABLE, 0)
  Atomics.store(words, entry + WRITTEN_PAGES, 0)
  const blocks: number[] = []
  for (let word = 0; word * 32 < BLOCKS_PER_REGION; word++) {
    const written = Atomics.load(words, entry + WRITTEN + word)
    if (written === 0) continue
    Atomics.store(words, entry + WRITTEN + word, 0)
    for (let bit = 0; bit < 32; bit++) if (((written >>> bit) & 1) === 1) blocks.push(word * 32 + bit)
  }
  return blocks
}

/** What the owner looks at, of entries that only it changes. */
export const look = {
  /** offsets of an entry and the next one */
  entryWords: ENTRY_WORDS,
  ways: WAYS,
  isFree: (words: Int32Array, entry: number): boolean => words[entry + REGION] === NOBODY,
  inode: (words: Int32Array, entry: number): number =>
    (words[entry + INODE_HIGH] ?? 0) * WORD + ((words[entry + INODE_LOW] ?? 0) >>> 0),
  region: (words: Int32Array, entry: number): number => words[entry + REGION] ?? NOBODY,
  cachedDescriptor: (words: Int32Array, entry: number): number => words[entry + CACHED_DESCRIPTOR] ?? -1,
  changedDescriptor: (words: Int32Array, entry: number): number => words[entry + CHANGED_DESCRIPTOR] ?? -1,
  cached: (words: Int32Array, entry: number, block: number): number => words[entry + CACHED + block] ?? 0,
  changed: (words: Int32Array, entry: number, block: number): number => words[entry + CHANGED + block] ?? 0,
  isOpen: (words: Int32Array, entry: number): boolean => words[entry + OPEN] === 1,
  /** pages that threads have written to since the owner looked, about */
  writtenPages: (words: Int32Array, entry: number): number => Atomics.load(words, entry + WRITTEN_PAGES),
  /** how often threads have read there; wraps */
  hits: (words: Int32Array, entry: number): number => Atomics.load(words, entry + HITS)
} as const

export function lowWord(value: number): number {
  return value | 0
}

/** of a number up to 2^53 */
export function highWord(value: number): number {
  return Math.floor(value / WORD) | 0
}

/** Bits of the pages of a block that lie wholly below a byte of the region. */
export function pagesBelow(limitBytes: number, block: number): number {
  const pages = Math.floor((limitBytes - block * BLOCK_BYTES) / PAGE_BYTES)
  if (pages <= 0) return 0
  return pages >= PAGES_PER_BLOCK ? -1 : 2 ** pages - 1
}
