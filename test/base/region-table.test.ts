/**
 * The table that request threads read from: the functions of src/base/region-table.ts themselves, in every interleaving of
 * threads with an owner that evicts, truncates, overwrites and publishes. A thread may answer only what the file had, as a whole,
 * at some moment of its reading, or leave it to the owner. What it has written is part of every sync and upload that comes after its answer.
 */
import test from 'ava'
import * as units from '../../src/base/units.js'
import {
  explore,
  type Factory,
  step,
  type Step,
  stepped,
  type Stepped,
  steppedAtomics,
  type World
} from '../support/interleave.js'

const { PAGE_BYTES } = units
const INODE = 2
/** A region of one block, so that a state is small. */
const SMALL = { ...units, BLOCKS_PER_REGION: 1, REGION_BYTES: units.BLOCK_BYTES }
const ENTRY_WORDS = 18
const CACHED = 16
const CHANGED = 17
const REGION = 4
const WRITABLE = 8
const ENTRIES = 4
const NOBODY = -1

/** Files by descriptor, and what the program sees of its own file: pages as letters. */
class Machine {
  readonly table = new Int32Array(ENTRIES * ENTRY_WORDS)
  readonly atomics = steppedAtomics()
  /** by descriptor; what is not open cannot be read */
  readonly files = new Map<number, string[]>()
  readonly code: Record<string, Stepped>
  /** what else is different between two states */
  readonly notes: (string | boolean | undefined)[] = []
  /** per reader: everything that the file was while it read */
  readonly #during = new Map<object, Set<string>>()
  #content: Record<number, string>

  constructor(content: Record<number, string>, factory: Factory) {
    this.#content = content
    this.code = factory({ ...SMALL, Atomics: this.atomics })
    for (let entry = 0; entry < this.table.length; entry += ENTRY_WORDS) this.table[entry + REGION] = NOBODY
  }

  /** From now on the region reads like that. */
  become(region: number, pages: string): void {
    this.#content = { ...this.#content, [region]: pages }
    for (const values of this.#during.values()) values.add(`${String(region)}${pages}`)
  }

  /** One page is one step, so that a change may come between. */
  *#readFully(fd: number, into: string[], at: number, length: number, position: number): Step {
    for (let done = 0; done < length; done += PAGE_BYTES) {
      const page = (position + done) / PAGE_BYTES
      const letter = yield* step(() => this.files.get(fd)?.[page] ?? 'not open')
      if (letter === 'not open') return false
      into[(at + done) / PAGE_BYTES] = letter
    }
    return true
  }

  /** A thread that is asked for the first `pages` pages of a region. */
  *reader(region: number, pages: number, kind: 'whole' | 'torn' = 'whole'): Step {
    const during = new Set([`${String(region)}${this.#content[region] ?? ''}`])
    const id = {}
    yield* step(() => {
      during.clear()
      during.add(`${String(region)}${this.#content[region] ?? ''}`)
      this.#during.set(id, during)
    })
    const into: string[] = []
    const offset = region * SMALL.REGION_BYTES
    const readFully = this.#readFully.bind(this)
    const length = pages * PAGE_BYTES
    const done = yield* this.code.readShared!(this.table, INODE, 0, into, 0, offset, length, readFully)
    this.#during.delete(id)
    const allowed = [...during].map((content) => content.slice(1, 1 + pages))
    if (kind === 'torn') return done
    if (done === true && !allowed.includes(into.join(''))) {
      throw new Error(`answered ${into.join('')} where the file had ${allowed.join(' or ')}`)
    }
    return done
  }

