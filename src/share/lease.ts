/**
 * Leases: the exclusive right of one client to produce the VM's next generation. Numbered directories made by
 * exclusive creation; the highest number counts (docs/format.md, "Leases").
 *
 *     free --acquire--> held --release--> free
 *                        | break (by a person, makes the next number)
 *                        v
 *                       free; the old holder finds a higher number and stops publishing
 *
 * Staleness is only reported; clocks of two machines are never compared. Nobody takes a lease that is held, except
 * the client that holds it.
 */
import { randomBytes } from 'node:crypto'
import { z } from 'zod'
import { errnoOf, FailedError, IntegrityError, LeaseHeldError } from '../base/errors.js'
import { parseShareJson, toShareJson } from './json.js'
import type { Share } from './share.js'

const NUMBER_PATTERN = /^\d{8}$/
const LEASE_BYTES_MAX = 64 * 1024
/** old leases that are kept for a person to look at */
const KEPT_LEASES = 4

const generationReference = z.object({
  number: z.number().int().nonnegative(),
  digest: z.string().regex(/^[0-9a-f]{64}$/)
})

const holderSchema = z.object({
  client: z.string().regex(/^[0-9a-f]{8,64}$/),
  host: z.string().max(256),
  user: z.string().max(256),
  pid: z.number().int().nonnegative(),
  boot: z.string().max(64),
  mountpoint: z.string().max(4096)
})

const leaseSchema = z.object({
  format: z.literal('isrfs-lease'),
  version: z.literal(1),
  number: z.number().int().positive(),
  token: z.string().regex(/^[0-9a-f]{32}$/),
  taken: z.string().max(40),
  holder: holderSchema,
  /** the newest generation that the maker of this lease knew of; null before it has read any */
  generation: generationReference.nullable()
})

const beatSchema = z.object({ count: z.number().int().nonnegative(), time: z.string().max(40) })

const releaseSchema = z.object({
  time: z.string().max(40),
  /** how it ended: the holder gave it back, or somebody broke it */
  by: z.enum(['holder', 'break']),
  who: z.string().max(512),
  generation: generationReference.nullable()
})

export type LeaseHolder = z.infer<typeof holderSchema>
export type LeaseRecord = z.infer<typeof leaseSchema>
export type GenerationReference = z.infer<typeof generationReference>

export interface LeaseState {
  readonly lease: LeaseRecord
  readonly released: z.infer<typeof releaseSchema> | undefined
  readonly beat: z.infer<typeof beatSchema> | undefined
}

/** A lease that this client holds. `generation` is the newest one that must be found before anything is resumed. */
export interface HeldLease {
  readonly number: number
  readonly token: string
  readonly generation: GenerationReference | null
  /** the number of this client's earlier lease that was taken back, if that is how it was got */
  readonly takenBack: number | undefined
}

function leaseName(number: number): string {
  return `leases/${String(number).padStart(8, '0')}`
}

function leaseNumbers(share: Share): number[] {
  return share
    .list('leases')
    .filter((name) => NUMBER_PATTERN.test(name))
    .map(Number)
    .sort((first, second) => first - second)
}

/** The lease that counts, or undefined when there never was one. */
export function readLease(share: Share): LeaseState | undefined {
  const number = leaseNumbers(share).at(-1)
  return number === undefined ? undefined : readLeaseNumber(share, number)
}

function readLeaseNumber(share: Share, number: number): LeaseState {
  const name = leaseName(number)
  const lease = parseShareJson(
    share.read(`${name}/lease.json`, LEASE_BYTES_MAX),
    leaseSchema,
    share.pathOf(`${name}/lease.json`)
  )
  if (lease.number !== number)
    throw new IntegrityError(`${share.pathOf(name)} says that it is lease ${String(lease.number)}`)
  return { lease, released: readOptional(share, `${name}/released.json`, releaseSchema), beat: readBeat(share, number) }
}

function readBeat(share: Share, number: number): LeaseState['beat'] {
  try {
    return readOptional(share, `${leaseName(number)}/beat.json`, beatSchema)
  } catch (error) {
    if (error instanceof IntegrityError) return undefined // a beat is advice
    throw error
  }
}

