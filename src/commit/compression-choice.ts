/**
 * How hard the units of one commit are compressed, by what the units before have shown of the link and the processors.
 *
 *     raw <--> level 1 <--> 3 <--> 5 <--> 6 <--> 9
 *      the link is faster          the link is what everybody waits for
 *      than level 1
 *
 * Two units are on their way at a time: while one is compressed, the other one travels. So compressing costs nothing as long
 * as it takes no longer than travelling, and the best level is the highest of which that is true.
 *
 * Invariants:
 * 1. The first units have level 1, and nothing is chosen that was not seen to fit, or is expected to with room to spare.
 * 2. A level that lets the link idle is left, and counts as dearer from then on: a commit is slower than at level 1 by a few
 *    units at most.
 * 3. Raw needs to be twice as fast: it costs space on the share, and time of everybody who reads it.
 *
 * It only chooses: what is stored, and where, is the same to every reader (docs/format.md, "Blocks").
 */
import type { Compression, CompressionLevel } from '../format/block-codec.js'

/** What a unit took. Moments are in milliseconds of one clock that all threads have. */
export interface UnitTimes {
  readonly compression: Compression
  readonly startedMs: number
  /** of the time until the sending began */
  readonly compressMs: number
  readonly sendStartedMs: number
  readonly endedMs: number
  /** of the blocks that travelled */
  readonly plainBytes: number
  readonly storedBytes: number
}

interface Step {
  readonly level: CompressionLevel
  /** time that it takes and bytes that it leaves, in those of level 1 (docs/performance.md, "A suspend") */
  readonly cost: number
  readonly size: number
}

const FIRST: Step = { level: 1, cost: 1, size: 1 }
const STEPS: readonly Step[] = [
  FIRST,
  { level: 3, cost: 1.8, size: 0.96 },
  { level: 5, cost: 5, size: 0.93 },
  { level: 6, cost: 8, size: 0.91 },
  { level: 9, cost: 13, size: 0.9 }
]

/** what the link is judged by */
const WINDOW_UNITS = 4
/** with less nothing is decided */
const UNITS_TO_JUDGE = 2
/** data that level 1 leaves as it is will not get smaller */
const INCOMPRESSIBLE = 15 / 16
/**
 * Part of the time of travelling that a level may take to be chosen, and to be kept. Half: two units that travel together keep
 * their distance, and that is half of what one takes at first (commit.ts).
 */
const ROOM = 0.5
const ROOM_KEPT = 0.8
/** part of the time that the link may idle while a level above 1 is in use */
const IDLE_MAX = 0.02
/** a level that was not tried is expected to be this much dearer than the table says */
const UNTRIED = 1.5
/** one that has let the link idle counts as this much dearer */
const DEARER = 1.5
const RAW_GAIN = 2

export class CompressionChoice {
  readonly #threads: number
  readonly #mayBeRaw: boolean
  /** the last ones that ended, oldest first */
  #window: UnitTimes[] = []
  #step: Step = FIRST
  #isRaw = false
  /** units that began before do not count for the level */
  #sinceMs = -Infinity
  /** compressing, in milliseconds for each byte of travelling blocks, of levels that were tried */
  readonly #costs = new Map<Step, number>()
  readonly #penalties = new Map<Step, number>()
  /** what level 1 leaves of a byte */
  #firstRatio: number | undefined

  /** `threads`: how many units are on their way at a time. `mayBeRaw`: the share has room for it. */
  constructor(options: { readonly threads: number; readonly mayBeRaw: boolean }) {
    this.#threads = options.threads
    this.#mayBeRaw = options.mayBeRaw
  }

  /** For the next unit. */
  get compression(): Compression {
    return this.#isRaw ? 'raw' : this.#step.level
  }

