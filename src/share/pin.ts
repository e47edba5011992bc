/**
 * Pins: who needs a generation that is not the newest, so that prune leaves it and its chunks alone.
 *
 * - A mount without a lease pins what it reads. Its beat shows that it lives; a share that cannot be written needs no
 *   pin, since nobody prunes there from here.
 * - Breaking a lease pins what the session of its holder is based on. Nobody beats such a pin: it stays until that
 *   client has published its session as a branch, or dropped it, or until a person removes it.
 */
import { randomBytes } from 'node:crypto'
import * as z from 'zod'
import { errnoOf, FailedError, IntegrityError, messageOf } from '../base/errors.js'
import { count, positive, timestamp } from './fields.js'
import { parseShareJson, parseVersioned, toShareJson } from './json.js'
import { holderSchema, type LeaseHolder } from './lease-record.js'
import type { Share } from './share.js'

const PIN_BYTES_MAX = 64 * 1024
const PIN_FORMAT = 'isrfs-pin'
const PIN_VERSION = 1
const SESSION_PIN_PATTERN = /^([0-9a-f]{8,64})-lease\d{1,8}$/
const MOUNT_PIN_PATTERN = /^[0-9a-f]{8,64}-[0-9a-f]{8}$/

const pinSchema = z.object({
  format: z.literal(PIN_FORMAT),
  version: z.literal(PIN_VERSION),
  holder: holderSchema,
  generation: positive,
  taken: timestamp
})

const beatSchema = z.object({ count, time: timestamp })

export interface Pin {
  readonly name: string
}

export interface PinState {
  /** below the VM's directory */
  readonly name: string
  readonly holder: LeaseHolder
  readonly generation: number
  readonly taken: string
  /** of a session whose lease was broken: it has no beat */
  readonly isOfSession: boolean
  readonly beat: z.infer<typeof beatSchema> | undefined
}

export function createPin(share: Share, holder: LeaseHolder, generation: number): Pin {
  return create(share, `pins/${holder.client}-${randomBytes(4).toString('hex')}`, holder, generation)
}

/** Made before the lease `leaseNumber` of `holder` is broken, so that there is no moment without one of the two. */
export function createSessionPin(share: Share, holder: LeaseHolder, leaseNumber: number, generation: number): Pin {
  return create(share, `pins/${holder.client}-lease${String(leaseNumber)}`, holder, generation)
}

/**
 * The base of a session that publishes checkpoints is not the newest generation any more: prune has to leave it. The same
 * name as a break of the lease would give it, so that whichever comes first keeps the base. Throws when it is not there.
 */
export function pinBase(share: Share, holder: LeaseHolder, leaseNumber: number, generation: number): void {
  const { name } = createSessionPin(share, holder, leaseNumber, generation)
  const pin = readPin(share, name)
  if (pin?.generation === generation) return
  throw new FailedError(`generation ${String(generation)} of ${share.root} could not be pinned`, {
    hint: `look at ${share.pathOf(name)}`
  })
}

/** Of sessions of this client, which are published, kept as branches, or dropped by now. */
export function removeSessionPins(share: Share, client: string): void {
  for (const name of share.list('pins')) {
    if (SESSION_PIN_PATTERN.exec(name)?.[1] === client) share.remove(`pins/${name}`)
  }
}

/** All pins, from a fresh listing. Throws IntegrityError for one that cannot be read: nobody knows what it protects. */
export function readPins(share: Share): PinState[] {
  return listPins(share).flatMap((name) => readPin(share, name) ?? [])
}

/** Names of all pins below the VM's directory. What somebody has put there besides is no pin. */
export function listPins(share: Share): string[] {
  return share
    .list('pins')
    .filter((name) => SESSION_PIN_PATTERN.test(name) || MOUNT_PIN_PATTERN.test(name))
    .map((name) => `pins/${name}`)
}

export function pinBytes(holder: LeaseHolder, generation: number, taken: string): Buffer {
  return toShareJson({ format: PIN_FORMAT, version: PIN_VERSION, holder, generation, taken })
}

export function beatPin(share: Share, pin: Pin, beats: number): void {
  share.write(`${pin.name}/beat.json`, toShareJson({ count: beats, time: new Date().toISOString() }))
}

export function removePin(share: Share, pin: Pin): void {
  share.removeQuietly(pin.name)
}

function create(share: Share, name: string, holder: LeaseHolder, generation: number): Pin {
  share.createDirectory(name, new Map([['pin.json', pinBytes(holder, generation, new Date().toISOString())]]))
  return { name }
}

/** undefined when it was removed meanwhile. */
export function readPin(share: Share, name: string): PinState | undefined {
  const what = share.pathOf(`${name}/pin.json`)
  let bytes: Buffer
  try {
    bytes = share.read(`${name}/pin.json`, PIN_BYTES_MAX)
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return undefined
    if (errnoOf(error) === 'ENOTDIR') throw unreadable(share, name, error)
    throw error
  }
  try {
    const pin = parseVersioned(bytes, { format: PIN_FORMAT, version: PIN_VERSION, schema: pinSchema }, what)
    const { holder, generation, taken } = pin
    const isOfSession = SESSION_PIN_PATTERN.test(name.slice('pins/'.length))
    return { name, holder, generation, taken, isOfSession, beat: readBeat(share, name) }
  } catch (error) {
    throw unreadable(share, name, error)
  }
}

function unreadable(share: Share, name: string, cause: unknown): IntegrityError {
  return new IntegrityError(`a pin cannot be read: ${messageOf(cause)}`, {
    hint: `when no client has this VM mounted, remove ${share.pathOf(name)}`,
    cause
  })
}

/** A beat is advice: replaced at any moment, perhaps damaged, and never a reason to fail. */
function readBeat(share: Share, name: string): PinState['beat'] {
  try {
    return parseShareJson(share.read(`${name}/beat.json`, PIN_BYTES_MAX), beatSchema, name)
  } catch {
    return undefined
  }
}