function readOptional<Schema extends z.ZodType>(
  share: Share,
  name: string,
  schema: Schema
): z.infer<Schema> | undefined {
  try {
    return parseShareJson(share.read(name, LEASE_BYTES_MAX), schema, share.pathOf(name))
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return undefined
    throw error
  }
}

/** Takes the lease, or takes it back; LeaseHeldError names the holder when another client has it. */
export function acquireLease(share: Share, holder: LeaseHolder): HeldLease {
  for (;;) {
    const current = readLease(share)
    if (current !== undefined && current.released === undefined && current.lease.holder.client !== holder.client) {
      throw new LeaseHeldError(`${share.root} is in use: ${describeHolder(current)}`, {
        hint: `suspend it there, or, when that client is gone for good, break its lease: isrfs lease ${share.root} --break (or mount --read-only)`
      })
    }
    const generation = current?.released?.generation ?? current?.lease.generation ?? null
    const number = (current?.lease.number ?? 0) + 1
    const token = randomBytes(16).toString('hex')
    const lease: LeaseRecord = {
      format: 'isrfs-lease',
      version: 1,
      number,
      token,
      taken: new Date().toISOString(),
      holder,
      generation
    }
    share.createDirectory(leaseName(number), new Map([['lease.json', toShareJson(lease)]]))
    if (readLeaseNumber(share, number).lease.token !== token) continue // lost the race: look again who has it
    removeOldLeases(share, number)
    const takenBack = current !== undefined && current.released === undefined ? current.lease.number : undefined
    return { number, token, generation, takenBack }
  }
}

/** Whether the lease still counts: no higher number exists and the number is ours. */
export function leaseStillHeld(share: Share, held: Pick<HeldLease, 'number' | 'token'>): boolean {
  const current = readLease(share)
  return current?.lease.number === held.number && current.lease.token === held.token && current.released === undefined
}

/** Shows that the holder lives. Returns false, and writes nothing, when the lease is not ours any more. */
export function beatLease(share: Share, held: Pick<HeldLease, 'number' | 'token'>, beats: number): boolean {
  if (!leaseStillHeld(share, held)) return false
  share.write(`${leaseName(held.number)}/beat.json`, toShareJson({ count: beats, time: new Date().toISOString() }))
  return true
}

/** Gives the lease back, naming the newest generation. Nothing happens when it is not ours any more. */
export function releaseLease(
  share: Share,
  held: Pick<HeldLease, 'number' | 'token'>,
  generation: GenerationReference | null
): void {
  if (!leaseStillHeld(share, held)) return
  const release = { time: new Date().toISOString(), by: 'holder', who: '', generation }
  share.write(`${leaseName(held.number)}/released.json`, toShareJson(release))
}

/** Ends somebody else's lease by creating the next number, already released. `who` is kept for the record. */
export function breakLease(share: Share, observed: LeaseState, holder: LeaseHolder): void {
  const number = observed.lease.number + 1
  const token = randomBytes(16).toString('hex')
  const generation = observed.lease.generation
  const time = new Date().toISOString()
  const lease: LeaseRecord = { format: 'isrfs-lease', version: 1, number, token, taken: time, holder, generation }
  const release = {
    time,
    by: 'break',
    who: `${holder.user}@${holder.host}, from ${observed.lease.holder.host}`,
    generation
  }
  share.createDirectory(
    leaseName(number),
    new Map([
      ['lease.json', toShareJson(lease)],
      ['released.json', toShareJson(release)]
    ])
  )
  if (readLeaseNumber(share, number).lease.token !== token) {
    throw new FailedError(`the lease of ${share.root} changed hands while it was being broken`, {
      hint: `look again: isrfs lease ${share.root}`
    })
  }
}

/** "host box, user joe, mounted at /mnt/x, since ..., last sign of life ...". */
export function describeHolder({ lease, beat }: LeaseState): string {
  const { host, user, pid, mountpoint } = lease.holder
  const alive = beat === undefined ? '' : `, last sign of life ${beat.time}`
  return `host ${host}, user ${user}, process ${String(pid)}, mounted at ${mountpoint}, since ${lease.taken}${alive}`
}

function removeOldLeases(share: Share, newest: number): void {
  for (const number of leaseNumbers(share)) {
    if (number <= newest - KEPT_LEASES) share.removeQuietly(leaseName(number))
  }
}