  /** A unit is on the share. Those of which nothing had to travel say nothing. */
  note(unit: UnitTimes): void {
    if (unit.plainBytes === 0 || unit.storedBytes === 0) return
    this.#window = [...this.#window, unit].slice(-WINDOW_UNITS)
    this.#learn(unit)
    if (this.#window.length < UNITS_TO_JUDGE) return
    const before = this.compression
    if (this.#isRaw) this.#isRaw = this.#rawGain() >= 1
    else {
      this.#leaveIfIdle()
      this.#step = this.#highestThatFits()
      this.#isRaw = this.#mayBeRaw && this.#step === FIRST && this.#rawGain() >= RAW_GAIN
    }
    if (this.compression !== before) this.#sinceMs = unit.endedMs
  }

  #learn({ compression, compressMs, plainBytes, storedBytes }: UnitTimes): void {
    const step = STEPS.find(({ level }) => level === compression)
    if (step === undefined) return
    this.#costs.set(step, smoothed(this.#costs.get(step), compressMs / plainBytes))
    this.#firstRatio = smoothed(this.#firstRatio, storedBytes / plainBytes / step.size)
  }

  /** Invariant 2. */
  #leaveIfIdle(): void {
    const own = this.#window.filter(({ startedMs }) => startedMs >= this.#sinceMs)
    if (this.#step === FIRST || own.length < UNITS_TO_JUDGE) return
    const start = Math.min(...own.map(({ startedMs }) => startedMs))
    const end = Math.max(...own.map(({ endedMs }) => endedMs))
    const idle = 1 - this.#sendingMs(start, end) / (end - start)
    if (idle <= IDLE_MAX) return
    this.#penalties.set(this.#step, (this.#penalties.get(this.#step) ?? 1) * DEARER)
    this.#step = STEPS[STEPS.indexOf(this.#step) - 1] ?? FIRST
  }

  #highestThatFits(): Step {
    if (this.#threads < 2 || (this.#firstRatio ?? 1) > INCOMPRESSIBLE) return FIRST
    const fits = (step: Step): boolean => {
      const room = step === this.#step ? ROOM_KEPT : ROOM
      return this.#prepareCost() + this.#costOf(step) <= room * this.#travelCost(step)
    }
    return STEPS.findLast(fits) ?? FIRST
  }

  /** How many times as fast raw is as level 1. */
  #rawGain(): number {
    return this.#pace(this.#costOf(FIRST), this.#travelCost(FIRST)) / this.#pace(0, this.#linkCost())
  }

  /** Milliseconds for each byte, with as many units on their way as there are threads. */
  #pace(compressCost: number, travelCost: number): number {
    return Math.max(travelCost, (this.#prepareCost() + compressCost + travelCost) / this.#threads)
  }

  // Costs are milliseconds for each byte of the blocks that travel, as they are before they are compressed.

  #costOf(step: Step): number {
    const tried = STEPS.slice(0, STEPS.indexOf(step) + 1).filter((one) => this.#costs.has(one))
    const highest = tried.at(-1) ?? FIRST
    const cost = Math.max(0, ...tried.map((one) => (this.#costs.get(one) ?? 0) * (this.#penalties.get(one) ?? 1))) // no level is cheaper than a lower one
    return highest === step ? cost : (cost * step.cost * UNTRIED) / highest.cost
  }

  /** Putting together, comparing, hashing. */
  #prepareCost(): number {
    const prepareMs = this.#window.map((unit) => unit.sendStartedMs - unit.startedMs - unit.compressMs)
    return sum(prepareMs) / sum(this.#window.map(({ plainBytes }) => plainBytes))
  }

  #travelCost({ size }: Step): number {
    return this.#linkCost() * (this.#firstRatio ?? 1) * size
  }

  #linkCost(): number {
    return this.#sendingMs(-Infinity, Infinity) / sum(this.#window.map(({ storedBytes }) => storedBytes))
  }

  /** How long at least one of the window's units was travelling between the two moments. */
  #sendingMs(start: number, end: number): number {
    let total = 0
    let doneMs = start
    for (const { sendStartedMs, endedMs } of this.#window.toSorted(
      (one, other) => one.sendStartedMs - other.sendStartedMs
    )) {
      const untilMs = Math.min(endedMs, end)
      total += Math.max(0, untilMs - Math.max(sendStartedMs, doneMs))
      doneMs = Math.max(doneMs, untilMs)
    }
    return total
  }
}

function smoothed(known: number | undefined, measured: number): number {
  return known === undefined ? measured : (known + measured) / 2
}

function sum(numbers: readonly number[]): number {
  return numbers.reduce((total, one) => total + one, 0)
}
