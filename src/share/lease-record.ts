/** What the files of a lease say (docs/format.md, "Leases"), checked on the way in and on the way out. */
import * as z from 'zod'
import { errnoOf, IntegrityError, messageOf } from '../base/errors.js'
import { moment } from '../base/moment.js'
import { count, digestHex, identifier, label, positive, timestamp } from './fields.js'
import { parseShareJson, parseVersioned, toShareJson } from './json.js'
import { numberedName } from './numbered.js'
import type { Share } from './share.js'

const LEASE_BYTES_MAX = 64 * 1024
export const PUBLISHED_FILE = 'published.json'
const LEASE_FORMAT = 'isrfs-lease'
const LEASE_VERSION = 1

const generationReference = z.object({ number: count, digest: digestHex })

export const holderSchema = z.object({
  client: identifier,
  host: label(256),
  user: label(256),
  pid: count,
  boot: label(64),
  mountpoint: label(4096)
})

const leaseSchema = z.object({
  format: z.literal(LEASE_FORMAT),
  version: z.literal(LEASE_VERSION),
  number: positive,
  /** random; tells who won a race for the number */
  token: z.string().regex(/^[0-9a-f]{32}$/),
  taken: timestamp,
  holder: holderSchema,
  /** the newest generation that the maker of this lease knew of; null before it has read any */
  generation: generationReference.nullable()
})

const beatSchema = z.object({ count, time: timestamp })

const releaseSchema = z.object({
  time: timestamp,
  /** how it ended: the holder gave it back, or somebody broke it */
  by: z.enum(['holder', 'break']),
  who: label(1024),
  generation: generationReference.nullable()
})

/** written by the holder of a lease that lives on after it has published */
const publishedSchema = z.object({ generation: generationReference })

export type LeaseHolder = z.infer<typeof holderSchema>
export type LeaseRecord = z.infer<typeof leaseSchema>
export type LeaseRelease = z.infer<typeof releaseSchema>
export type GenerationReference = z.infer<typeof generationReference>

export interface LeaseState {
  readonly lease: LeaseRecord
  readonly released: LeaseRelease | undefined
  /** the newest generation that the holder has published under it */
  readonly published: GenerationReference | undefined
  readonly beat: z.infer<typeof beatSchema> | undefined
}

export function leaseName(number: number): string {
  return numberedName('leases', number)
}

/** lease.json. Nobody could take or break a lease that cannot be read, so none is written that would be refused. */
export function leaseBytes(lease: Omit<LeaseRecord, 'format' | 'version'>): Buffer {
  const bytes = toShareJson({ format: LEASE_FORMAT, version: LEASE_VERSION, ...lease })
  parseLease(bytes, 'the new lease')
  return bytes
}

export function releaseBytes(release: LeaseRelease): Buffer {
  const bytes = toShareJson(release)
  parseShareJson(bytes, releaseSchema, 'the end of the lease')
  return bytes
}

/** The state of one lease, which a listing has shown. */
export function readLeaseState(share: Share, number: number): LeaseState {
  const name = leaseName(number)
  try {
    const what = share.pathOf(`${name}/lease.json`)
    const lease = parseLease(share.read(`${name}/lease.json`, LEASE_BYTES_MAX), what)
    if (lease.number !== number) throw new IntegrityError(`${what} says that it is lease ${String(lease.number)}`)
    const released = readOptional(share, `${name}/released.json`, releaseSchema)
    const published = readOptional(share, `${name}/${PUBLISHED_FILE}`, publishedSchema)?.generation
    return { lease, released, published, beat: readBeat(share, name) }
  } catch (error) {
    if (!(error instanceof IntegrityError) && errnoOf(error) !== 'ENOENT') throw error
    throw new IntegrityError(`lease ${String(number)} of ${share.root} cannot be read: ${messageOf(error)}`, {
      hint:
        (error instanceof IntegrityError ? error.hint : undefined) ??
        `when no client has this VM mounted, remove ${share.pathOf(name)}`,
      cause: error
    })
  }
}

/** "host box, user joe, mounted at /mnt/x, since ..., last sign of life ...". */
export function describeHolder({ lease, beat }: LeaseState): string {
  const { host, user, pid, mountpoint } = lease.holder
  const alive = beat === undefined ? '' : `, last sign of life ${moment(beat.time)}`
  return `host ${host}, user ${user}, process ${String(pid)}, mounted at ${mountpoint}, since ${moment(lease.taken)}${alive}`
}

function parseLease(bytes: Buffer, what: string): LeaseRecord {
  return parseVersioned(bytes, { format: LEASE_FORMAT, version: LEASE_VERSION, schema: leaseSchema }, what)
}

/** A beat is advice: replaced at any moment, perhaps damaged, and never a reason to fail. */
function readBeat(share: Share, name: string): LeaseState['beat'] {
  try {
    return readOptional(share, `${name}/beat.json`, beatSchema)
  } catch {
    return undefined
  }
}

function readOptional<Schema extends z.ZodType>(
  share: Share,
  name: string,
  schema: Schema
): z.infer<Schema> | undefined {
  const bytes = share.readListed(name, LEASE_BYTES_MAX)
  return bytes === undefined ? undefined : parseShareJson(bytes, schema, share.pathOf(name))
}
