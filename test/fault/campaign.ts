/**
 * The fault campaign: each case is one life of a VM in which one file system call goes wrong, then what a person would do
 * next (mount again, or recover), then a comparison with what programs had been told, through the mount, and in the
 * generation that is published at last.
 */
import fs from 'node:fs'
import path from 'node:path'
import { isDeepStrictEqual } from 'node:util'
import { IsrfsError, messageOf } from '../../src/base/errors.js'
import { type Generation, toGeneration } from '../../src/base/units.js'
import { recoverSession } from '../../src/daemon/recover.js'
import {
  listBranches,
  listGenerations,
  publishGeneration,
  readBranch,
  readGeneration,
  readNewestGeneration
} from '../../src/format/generations.js'
import { acquireLease, breakLease, readLease, releaseLease } from '../../src/share/lease.js'
import { Share } from '../../src/share/share.js'
import { makeVm } from '../support/make-vm.js'
import { Random } from '../support/random.js'
import { type Errno, type Fault, FaultyProcess, type Kind } from './faulty-process.js'
import { type Contents, DISK_PAGES, GuestLife } from './guest-life.js'
import { type Bed, contentsOf, Mounted, mustBeAnswer } from './life.js'
import { Model, pageOf, violations } from './model.js'

/** The last three are on the direct transport: request threads read and write too, and changes trickle. */
export type Scenario =
  'mount' | 'mount-writeback' | 'recover' | 'branch' | 'mount-direct' | 'checkpoint' | 'checkpoint-recover'
export const SCENARIOS: readonly Scenario[] = [
  'mount',
  'mount-writeback',
  'recover',
  'branch',
  'mount-direct',
  'checkpoint',
  'checkpoint-recover'
]

export interface Case {
  readonly scenario: Scenario
  readonly fault: Fault
}

const RECOVERIES: ReadonlySet<Scenario> = new Set(['recover', 'branch', 'checkpoint-recover'])
const ON_DIRECT: ReadonlySet<Scenario> = new Set(['mount-direct', 'checkpoint', 'checkpoint-recover'])
const DISK_VALUES = Array.from({ length: DISK_PAGES }, (_, index) => 100 + index)
const CASE_MS_MAX = 30_000
const WRITES = /^(writeSync)$/
const READS =
  /^(readSync|readFileSync|readdirSync|statSync|lstatSync|fstatSync|existsSync|statfsSync|accessSync|readlinkSync|promises\.(stat|opendir|readdir))$/
/** of worker threads, see in-process-pools.ts */
const TASKS = /^task\./
/** after everything */
const END = { side: 'share', operation: 'end' } as const
const NAMES = /^(renameSync|promises\.(rename|unlink|rmdir)|mkdirSync|rmSync|unlinkSync)$/

export function describeCase({ scenario, fault }: Case): string {
  return `${scenario}: ${fault.kind} at ${fault.side} ${fault.operation} ${String(fault.call)}`
}

/** What can go wrong with a call, or with a task of a thread, or after all of them (END). */
function kindsOf(side: Fault['side'], operation: string): Kind[] {
  if (operation === END.operation) return ['power', 'power-server']
  if (TASKS.test(operation)) return ['hang-before', 'hang-after']
  if (READS.test(operation)) {
    const errors: Errno[] = side === 'share' ? ['EIO', 'ESTALE', 'EACCES'] : ['EIO']
    return [...errors, 'die-before', ...(operation === 'readSync' ? (['short'] as const) : [])]
  }
  const errors: Errno[] =
    side === 'share' ? ['EIO', 'ESTALE', 'EACCES', 'EROFS', 'ENOSPC', 'EDQUOT'] : ['EIO', 'ENOSPC', 'EROFS']
  const kinds: Kind[] = [...errors, 'die-before', 'die-after', 'power']
  if (WRITES.test(operation)) kinds.push('tear', 'short')
  if (NAMES.test(operation)) kinds.push('lie')
  if (NAMES.test(operation) || side === 'share') kinds.push('power-server')
  if (NAMES.test(operation) && side === 'share') kinds.push('lie-ok')
  return kinds
}

