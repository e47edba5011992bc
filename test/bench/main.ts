/**
 * npm run bench [-- --quick] [--only 5,6,12] [--seed S] [--into DIRECTORY]: isrfs beside its peers on this machine.
 * As root, because the page cache is dropped between rounds and the slow link is a network namespace.
 */
import fs from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { parseArgs } from 'node:util'
import { measureRow, type Row, type RowResult } from './measure.js'
import { Place } from './place.js'
import { surroundings, writeReport } from './report.js'
import { guestRows } from './rows-guest.js'
import { resumeRows } from './rows-resume.js'
import { importRows, readRows, type Scale, writeRows } from './rows-local.js'
import { readyRows, suspendRows, trickleRows } from './rows-mount.js'

const GROUPS: readonly { readonly numbers: readonly number[]; prepare(place: Place, scale: Scale): Promise<Row[]> }[] =
  [
    { numbers: [1, 2, 3], prepare: guestRows },
    { numbers: [4, 14], prepare: resumeRows },
    { numbers: [5, 6, 7], prepare: readRows },
    { numbers: [8, 9], prepare: writeRows },
    { numbers: [10], prepare: suspendRows },
    { numbers: [11], prepare: trickleRows },
    { numbers: [12], prepare: readyRows },
    { numbers: [13], prepare: importRows }
  ]

const { values } = parseArgs({
  options: {
    quick: { type: 'boolean', default: false },
    only: { type: 'string', default: '' },
    seed: { type: 'string', default: 'isrfs' },
    into: { type: 'string', default: 'docs' }
  }
})
const wanted = values.only === '' ? undefined : values.only.split(',').map(Number)
const scale: Scale = { isQuick: values.quick, rounds: values.quick ? 2 : 5 }
if (process.getuid?.() !== 0) throw new Error('npm run bench needs root: it drops the page cache and limits a link')
const about = surroundings(values.quick ? 'quick' : 'full', values.seed, os.tmpdir())
const say = (text: string): void => void process.stderr.write(`bench: ${text}\n`)
const results: RowResult[] = []

for (const { numbers, prepare } of GROUPS) {
  if (wanted !== undefined && !numbers.some((number) => wanted.includes(number))) continue
  const place = new Place(values.seed)
  try {
    for (const row of await prepare(place, scale)) {
      if (wanted?.includes(parseInt(row.id, 10)) === false) continue
      results.push(await measureRow(row, say))
      writeReport(path.resolve(values.into), about, results)
    }
  } catch (error) {
    say(`rows ${numbers.join(', ')}: ${error instanceof Error ? error.message : String(error)}`)
    process.exitCode = 1
  } finally {
    await place.undo()
    fs.rmSync(place.root, { recursive: true, force: true })
  }
}
