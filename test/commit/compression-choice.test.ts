import test from 'ava'
import { CompressionChoice } from '../../src/commit/compression-choice.js'
import type { Compression } from '../../src/format/block-codec.js'

const MIB = 2 ** 20
const UNIT_BYTES = 16 * MIB
/** so often it is looked what the link can do */
const STEP_MS_MAX = 100
/** MB/s of one thread, and what is left, as measured of the files of a Debian system */
const FILES: Data = {
  raw: [Infinity, 1],
  1: [183, 0.401],
  3: [122, 0.383],
  5: [37, 0.37],
  6: [20, 0.363],
  9: [13, 0.36]
}
/** of data that half of each page of which is random */
const HALVES: Data = {
  raw: [Infinity, 1],
  1: [667, 0.501],
  3: [286, 0.505],
  5: [121, 0.503],
  6: [111, 0.503],
  9: [53, 0.503]
}
const RANDOM: Data = { raw: [Infinity, 1], 1: [1950, 1], 3: [1673, 1], 5: [1306, 1], 6: [1249, 1], 9: [1227, 1] }
const HASH_MB_PER_S = 400

type Data = Readonly<Record<Compression, readonly [number, number]>>

interface Simulated {
  readonly data: Data | ((nowMs: number) => Data)
  /** MB/s */
  readonly link: number | ((nowMs: number) => number)
  readonly threads?: number
  readonly units?: number
  readonly mayBeRaw?: boolean
  /** always this, in place of what is chosen */
  readonly fixed?: Compression
}

interface Unit {
  readonly compression: Compression
  readonly startedMs: number
  readonly compressMs: number
  readonly sendFromMs: number
  readonly plainBytes: number
  readonly storedBytes: number
  leftBytes: number
}

/** A commit by a clock of its own: each thread compresses a unit, then sends it; those that send share the link. */
function commit(simulated: Simulated): { readonly ms: number; readonly chosen: readonly Compression[] } {
  const { threads = 2, units = 60, mayBeRaw = true } = simulated
  const choice = new CompressionChoice({ threads, mayBeRaw })
  const chosen: Compression[] = []
  let running: Unit[] = []
  let nowMs = 0
  const begin = (): Unit => {
    const compression = simulated.fixed ?? choice.compression
    const data = typeof simulated.data === 'function' ? simulated.data(nowMs) : simulated.data
    const plainBytes = chosen.length === 0 ? UNIT_BYTES / 2 : UNIT_BYTES
    const [rate, left] = data[compression]
    const compressMs = plainBytes / rate / 1000
    const storedBytes = plainBytes * left
    const sendFromMs = nowMs + plainBytes / HASH_MB_PER_S / 1000 + compressMs
    chosen.push(compression)
    return { compression, startedMs: nowMs, compressMs, sendFromMs, plainBytes, storedBytes, leftBytes: storedBytes }
  }
  while (chosen.length < units || running.length > 0) {
    while (running.length < threads && chosen.length < units) running.push(begin())
    const link = typeof simulated.link === 'function' ? simulated.link(nowMs) : simulated.link
    const senders = running.filter(({ sendFromMs }) => sendFromMs <= nowMs)
    const bytesPerMs = (link * 1000) / senders.length
    const starts = running.map(({ sendFromMs }) => sendFromMs - nowMs).filter((ms) => ms > 0)
    const ends = senders.map(({ leftBytes }) => leftBytes / bytesPerMs)
    const stepMs = Math.min(STEP_MS_MAX, ...starts, ...ends)
    nowMs += stepMs
    for (const unit of senders) unit.leftBytes -= bytesPerMs * stepMs
    for (const { sendFromMs, ...unit } of senders.filter(({ leftBytes }) => leftBytes < 1)) {
      choice.note({ ...unit, sendStartedMs: sendFromMs, endedMs: nowMs })
    }
    running = running.filter(({ leftBytes }) => leftBytes >= 1)
  }
  return { ms: nowMs, chosen }
}

/** How much longer it took than at level 1, in units of it. */
function unitsLost(simulated: Simulated): number {
  const first = commit({ ...simulated, fixed: 1 }).ms
  return (commit(simulated).ms - first) / (first / (simulated.units ?? 60))
}

test('the first units have level 1', (t) => {
  for (const link of [1, 12.5, 125, 10_000]) t.deepEqual(commit({ data: FILES, link }).chosen.slice(0, 2), [1, 1])
})

