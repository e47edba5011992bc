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
 *
 * Invariant: a number is won by who finds its own token in it and no higher number beside it. The second half is for
 * a client that slept between looking and creating: meanwhile its number may have come and gone.
 */
import { randomBytes } from 'node:crypto'
import { FailedError, LeaseHeldError } from '../base/errors.js'
import {
  describeHolder,
  type GenerationReference,
  leaseBytes,
  type LeaseHolder,
  leaseName,
  type LeaseState,
  PUBLISHED_FILE,
  readLeaseState,
  releaseBytes
} from './lease-record.js'
import { toShareJson } from './json.js'
import { listNumbers } from './numbered.js'
import type { Share } from './share.js'

export { describeHolder }
export type { GenerationReference, LeaseHolder, LeaseRecord, LeaseState } from './lease-record.js'

/** old leases that are kept for a person to look at */
const KEPT_LEASES = 4
/** a lost race usually ends the matter at the next look: somebody holds the lease then */
const TRIES_MAX = 16

/** A lease that this client holds. `generation` is the newest one that must be found before anything is resumed. */
export interface HeldLease {
  readonly number: number
  readonly token: string
  readonly generation: GenerationReference | null
  /** the number of this client's earlier lease that was taken back, if that is how it was got */
  readonly takenBack: number | undefined
}

type LeaseKey = Pick<HeldLease, 'number' | 'token'>

/** The lease that counts, or undefined when there never was one. */
export function readLease(share: Share): LeaseState | undefined {
  const number = listNumbers(share, 'leases').at(-1)
  return number === undefined ? undefined : readLeaseState(share, number)
}

/** Takes the lease, or takes it back; LeaseHeldError names the holder when another client has it. */
export function acquireLease(share: Share, holder: LeaseHolder): HeldLease {
  for (let tries = 0; tries < TRIES_MAX; tries++) {
    const current = readLease(share)
    const isHeld = current !== undefined && current.released === undefined
    if (isHeld && current.lease.holder.client !== holder.client) {
      throw new LeaseHeldError(`${share.root} is in use: ${describeHolder(current)}`, {
        hint: `suspend it there, or, when that client is gone for good, break its lease: isrfs lease ${share.root} --break (or mount --read-only)`
      })
    }
    const generation = newestKnown(current)
    const number = (current?.lease.number ?? 0) + 1
    const token = newToken()
    const lease = { number, token, taken: new Date().toISOString(), holder, generation }
    share.createDirectory(leaseName(number), new Map([['lease.json', leaseBytes(lease)]]))
    if (!leaseStillHeld(share, lease)) continue // lost the race: look again who has it
    removeOldLeases(share, number)
    return { number, token, generation, takenBack: isHeld ? current.lease.number : undefined }
  }
  throw new FailedError(`the lease of ${share.root} changes hands again and again`, {
    hint: `see who takes it: isrfs lease ${share.root}`
  })
}

/** Whether the lease still counts: no higher number exists and the number is ours. */
export function leaseStillHeld(share: Share, held: LeaseKey): boolean {
  const current = readLease(share)
  return current !== undefined && isOurs(current, held) && current.released === undefined
}

/** Shows that the holder lives. Returns false, and writes nothing, when the lease is not ours any more. */
export function beatLease(share: Share, held: LeaseKey, beats: number): boolean {
  if (!leaseStillHeld(share, held)) return false
  share.write(`${leaseName(held.number)}/beat.json`, toShareJson({ count: beats, time: new Date().toISOString() }))
  return true
}

/** Notes a generation that was published under a lease which goes on. Nothing happens when it is not ours any more. */
export function noteOnLease(share: Share, held: LeaseKey, generation: GenerationReference): void {
  if (!leaseStillHeld(share, held)) return
  share.write(`${leaseName(held.number)}/${PUBLISHED_FILE}`, toShareJson({ generation }))
}

/** Gives the lease back, naming the newest generation. Nothing happens when it is not ours any more. */
export function releaseLease(share: Share, held: LeaseKey, generation: GenerationReference | null): void {
  if (!leaseStillHeld(share, held)) return
  const release = releaseBytes({ time: new Date().toISOString(), by: 'holder', who: '', generation })
  share.write(`${leaseName(held.number)}/released.json`, release)
}

/** Ends somebody else's lease by creating the next number, already released. `holder` is kept for the record. */
export function breakLease(share: Share, observed: LeaseState, holder: LeaseHolder): void {
  const time = new Date().toISOString()
  const generation = newestKnown(observed)
  const lease = { number: observed.lease.number + 1, token: newToken(), taken: time, holder, generation }
  const who = `${holder.user}@${holder.host}, from ${observed.lease.holder.host}`
  share.createDirectory(
    leaseName(lease.number),
    new Map([
      ['lease.json', leaseBytes(lease)],
      ['released.json', releaseBytes({ time, by: 'break', who, generation })]
    ])
  )
  const current = readLease(share)
  if (current === undefined || !isOurs(current, lease)) {
    throw new FailedError(`the lease of ${share.root} changed hands while it was being broken`, {
      hint: `look again: isrfs lease ${share.root}`
    })
  }
}

function isOurs(current: LeaseState, { number, token }: LeaseKey): boolean {
  return current.lease.number === number && current.lease.token === token
}

/** The newest generation that the lease promises: whoever takes it has to find that one, or a newer one. */
export function newestKnown(state: LeaseState | undefined): GenerationReference | null {
  return state?.released?.generation ?? state?.published ?? state?.lease.generation ?? null
}

function newToken(): string {
  return randomBytes(16).toString('hex')
}

function removeOldLeases(share: Share, newest: number): void {
  for (const number of listNumbers(share, 'leases')) {
    if (number <= newest - KEPT_LEASES) share.removeQuietly(leaseName(number))
  }
}