/** Every case of a scenario: found by a run without a fault. */
export async function casesOf(scenario: Scenario, root: string): Promise<Case[]> {
  const { process, life, found } = await runCase({ scenario, fault: NO_FAULT }, path.join(root, `probe-${scenario}`), 1)
  if (found.length > 0) throw new Error(`${scenario} without a fault: ${found.join('; ')}`)
  if (ON_DIRECT.has(scenario) && Math.min(life.byThreads.reads, life.byThreads.writes) === 0)
    throw new Error(`${scenario}: no request thread has answered anything`)
  const cases: Case[] = []
  for (const [key, calls] of [...process.counts, [`${END.side} ${END.operation}`, 1] as const]) {
    const [side, operation] = key.split(' ') as [Fault['side'], string]
    for (let call = 1; call <= calls; call++) {
      for (const kind of kindsOf(side, operation)) cases.push({ scenario, fault: { side, operation, call, kind } })
    }
  }
  return cases
}

function isPower({ kind }: Fault): boolean {
  return kind === 'power' || kind === 'power-server'
}

const NO_FAULT: Fault = { side: 'client', operation: 'none', call: 0, kind: 'EIO' }

export async function runCase(
  { scenario, fault }: Case,
  directory: string,
  seed: number
): Promise<{ process: FaultyProcess; life: GuestLife; found: string[] }> {
  const bed: Bed = { share: path.join(directory, 'share'), client: path.join(directory, 'client') }
  const roots = { share: bed.share, client: bed.client }
  const stash = path.join(directory, 'stash')
  for (const name of [bed.share, bed.client, stash]) fs.mkdirSync(name, { recursive: true, mode: 0o700 })
  const random = new Random(seed)
  const isRecovery = RECOVERIES.has(scenario)
  const onDirect = ON_DIRECT.has(scenario)
  const model = prepareVm(bed)
  const processes: FaultyProcess[] = []
  const start = (boot: string, given?: Fault): FaultyProcess => {
    const process = new FaultyProcess({ roots, stash, boot, ...(given === undefined ? {} : { fault: given }) })
    processes.push(process)
    return process
  }
  const found: string[] = []
  const checkpoints: Contents[] = []
  const life = new GuestLife({
    bed,
    model,
    mounting: {
      writeback: onDirect || scenario === 'mount-writeback',
      ...(onDirect ? { threads: new Random(seed) } : {})
    },
    checkpoints: scenario.startsWith('checkpoint') ? checkpoints : undefined,
    found
  })
  try {
    if (isRecovery) {
      const before = start('boot 1')
      await before.run(() => life.untilSuspend())
      before.end()
      // a power cut may still take what was answered and never synced, until it is published
      if (!isPower(fault)) model.acceptAll()
      if (scenario === 'branch') overtake(bed)
    }
    const suspendsBefore = suspendsIn(bed)
    const faulty = start('boot 1', fault)
    const looked = life.lookWhileHanging(faulty)
    await attempt(faulty, () => firstTry(isRecovery, bed, life), `the first try`, found)
    if (fault.operation === END.operation) faulty.fired = true
    if (faulty.fired && TASKS.test(fault.operation)) await looked
    faulty.end()
    const lostPower = faulty.fired && isPower(fault)
    if (lostPower) faulty.losePower(random, fault.kind === 'power' ? ['client'] : ['client', 'share'])
    if (!lostPower || suspendsIn(bed) > suspendsBefore) model.acceptAll()
    const next = start(lostPower ? 'boot 2' : 'boot 1')
    await attempt(next, () => secondTry(scenario, bed, model, found), 'the second try', found, true)
    next.end()
    compareGenerations(scenario, bed, model, found)
    compareCheckpoints(bed, checkpoints, found)
    return { process: faulty, life, found }
  } finally {
    for (const process of processes) process.dispose()
    try {
      fs.rmSync(directory, { recursive: true, force: true })
    } catch {
      // a write that was under way when its process ended has just made a file: removed with the root
    }
  }
}

/** How many suspends are on the share: generations that are no checkpoint, and branches. */
function suspendsIn({ share: root }: Bed): number {
  const share = new Share(root)
  const isSuspend = (number: Generation): boolean => readGeneration(share, number).manifest.checkpoint === undefined
  return listGenerations(share).filter(isSuspend).length + listBranches(share).length
}

function prepareVm({ share }: Bed): Model {
  const values = { disk: DISK_VALUES, gone: [7, 8] }
  makeVm(share, new Map(Object.entries(values).map(([name, pages]) => [name, Buffer.concat(pages.map(pageOf))])))
  return new Model(values)
}