  /** One page is one step; answers whether all was done. */
  *#writeFully(fd: number, from: string[], at: number, length: number, position: number): Step {
    for (let done = 0; done < length; done += PAGE_BYTES) {
      const page = (position + done) / PAGE_BYTES
      const isOpen = yield* step(() => {
        const pages = this.files.get(fd)
        if (pages === undefined) return false
        pages[page] = from[(at + done) / PAGE_BYTES] ?? '?'
        return true
      })
      if (!isOpen) return false
    }
    return true
  }

  /** A thread that is asked to write the first pages of a region. `answered` is told when it has answered that itself. */
  *writer(region: number, letters: string, answered: () => void): Step {
    const offset = region * SMALL.REGION_BYTES
    const length = letters.length * PAGE_BYTES
    const writeFully = this.#writeFully.bind(this)
    const done = yield* this.code.writeShared!(this.table, INODE, 0, Array.from(letters), 0, offset, length, writeFully)
    if (done === true) yield* step(answered)
    return done
  }

  /** As SharedRegions does it, without steps: the state at the beginning. Answers the entry. */
  publish(region: number, cached: [fd: number, bits: number], changed: [fd: number, bits: number]): number {
    const { table } = this
    let entry = 0
    while (table[entry + REGION] !== NOBODY) entry += ENTRY_WORDS
    table.set([1, 0, INODE, 0, region, cached[0], changed[0], 0], entry)
    table[entry + CACHED] = cached[1]
    table[entry + CHANGED] = changed[1]
    return entry
  }

  world(...threads: (() => Step)[]): World {
    return {
      threads,
      state: () => {
        const files = [...this.files].map(([fd, pages]) => `${String(fd)}${pages.join('')}`).sort()
        const during = [...this.#during.values()].map((values) => [...values].sort().join())
        return `${this.table.join()} ${this.notes.join()} ${files.join()} ${JSON.stringify(this.#content)} ${during.join(';')}`
      }
    }
  }
}

const CACHE_FD = 5
const SESSION_FD = 6
const OTHER_FD = 7
/** pages 0 and 1 */
const BOTH = 3

/** The region is evicted, its descriptor closed and given to another file, and its entry to another region. */
function evicts(factory: Factory): World {
  const machine = new Machine({ 0: 'ab', 1: 'xy' }, factory)
  const { table, code, files } = machine
  const entry = machine.publish(0, [CACHE_FD, BOTH], [-1, 0])
  files.set(CACHE_FD, ['a', 'b'])
  return machine.world(
    function* () {
      yield* code.pauseEntry!(table, entry)
      yield* step(() => files.delete(CACHE_FD))
      yield* code.setDescriptors!(table, entry, -1, -1)
      yield* code.clearEntry!(table, entry)
      yield* code.pauseEntry!(table, entry)
      yield* code.nameEntry!(table, entry, INODE, 0, 1)
      yield* step(() => files.set(CACHE_FD, ['x', 'y']))
      yield* code.setDescriptors!(table, entry, CACHE_FD, -1)
      yield* code.setPages!(table, entry, 0, BOTH, 0)
      yield* code.resumeEntry!(table, entry)
    },
    () => machine.reader(0, 2),
    () => machine.reader(1, 1)
  )
}

/** A page that was read from the cache gets its first write, and then another one. */
function writes(factory: Factory): World {
  const machine = new Machine({ 0: 'ab' }, factory)
  const { table, code, files } = machine
  const entry = machine.publish(0, [CACHE_FD, BOTH], [-1, 0])
  files.set(CACHE_FD, ['a', 'b'])
  return machine.world(
    function* () {
      yield* code.pauseEntry!(table, entry)
      yield* step(() => files.set(SESSION_FD, ['A', '?']))
      yield* step(() => machine.become(0, 'Ab'))
      yield* code.setDescriptors!(table, entry, CACHE_FD, SESSION_FD)
      yield* code.setPages!(table, entry, 0, 2, 1)
      yield* code.resumeEntry!(table, entry)
      yield* code.pauseEntry!(table, entry)
      yield* step(() => files.set(SESSION_FD, ['A', 'B']))
      yield* step(() => files.set(SESSION_FD, ['C', 'B']))
      yield* step(() => machine.become(0, 'CB'))
      yield* code.setPages!(table, entry, 0, 0, BOTH)
      yield* code.resumeEntry!(table, entry)
    },
    () => machine.reader(0, 2)
  )
}

/** Cut to nothing and grown again: the base's bytes are gone, a new page is written. */
function truncates(factory: Factory): World {
  const machine = new Machine({ 0: 'ab' }, factory)
  const { table, code, files } = machine
  const entry = machine.publish(0, [CACHE_FD, 2], [SESSION_FD, 1])
  files.set(CACHE_FD, ['?', 'b'])
  files.set(SESSION_FD, ['a', '?'])
  return machine.world(
    function* () {
      yield* code.pauseEntry!(table, entry)
      yield* step(() => files.delete(CACHE_FD))
      yield* step(() => files.delete(SESSION_FD))
      yield* code.setDescriptors!(table, entry, -1, -1)
      yield* code.clearEntry!(table, entry)
      yield* step(() => machine.become(0, ''))
      yield* step(() => machine.become(0, '00'))
      yield* step(() => machine.become(0, 'n0'))
      yield* code.nameEntry!(table, entry, INODE, 0, 0)
      yield* step(() => files.set(CACHE_FD, ['n', '?']))
      yield* code.setDescriptors!(table, entry, -1, CACHE_FD)
      yield* code.setPages!(table, entry, 0, 0, 1)
      yield* code.resumeEntry!(table, entry)
    },
    () => machine.reader(0, 2)
  )
}