test('a slow link gets the highest level that compressing has the time for, and is done earlier for it', (t) => {
  const modem = { data: FILES, link: 0.5 }
  t.is(commit(modem).chosen[3], 9)
  t.true(commit(modem).ms < 0.93 * commit({ ...modem, fixed: 1 }).ms)
  const ethernet = { data: FILES, link: 12.5 }
  t.is(commit(ethernet).chosen[3], 3, '16 MiB travel for 0.5 s, level 5 takes as long')
  t.true(commit(ethernet).ms < commit({ ...ethernet, fixed: 1 }).ms)
})

test('a fast link stays at level 1, or gets the blocks as they are when that is twice as fast and there is room', (t) => {
  t.deepEqual(new Set(commit({ data: FILES, link: 125 }).chosen), new Set([1]))
  const fast = { data: FILES, link: 5000 }
  t.is(commit(fast).chosen.at(-1), 'raw')
  t.true(commit(fast).ms < 0.7 * commit({ ...fast, fixed: 1 }).ms)
  t.deepEqual(new Set(commit({ ...fast, mayBeRaw: false }).chosen), new Set([1]))
  t.deepEqual(
    new Set(commit({ data: HALVES, link: 5000 }).chosen),
    new Set([1]),
    'a little faster is not worth the space'
  )
})

test('data that does not get smaller is not worked on, and one thread has no time that costs nothing', (t) => {
  t.deepEqual(new Set(commit({ data: RANDOM, link: 1 }).chosen), new Set([1]))
  t.deepEqual(new Set(commit({ data: FILES, link: 1, threads: 1 }).chosen), new Set([1]))
})

test('never slower than level 1 by more than a few units, whatever the link and the processor', (t) => {
  for (const [name, data] of Object.entries({ FILES, HALVES, RANDOM })) {
    for (const link of [0.5, 1, 2, 4, 6, 9, 12.5, 18, 25, 40, 60, 90, 125, 250, 500, 1000, 3000]) {
      for (const speed of [0.25, 1, 4]) {
        const slower = scaled(data, speed)
        const lost = unitsLost({ data: slower, link })
        t.true(lost < 3, `${name} at ${String(link)} MB/s, processor x ${String(speed)}: ${lost.toFixed(2)} units lost`)
      }
    }
  }
})

test('a machine that is dearer at the high levels than expected goes back', (t) => {
  const steep: Data = { ...FILES, 5: [6, 0.37], 6: [3, 0.363], 9: [1, 0.36] }
  const { chosen } = commit({ data: steep, link: 4 })
  t.deepEqual(
    chosen.filter((one) => one === 9),
    []
  )
  t.true(chosen.filter((one) => one !== 1 && one !== 3).length <= 3, chosen.join(' '))
  t.true(unitsLost({ data: steep, link: 4 }) < 3)
})

test('a link that becomes fast, and a machine that becomes busy, go back to lower levels, and raw ends when the link slows down', (t) => {
  const becomesFast = { data: FILES, link: (nowMs: number) => (nowMs < 30_000 ? 1 : 125) }
  t.is(commit(becomesFast).chosen[3], 9)
  t.is(commit(becomesFast).chosen.at(-1), 1)
  const becomesBusy = { data: (nowMs: number) => scaled(FILES, nowMs < 10_000 ? 1 : 0.1), link: 12.5 }
  t.true([1, 3].includes(commit(becomesBusy).chosen.at(-1) as number))
  t.true(unitsLost(becomesBusy) < 3)
  const becomesSlow = { data: FILES, link: (nowMs: number) => (nowMs < 500 ? 5000 : 20) }
  t.true(commit(becomesSlow).chosen.includes('raw'))
  t.not(commit(becomesSlow).chosen.at(-1), 'raw')
})

test('units of which nothing travelled say nothing', (t) => {
  const choice = new CompressionChoice({ threads: 2, mayBeRaw: true })
  const times = { startedMs: 0, compressMs: 0, sendStartedMs: 1, endedMs: 1, plainBytes: 0, storedBytes: 0 }
  for (let unit = 0; unit < 10; unit++) choice.note({ compression: 1, ...times })
  t.is(choice.compression, 1)
})

function scaled(data: Data, speed: number): Data {
  return Object.fromEntries(
    Object.entries(data).map(([level, [rate, left]]) => [level, [rate * speed, left]])
  ) as unknown as Data
}
