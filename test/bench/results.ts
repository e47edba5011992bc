/**
 * results.json: what was measured, run by run. A run of some rows replaces those in the file and keeps the others, so that a
 * long run can be done in parts; each row says when, how and of which commit it was measured.
 */
import fs from 'node:fs'
import path from 'node:path'
import type { RowResult } from './measure.js'
import type { Surroundings } from './report.js'

interface Results {
  readonly about: Surroundings
  readonly rows: readonly RowResult[]
}

export function resultsFile(directory: string): string {
  return path.join(directory, 'benchmarks', 'results.json')
}

/** Rows of earlier runs; those of before rows said how they were measured are left out. */
export function readResults(directory: string): readonly RowResult[] {
  const file = resultsFile(directory)
  if (!fs.existsSync(file)) return []
  // this program has written it
  const { rows } = JSON.parse(fs.readFileSync(file, 'utf8')) as Results
  return rows.filter((row) => 'run' in row)
}

/** In the order of the numbers; a row that was measured again takes the place of the older one. */
export function merge(older: readonly RowResult[], newer: readonly RowResult[]): RowResult[] {
  const kept = older.filter(({ id }) => !newer.some((row) => row.id === id))
  return [...kept, ...newer]
    .map((row, position) => ({ row, position }))
    .sort((first, second) => compareIds(first.row.id, second.row.id) || first.position - second.position)
    .map(({ row }) => row)
}

/** Numbers by value, then letters; what follows a comma stays in the order in which it was measured. */
function compareIds(first: string, second: string): number {
  const [one, other] = [keyOf(first), keyOf(second)]
  return one.number - other.number || one.letter.localeCompare(other.letter)
}

function keyOf(id: string): { number: number; letter: string } {
  const [, digits = '0', letter = ''] = /^(\d+)([a-z]*)/.exec(id) ?? []
  return { number: Number(digits), letter }
}

/** Whether a word of --only asks for the row: 12 for all of that number, 12a for those with the letter. */
export function isAskedFor(id: string, words: readonly string[]): boolean {
  const { number, letter } = keyOf(id)
  return words.some((word) => word === String(number) || word === `${number}${letter}`)
}

/** What the rows have most in common: where others differ, they say so. */
export function usual<Value>(values: readonly Value[]): Value | undefined {
  const counts = new Map<Value, number>()
  for (const value of values) counts.set(value, (counts.get(value) ?? 0) + 1)
  return [...counts].sort((first, second) => second[1] - first[1])[0]?.[0]
}
