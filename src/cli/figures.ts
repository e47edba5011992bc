/** Numbers as people read them. */

export { moment } from '../base/moment.js'

const UNITS = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB']

/** "0 B", "512 B", "1.5 MiB", "20 GiB": powers of 1024, three digits at most before the unit grows. */
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

/** "8 s", "2 min 5 s", "1 h 3 min" */
export function duration(seconds: number): string {
  const whole = Math.max(0, Math.round(seconds))
  if (whole < 60) return `${String(whole)} s`
  if (whole < 3600) return `${String(Math.floor(whole / 60))} min ${String(whole % 60)} s`
  return `${String(Math.floor(whole / 3600))} h ${String(Math.floor((whole % 3600) / 60))} min`
}

export function percent(part: number, whole: number): string {
  return whole === 0 ? '100 %' : `${String(Math.floor((part / whole) * 100))} %`
}