/** Runs until the body or the process ends. What is no answer for people is a finding; so is a body that hangs. */
async function attempt(
  process: FaultyProcess,
  body: () => Promise<void>,
  what: string,
  found: string[],
  mustSucceed = false
): Promise<void> {
  const late = new Promise<'late'>((resolve) => setTimeout(() => resolve('late'), CASE_MS_MAX).unref())
  const run = process.run(async () => {
    try {
      await body()
    } catch (error) {
      if (process.isDead) return
      if (!(error instanceof IsrfsError)) found.push(`${what} failed with no answer: ${stackOf(error)}`)
      else if (mustSucceed) found.push(`${what} failed: ${error.message}`)
    }
  })
  run.catch(() => undefined)
  if ((await Promise.race([run, process.ended, late])) === 'late') found.push(`${what} hangs`)
}

function stackOf(error: unknown): string {
  return error instanceof Error ? (error.stack ?? error.message) : messageOf(error)
}

async function firstTry(isRecovery: boolean, bed: Bed, life: GuestLife): Promise<void> {
  if (isRecovery) await recoverSession(recoverRequest(bed, false))
  else await (await life.untilSuspend()).suspend()
}

async function secondTry(scenario: Scenario, bed: Bed, model: Model, found: string[]): Promise<void> {
  if (scenario === 'branch') {
    await recoverSession(recoverRequest(bed, true))
    return
  }
  const mounted = await Mounted.open(bed, { writeback: false })
  found.push(...violations(model, await mounted.contents()).map((why) => `mounted again: ${why}`))
  if (mounted.lost.length === 0) {
    await mounted.suspend()
    return
  }
  try {
    await mounted.suspend()
    found.push('a suspend after a lost write succeeded')
  } catch (error) {
    mustBeAnswer(error)
  }
  await recoverSession(recoverRequest(bed, true))
}

function recoverRequest({ share, client }: Bed, acceptLoss: boolean): Parameters<typeof recoverSession>[0] {
  return { vmPath: share, clientDirectory: client, acceptLoss, notice: () => undefined, onProgress: () => undefined }
}

/** Another client has broken the lease and published. */
function overtake({ share: root }: Bed): void {
  const share = new Share(root)
  const holder = { client: 'ffffffffffffffff', host: 'other', user: 'u', pid: 1, boot: 'b', mountpoint: '/m' }
  const current = readLease(share)
  if (current !== undefined) breakLease(share, current, holder)
  const held = acquireLease(share, holder)
  const base = readNewestGeneration(share)
  const published = publishGeneration(share, {
    ...base.manifest,
    generation: toGeneration(base.number + 1),
    parent: { generation: base.number, digest: base.digest },
    session: 'eeeeeeeeeeeeeeee',
    entries: base.manifest.entries.map((entry) => ({ ...entry, mode: 0o700 }))
  })
  releaseLease(share, held, { number: published.number, digest: published.digest })
}

/** Each checkpoint on the share is what the mount showed when it was asked for one; none is there twice. */
function compareCheckpoints(bed: Bed, checkpoints: readonly Contents[], found: string[]): void {
  const share = new Share(bed.share)
  const published: string[] = []
  for (const number of listGenerations(share)) {
    const generation = readGeneration(share, number)
    if (generation.manifest.checkpoint === undefined) continue
    const contents = contentsOf(bed.share, generation)
    const index = checkpoints.findIndex((asked) => isDeepStrictEqual(asked, contents))
    if (index < 0) found.push(`checkpoint ${String(number)} is not what the mount showed`)
    published.push(String(index))
  }
  if (new Set(published).size < published.length) found.push(`a checkpoint was published twice: ${published.join()}`)
}

function compareGenerations(scenario: Scenario, bed: Bed, model: Model, found: string[]): void {
  const share = new Share(bed.share)
  try {
    const newest = readNewestGeneration(share)
    if (scenario !== 'branch') {
      found.push(...violations(model, contentsOf(bed.share, newest)).map((why) => `published: ${why}`))
      return
    }
    const untouched = new Model({ disk: DISK_VALUES, gone: [7, 8] })
    found.push(...violations(untouched, contentsOf(bed.share, newest)).map((why) => `the other's generation: ${why}`))
    const branches = listBranches(share)
    if (branches.length !== 1) found.push(`${String(branches.length)} branches instead of one`)
    for (const name of branches)
      found.push(...violations(model, contentsOf(bed.share, readBranch(share, name))).map((why) => `branch: ${why}`))
  } catch (error) {
    found.push(`the share cannot be read: ${stackOf(error)}`)
  }
}