/** Two syncs in a row, the second of a region that the owner has not written to since: each covers what was answered before. */
function syncs(factory: Factory): World {
  const machine = new Machine({ 0: 'ab' }, factory)
  const { table, code, files, notes } = machine
  const entry = machine.publish(0, [-1, 0], [SESSION_FD, BOTH])
  table[entry + WRITABLE] = 1
  files.set(SESSION_FD, ['a', 'b'])
  let answered = false
  return machine.world(
    function* () {
      for (let isUnsynced = true, round = 0; round < 2; round++) {
        const mustHave = yield* step(() => answered)
        yield* code.pauseEntry!(table, entry)
        yield* code.endWrites!(table, entry)
        yield* code.resumeEntry!(table, entry)
        if (isUnsynced) yield* step(() => (notes[0] = files.get(SESSION_FD)?.join('')))
        isUnsynced = false
        if (mustHave && notes[0] !== 'XY') throw new Error(`a sync left ${String(notes[0])} on the disk`)
      }
    },
    () => machine.writer(0, 'XY', () => void (notes[1] = answered = true)),
    () => machine.reader(0, 1, 'torn')
  )
}

/** The bytes are read for the share; they count, and the region's own go, when nothing has written there meanwhile. */
function uploads(factory: Factory): World {
  const machine = new Machine({ 0: 'ab' }, factory)
  const { table, code, files, notes } = machine
  const entry = machine.publish(0, [-1, 0], [SESSION_FD, BOTH])
  table[entry + WRITABLE] = 1
  files.set(SESSION_FD, ['a', 'b'])
  let answered = false
  return {
    ...machine.world(
      function* () {
        let tick = 0
        const look = function* (): Step {
          yield* code.pauseEntry!(table, entry)
          const blocks = (yield* code.endWrites!(table, entry)) as number[]
          yield* code.resumeEntry!(table, entry)
          tick += blocks.length
          return tick
        }
        const before = yield* look()
        const sent = yield* step(() => files.get(SESSION_FD)?.[0])
        const alsoSent = yield* step(() => files.get(SESSION_FD)?.[1])
        if ((yield* look()) !== before) return
        yield* code.pauseEntry!(table, entry)
        yield* code.clearEntry!(table, entry)
        yield* step(() => {
          files.delete(SESSION_FD)
          notes[0] = `${String(sent)}${String(alsoSent)}`
        })
      },
      () => machine.writer(0, 'XY', () => void (notes[1] = answered = true))
    ),
    atEnd: () => {
      const content = String(notes[0] ?? files.get(SESSION_FD)?.join(''))
      if (answered && content !== 'XY') throw new Error(`a write was answered, and ${content} is what is left`)
    }
  }
}

/**
 * A checkpoint ends the writes to all regions, and then copies them: a program that writes to one after the other never has
 * the second write in the copy without the first. `copiesEarly` is the defect: the first region is copied before its writes have ended.
 */
function holds(factory: Factory, copiesEarly = false): World {
  const machine = new Machine({ 0: 'ab', 1: 'cd' }, factory)
  const { table, code, files, notes } = machine
  const regions = [
    { fd: SESSION_FD, entry: machine.publish(0, [-1, 0], [SESSION_FD, BOTH]) },
    { fd: OTHER_FD, entry: machine.publish(1, [-1, 0], [OTHER_FD, BOTH]) }
  ]
  for (const { entry } of regions) table[entry + WRITABLE] = 1
  files.set(SESSION_FD, ['a', 'b'])
  files.set(OTHER_FD, ['c', 'd'])
  const ends = function* (entry: number): Step {
    yield* code.pauseEntry!(table, entry)
    yield* code.endWrites!(table, entry)
    yield* code.resumeEntry!(table, entry)
    return undefined
  }
  const copies = function* (fd: number): Step {
    yield* step(() => (notes[fd] = files.get(fd)?.[0]))
    return undefined
  }
  return {
    ...machine.world(
      function* () {
        if (copiesEarly) yield* copies(SESSION_FD)
        for (const { entry } of regions) yield* ends(entry)
        if (!copiesEarly) yield* copies(SESSION_FD)
        yield* copies(OTHER_FD)
        return undefined
      },
      function* () {
        if ((yield* machine.writer(0, 'X', () => undefined)) !== true) return false
        return yield* machine.writer(1, 'Y', () => undefined)
      }
    ),
    atEnd: () => {
      const copied = `${String(notes[SESSION_FD])}${String(notes[OTHER_FD])}`
      if (copied === 'aY') throw new Error('the copy has the second write without the first')
    }
  }
}

