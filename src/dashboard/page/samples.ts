/** Rows of counters as they come, and what changed from one to the next. */
import type { View } from './api.js'

const ROWS_MAX = 600

export interface History {
  readonly columns: readonly string[]
  readonly intervalMs: number
  /** number of the row after the last */
  readonly next: number
  readonly rows: readonly (readonly number[])[]
}

export const NO_HISTORY: History = { columns: [], intervalMs: 1000, next: 0, rows: [] }

export function withSamples(history: History, { columns, intervalMs, first, rows }: View['samples']): History {
  const kept = first === history.next ? history.rows : []
  return { columns, intervalMs, next: first + rows.length, rows: [...kept, ...rows].slice(-ROWS_MAX) }
}

/** Seconds before now, oldest first: one for each rate. */
export function timesOf({ rows, intervalMs }: History): number[] {
  return rows.slice(1).map((_row, index) => ((index + 2 - rows.length) * intervalMs) / 1000)
}

/** Change per second. */
export function ratesOf(history: History, column: string): number[] {
  const values = valuesOf(history, column)
  return values.map((value, index) => (index === 0 ? 0 : Math.max(0, value - (values[index - 1] ?? value)))).slice(1)
}

export function valuesOf({ columns, rows }: History, column: string): number[] {
  const index = columns.indexOf(column)
  return rows.map((row) => row[index] ?? 0)
}
