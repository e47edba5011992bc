/**
 * Every file system call of a VM's life goes wrong once, in every way it can (campaign.ts). `npm test` tries a sample,
 * `npm run test:long` all of them: ISRFS_FAULT_CASES=all, with ISRFS_FAULT_PART=1/2 the odd half of them.
 * ISRFS_FAULT_CASE="mount: EIO at share openSync 3" repeats one;
 * ISRFS_FAULT_SCENARIO=checkpoint takes them from one scenario only, ISRFS_FAULT_LIKE='hang|lie-ok' those that look like that. ISRFS_FAULT_LIST=FILE writes down each case that is tried,
 * one a line; with ISRFS_FAULT_CASES=list all of them, and none is tried.
 */
import fs from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import test from 'ava'
import { Random } from '../support/random.js'
import { type Case, casesOf, describeCase, runCase, SCENARIOS } from './campaign.js'
import { installFaultyFileSystem } from './faulty-process.js'
import { installInProcessPools } from './in-process-pools.js'

const SAMPLE = 150
const CASES_MIN = 10_000
const PROGRESS_EVERY = 1000
const memory = fs.existsSync('/dev/shm') ? '/dev/shm' : os.tmpdir() // fsync of a disk would take most of the time

installFaultyFileSystem()
installInProcessPools()

test('no accepted byte is lost or wrong, whichever call fails', async (t) => {
  t.timeout(12 * 3600_000)
  const random = new Random()
  t.log(`seed ${String(random.seed)}`)
  const root = fs.mkdtempSync(path.join(memory, 'isrfs-fault-'))
  t.teardown(() => fs.rmSync(root, { recursive: true, force: true }))
  const all: Case[] = []
  const only = process.env['ISRFS_FAULT_SCENARIO']
  const scenarios = SCENARIOS.filter((scenario) => only === undefined || scenario === only)
  const like = new RegExp(process.env['ISRFS_FAULT_LIKE'] ?? '')
  for (const scenario of scenarios)
    all.push(...(await casesOf(scenario, root)).filter((each) => like.test(describeCase(each))))
  t.true(like.source !== '(?:)' || only !== undefined || all.length >= CASES_MIN, `${String(all.length)} cases`)
  const wanted = process.env['ISRFS_FAULT_CASES'] ?? String(SAMPLE)
  const [part = 1, parts = 1] = (process.env['ISRFS_FAULT_PART'] ?? '1/1').split('/').map(Number)
  const one = process.env['ISRFS_FAULT_CASE']
  const chosen =
    one !== undefined
      ? all.filter((each) => describeCase(each) === one)
      : wanted === 'list'
        ? []
        : wanted === 'all'
          ? all.filter((_, index) => index % parts === part - 1)
          : sampleOf(all, Number(wanted), random)
  const list = process.env['ISRFS_FAULT_LIST']
  if (list !== undefined)
    fs.writeFileSync(list, (wanted === 'list' ? all : chosen).map((each) => `${describeCase(each)}\n`).join(''))
  const counts = new Map<string, number>()
  const findings: string[] = []
  let fired = 0
  for (const [index, each] of chosen.entries()) {
    const { process: faulty, found } = await runCase(each, path.join(root, String(index)), random.seed + index)
    for (const why of found) {
      findings.push(`${describeCase(each)}: ${why}`)
      t.log(findings.at(-1))
    }
    if (index % PROGRESS_EVERY === PROGRESS_EVERY - 1)
      t.log(`${String(index + 1)} cases, ${String(findings.length)} findings`)
    if (faulty.fired) fired++
    const key = each.fault.kind
    counts.set(key, (counts.get(key) ?? 0) + 1)
  }
  t.deepEqual(findings, [])
  t.true(fired >= chosen.length * 0.9, `${String(fired)} of ${String(chosen.length)} faults were met`)
  t.log(`${String(chosen.length)} of ${String(all.length)} cases, ${String(fired)} faults met`)
  t.log([...counts].map(([kind, count]) => `${kind} ${String(count)}`).join(', '))
})

/** Always with power cuts after everything: what is published must be there whatever the share has not been told to keep. */
function sampleOf(all: readonly Case[], count: number, random: Random): Case[] {
  const ends = all.filter(({ fault }) => fault.operation === 'end').slice(0, count)
  return [...ends, ...Array.from({ length: count - ends.length }, () => random.pick(all))]
}