const GIVEN = ['Atomics', ...Object.keys(SMALL)]
const CALLS = ['readFully', 'writeFully']
const CORRECT = stepped('base/region-table.js', GIVEN, CALLS)

const SCENES = { evicts, writes, truncates, syncs, uploads, holds }

for (const [name, scene] of Object.entries(SCENES)) {
  test(`no interleaving answers bytes that the file did not have: the owner ${name}`, (t) => {
    const { states, ends } = explore(() => scene(CORRECT))
    t.log(`${String(states)} states, ${String(ends)} ends`)
    t.true(ends > 1)
  })
}

const DEFECTS: Record<string, readonly [scene: keyof typeof SCENES, from: string, to: string]> = {
  'the owner does not wait for users': ['evicts', 'if (users === 0)', 'if (users >= 0)'],
  'the owner does not close the entry': ['evicts', 'Atomics.store(words, entry + OPEN, 0)', 'Atomics.load(words, 0)'],
  'a thread counts itself late': [
    'writes',
    'Atomics.add(words, entry + USERS, 1);\n    if (Atomics.load(words, entry + OPEN) === 1',
    'const open = Atomics.load(words, entry + OPEN); Atomics.add(words, entry + USERS, 1);\n    if (open === 1'
  ],
  'a thread does not look again whose entry it is': [
    'evicts',
    '=== 1 && isEntryOf(words, entry, low, high, region)',
    '=== 1'
  ],
  'a thread leaves before it has read': [
    'writes',
    'const end = start + length;',
    'const end = start + length; Atomics.sub(words, entry + USERS, 1);'
  ],
  'a thread does not look whether it may write': ['syncs', 'Atomics.load(words, entry + WRITABLE) !== 1', 'false'],
  'a thread looks whether it may write before it is in': [
    'uploads',
    'const entry = enter(words, low, high, region);\n    if (entry < 0)\n        return false;\n    try {\n        if (Atomics.load(words, entry + WRITABLE) !== 1',
    'const may = Atomics.load(words, WRITABLE);\n    const entry = enter(words, low, high, region);\n    if (entry < 0)\n        return false;\n    try {\n        if (may !== 1'
  ],
  'the end of writes is none for a sync': [
    'syncs',
    'Atomics.store(words, entry + WRITABLE, 0);\n    Atomics.store(words, entry + WRITTEN_PAGES, 0);',
    'Atomics.store(words, entry + WRITTEN_PAGES, 0);'
  ],
  'the end of writes is none for an upload': [
    'uploads',
    'Atomics.store(words, entry + WRITABLE, 0);\n    Atomics.store(words, entry + WRITTEN_PAGES, 0);',
    'Atomics.store(words, entry + WRITTEN_PAGES, 0);'
  ],
  'the end of writes is none for a checkpoint': [
    'holds',
    'Atomics.store(words, entry + WRITABLE, 0);\n    Atomics.store(words, entry + WRITTEN_PAGES, 0);',
    'Atomics.store(words, entry + WRITTEN_PAGES, 0);'
  ],
  'nobody is told that the last user has left': [
    'truncates',
    'Atomics.notify(words, entry + USERS)',
    'Atomics.load(words, entry + USERS)'
  ]
}

for (const [name, [scene, from, to]] of Object.entries(DEFECTS)) {
  test(`the search finds a defect: ${name}`, (t) => {
    const factory = stepped('base/region-table.js', GIVEN, CALLS, [from, to])
    t.throws(() => explore(() => SCENES[scene](factory)))
  })
}

test('the search finds a defect: a checkpoint copies a region before it has ended its writes', (t) => {
  t.throws(() => explore(() => holds(CORRECT, true)), { message: /second write without the first/ })
})
