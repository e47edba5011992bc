/**
 * Who works on an import's staging directory. The record stands in numbered directories, made by exclusive creation as
 * leases are; the highest number counts. A dead owner's work is taken over, a live one's is refused, and one on another
 * machine cannot be judged from here: a person decides.
 */
import { randomBytes } from 'node:crypto'
import fs from 'node:fs'
import os from 'node:os'
import * as z from 'zod'
import { errnoOf, LeaseHeldError } from '../base/errors.js'
import { currentBootId } from '../session/boot.js'
import { parseShareJson, toShareJson } from '../share/json.js'
import type { Share } from '../share/share.js'

const NAME_PATTERN = /^import-(\d{8})$/
const OWNER_FILE = 'owner.json'
const OWNER_BYTES_MAX = 64 * 1024

const ownerSchema = z.object({
  format: z.literal('isrfs-import'),
  version: z.literal(1),
  token: z.string().regex(/^[0-9a-f]{32}$/),
  host: z.string().max(256),
  /** of the machine, '' where it has none */
  machine: z.string().max(64),
  boot: z.string().max(64),
  /** in which process numbers mean what they mean here */
  processes: z.string().max(64),
  pid: z.number().int().positive(),
  /** start of the process in clock ticks since boot: process numbers are used again */
  started: z.string().max(32),
  since: z.string().max(40)
})

type Owner = z.infer<typeof ownerSchema>

export interface StagingOwnership {
  readonly number: number
  readonly token: string
  /** somebody's unfinished work was there */
  readonly takenOver: boolean
}

/** Takes the staging directory, or throws LeaseHeldError when its owner lives or may live. */
export function takeStaging(staging: Share): StagingOwnership {
  const takenOver = staging.exists('chunks') || staging.exists('tmp')
  for (;;) {
    staging.createRoot() // another import may just have made a VM of it, or removed it
    const current = readOwner(staging)
    if (current !== undefined) refuseUnlessDead(staging, current.owner)
    const number = (current?.number ?? 0) + 1
    const owner = ownRecord()
    staging.createDirectory(ownerName(number), new Map([[OWNER_FILE, toShareJson(owner)]]))
    if (readOwner(staging)?.owner.token === owner.token) return { number, token: owner.token, takenOver }
  }
}

export function stillOwns(staging: Share, ownership: StagingOwnership): boolean {
  return readOwner(staging)?.owner.token === ownership.token
}

/** Leaves the staging directory to the next try. */
export function leaveStaging(staging: Share, ownership: StagingOwnership): void {
  for (const { number } of ownerNumbers(staging)) {
    if (number <= ownership.number) staging.removeQuietly(ownerName(number))
  }
}

function readOwner(staging: Share): { readonly number: number; readonly owner: Owner } | undefined {
  const number = ownerNumbers(staging).at(-1)?.number
  if (number === undefined) return undefined
  const name = `${ownerName(number)}/${OWNER_FILE}`
  try {
    return { number, owner: parseShareJson(staging.read(name, OWNER_BYTES_MAX), ownerSchema, staging.pathOf(name)) }
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return undefined // its owner is leaving
    throw error
  }
}

function ownerNumbers(staging: Share): { readonly number: number }[] {
  return staging
    .list('tmp')
    .flatMap((name) => NAME_PATTERN.exec(name)?.[1] ?? [])
    .map((digits) => ({ number: Number(digits) }))
    .sort((first, second) => first.number - second.number)
}

function ownerName(number: number): string {
  return `tmp/import-${String(number).padStart(8, '0')}`
}

function ownRecord(): Owner {
  return {
    format: 'isrfs-import',
    version: 1,
    token: randomBytes(16).toString('hex'),
    host: os.hostname(),
    machine: machineId(),
    boot: currentBootId(),
    processes: processSpace(),
    pid: process.pid,
    started: startOfProcess(process.pid) ?? '',
    since: new Date().toISOString()
  }
}

function refuseUnlessDead(staging: Share, owner: Owner): void {
  const who = `process ${owner.pid} on host ${owner.host}, since ${owner.since}`
  const sameBoot = owner.boot === currentBootId()
  if (sameBoot && owner.processes === processSpace()) {
    if (startOfProcess(owner.pid) !== owner.started) return
    throw new LeaseHeldError(`another import to this place is running: ${who}`, { hint: 'wait for it, or stop it' })
  }
  const rebooted = !sameBoot && owner.machine !== '' && owner.machine === machineId() && owner.host === os.hostname()
  if (rebooted) return
  throw new LeaseHeldError(`an import to this place was begun elsewhere and is not finished: ${who}`, {
    hint: `if it does not run any more, remove what it left and repeat: rm -r ${staging.root}`
  })
}

/** Whether the process lives, by its start time: undefined when there is no such process. */
export function startOfProcess(pid: number): string | undefined {
  try {
    const stat = fs.readFileSync(`/proc/${pid}/stat`, 'latin1')
    // proc(5): the name in parentheses may hold anything; the start time is field 22, the 20th after it.
    return stat.slice(stat.lastIndexOf(')') + 2).split(' ')[19]
  } catch {
    return undefined
  }
}

function processSpace(): string {
  try {
    return fs.readlinkSync('/proc/self/ns/pid')
  } catch {
    return ''
  }
}

function machineId(): string {
  try {
    return fs.readFileSync('/etc/machine-id', 'utf8').trim()
  } catch {
    return ''
  }
}
