/**
 * npm run bench [-- --quick] [--only 5,6,12a] [--beside NAME=COMMAND] [--seed S] [--into DIRECTORY]: isrfs beside its peers on
 * this machine. As root, because the page cache is dropped between rounds and the slow link is a network namespace.
 *
 * --only measures some rows and keeps the others that the directory has, so a long run can be done in parts. --beside adds
 * another FUSE file system to rows 6 to 9, 12, 15 and 16: `COMMAND FILE MOUNTPOINT` shows the file as disk.raw until it is unmounted.
 */
import os from 'node:os'
import path from 'node:path'
import { parseArgs } from 'node:util'
import { measureRow, type Row, type RowResult, type Scale } from './measure.js'
import { daemonsEnded, mountOptions, type Others } from './peers.js'
import { Place } from './place.js'
import { runOf, surroundings, writeReport } from './report.js'
import { isAskedFor, merge, readResults } from './results.js'
import { guestRows } from './rows-guest.js'
import { importRows } from './rows-import.js'
import { readRows } from './rows-read.js'
import { grownRows, leftOverRows, readyRows } from './rows-ready.js'
import { latencyRows, requestRows } from './rows-requests.js'
import { resumeRows } from './rows-resume.js'
import { suspendRows, trickleRows } from './rows-suspend.js'
import { writeRows } from './rows-write.js'

/** Rows that are prepared together, by what their ids begin with. */
const GROUPS: readonly {
  readonly ids: readonly string[]
  prepare(place: Place, scale: Scale, others: Others): Promise<Row[]>
}[] = [
  { ids: ['1', '2', '3'], prepare: guestRows },
  { ids: ['4', '14a', '14b'], prepare: resumeRows },
  { ids: ['5', '6a', '6b', '7a', '7b', '7c'], prepare: readRows },
  { ids: ['8a', '8b', '9'], prepare: writeRows },
  { ids: ['10a', '10b', '10c', '10d'], prepare: suspendRows },
  { ids: ['11'], prepare: trickleRows },
  { ids: ['12a'], prepare: readyRows },
  { ids: ['12b'], prepare: grownRows },
  { ids: ['13'], prepare: importRows },
  { ids: ['15a', '15b', '16a', '16b', '16c'], prepare: requestRows },
  { ids: ['17a', '17b', '17c', '17d', '17e', '17f'], prepare: latencyRows },
  // last: where a disk discards what is freed, the four million scattered pages of its session are removed for hours
  { ids: ['12c'], prepare: leftOverRows }
]

const { values } = parseArgs({
  options: {
    quick: { type: 'boolean', default: false },
    only: { type: 'string', default: '' },
    beside: { type: 'string', multiple: true, default: [] },
    seed: { type: 'string', default: 'isrfs' },
    into: { type: 'string', default: 'docs' }
  }
})
if (process.getuid?.() !== 0) throw new Error('npm run bench needs root: it drops the page cache and limits a link')
const only = values.only === '' ? undefined : values.only.split(',')
const isWanted = (id: string): boolean => only === undefined || isAskedFor(id, only)
const beside = Object.fromEntries(values.beside.map((text) => text.split(/=(.*)/s).slice(0, 2) as [string, string]))
const scale: Scale = { isQuick: values.quick, rounds: values.quick ? 1 : 3 }
const into = path.resolve(values.into)
const run = runOf(values.quick ? 'quick' : 'full')
const about = surroundings(values.seed, os.tmpdir())
const started = Date.now()
const say = (text: string): void => {
  process.stderr.write(`bench: ${((Date.now() - started) / 1000).toFixed(0).padStart(4)} s  ${text}\n`)
}
let current: Place | undefined
for (const signal of ['SIGINT', 'SIGTERM'] as const) {
  process.once(signal, () => void current?.remove().finally(() => process.exit(1)))
}
let results: readonly RowResult[] = only === undefined ? [] : readResults(into)

for (const { ids, prepare } of GROUPS) {
  if (!ids.some(isWanted)) continue
  const place = new Place(values.seed)
  current = place
  try {
    mountOptions.clear()
    const rows = await prepare(place, scale, { beside })
    const preparedWith = [...mountOptions]
    for (const row of rows) {
      if (!isWanted(row.id)) continue
      mountOptions.clear()
      const result = await measureRow(row, run, say, daemonsEnded)
      results = merge(results, [{ ...result, options: [...new Set([...preparedWith, ...mountOptions])] }])
      writeReport(into, about, results)
    }
  } catch (error) {
    say(`rows ${ids.join(', ')}: ${error instanceof Error ? error.message : String(error)}`)
    process.exitCode = 1
  } finally {
    await daemonsEnded()
    await place.remove()
  }
}
