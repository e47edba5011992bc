/** Numbers and answers as people read them; the same forms as in the terminal (cli/figures.ts, cli/mount-facts.ts). */
import type { Status } from './api.js'

const UNITS = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB']

export function bytes(count: number): string {
  let value = count
  let unit = 0
  while (value >= 1024 && unit < UNITS.length - 1) {
    value /= 1024
    unit++
  }
  const digits = unit === 0 || value >= 100 ? 0 : 1
  return `${value.toFixed(digits).replace(/\.0$/, '')} ${UNITS[unit] ?? 'B'}`
}

export function duration(seconds: number): string {
  const whole = Math.max(0, Math.round(seconds))
  if (whole < 60) return `${whole} s`
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${whole % 60} s`
  return `${Math.floor(whole / 3600)} h ${Math.floor((whole % 3600) / 60)} min`
}

/** "8 µs", "16 ms", "2 s" */
export function shortTime(seconds: number): string {
  if (seconds < 1e-3) return `${Math.round(seconds * 1e6)} µs`
  if (seconds < 1) return `${Math.round(seconds * 1e3)} ms`
  return `${Math.round(seconds)} s`
}

export function percent(part: number, whole: number): string {
  return whole === 0 ? '-' : `${Math.floor((Math.min(part, whole) / whole) * 100)} %`
}

export function presentText({ presentBytes, dataBytes, warm }: Status): string {
  return warm || presentBytes > dataBytes
    ? `${bytes(presentBytes)}${warm ? ', all' : ''}`
    : `${bytes(presentBytes)} of ${bytes(dataBytes)}`
}

export function suspendText({ readOnly, discard, state, suspendBytes, suspendSeconds }: Status): string {
  if (readOnly || discard) return 'nothing to suspend: changes are not kept'
  if (state !== 'mounted') return 'on its way to the share'
  const time = suspendSeconds === null ? 'how long is not known yet' : `about ${duration(suspendSeconds)}`
  return `suspend now: ${bytes(suspendBytes)}, ${time}`
}

export function cableText({ warm, shareAnswers }: Status): string {
  if (!shareAnswers) {
    return warm ? 'the share is away; everything is here' : 'the share is away: reads of what is not here wait for it'
  }
  return warm ? 'may be pulled: everything is here' : 'leave it in: Warm fetches what is not here'
}
