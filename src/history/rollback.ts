/**
 * `rollback`: the content of an older generation, or of a branch, becomes the newest generation. Nothing is copied and
 * nothing is lost: what was the newest stays in the history. Done under the lease, like every generation.
 *
 * It is also the way on when the newest generation cannot be used any more:
 *
 * - Its manifest is damaged: it stays where it is, damaged, and the new one takes the next number.
 * - The lease names a generation that the share does not show (part of it was restored from a backup, or an NFS client
 *   lags). Only on a person's word (`acceptMissing`); a tombstone takes each missing number, so that none is used twice.
 *   It is made by exclusive creation: a generation that is there after all stays as it is, and nothing is published.
 */
import { randomBytes } from 'node:crypto'
import { FailedError, LeaseHeldError } from '../base/errors.js'
import { acquireImportLease, type ImportClient, isPromiseKept, promiseBroken } from '../commit/import-lease.js'
import {
  buryMissing,
  digestOfGeneration,
  listGenerations,
  publishGeneration,
  type PublishedGeneration,
  readGeneration,
  readNewestGeneration,
  UNKNOWN_DIGEST
} from '../format/generations.js'
import { damageIn, isDamaged } from '../share/broken.js'
import { type GenerationReference, type HeldLease, leaseStillHeld, releaseLease } from '../share/lease.js'
import type { Share } from '../share/share.js'

export interface RollbackOptions {
  readonly share: Share
  /** as people name it: a number, or a branch */
  readonly name: string
  readonly source: PublishedGeneration
  readonly client: ImportClient
  /** a generation that the lease names and the share does not show is given up */
  readonly acceptMissing: boolean
}

/** What the new generation follows. */
interface Head {
  readonly number: number
  /** undefined when nobody knows it any more */
  readonly reference: GenerationReference | undefined
  readonly nextInode: number
}

/** undefined: it is the newest generation already. */
export function rollBack(options: RollbackOptions): PublishedGeneration | undefined {
  const { share, name, source, client } = options
  const held = acquireImportLease(share, client)
  let newest = held.generation
  try {
    const head = findHead(options, held)
    newest = head.reference ?? held.generation
    if (head.reference?.digest === source.digest) return undefined
    requireLease(share, held)
    const published = publishGeneration(share, {
      ...source.manifest,
      generation: head.number + 1,
      parent: parentOf(head),
      session: randomBytes(16).toString('hex'),
      created: new Date().toISOString(),
      client: { id: client.id, host: client.host },
      changedBytes: 0,
      sentBytes: 0,
      restores: name,
      checkpoint: undefined,
      compaction: undefined,
      nextInode: Math.max(head.nextInode, source.manifest.nextInode) // inode numbers are never used twice
    })
    newest = { number: published.number, digest: published.digest }
    return published
  } finally {
    releaseLease(share, held, newest)
  }
}

function findHead(options: RollbackOptions, held: HeldLease): Head {
  const { share } = options
  const head = readHead(share)
  if (isPromiseKept(held, head)) return head
  const promised = held.generation
  // A digest that nobody can read any more is of a damaged generation, and says nothing about what was promised.
  if (promised === null || (promised.number === head.number && head.reference === undefined)) return head
  if (!options.acceptMissing) {
    throw promiseBroken(share, promised, head.number, {
      hint: `wait until the share shows it (NFS clients can lag for up to a minute) and repeat. When it is gone, because the share was restored from a backup: isrfs rollback ${share.root} ${options.name} --accept-rollback`
    })
  }
  if (promised.number === head.number) return head // another one has its number
  requireLease(share, held)
  for (let number = head.number + 1; number <= promised.number; number++) {
    buryMissing(share, number, number === promised.number ? promised.digest : UNKNOWN_DIGEST)
  }
  return { number: promised.number, reference: promised, nextInode: head.nextInode }
}

/** The newest generation, or what is known of it when it is damaged. */
function readHead(share: Share): Head {
  try {
    const { number, digest, manifest } = readNewestGeneration(share)
    return { number, reference: { number, digest }, nextInode: manifest.nextInode }
  } catch (error) {
    const numbers = listGenerations(share)
    const number = numbers.at(-1)
    if (number === undefined || !isDamaged(share, error)) throw error
    const digest = orNothing(share, () => digestOfGeneration(share, number))
    const reference = digest === undefined ? undefined : { number, digest }
    const below = numbers.toReversed().map((each) => orNothing(share, () => readGeneration(share, each)))
    return { number, reference, nextInode: below.find((each) => each !== undefined)?.manifest.nextInode ?? 1 }
  }
}

function parentOf({ reference }: Head): GenerationParent | null {
  return reference === undefined ? null : { generation: reference.number, digest: reference.digest }
}

type GenerationParent = NonNullable<PublishedGeneration['manifest']['parent']>

/** undefined for what is damaged or pruned; trouble of the share is thrown. */
function orNothing<Result>(share: Share, read: () => Result): Result | undefined {
  try {
    return read()
  } catch (error) {
    if (error instanceof FailedError || damageIn(share, error) !== undefined) return undefined
    throw error
  }
}

function requireLease(share: Share, held: HeldLease): void {
  if (leaseStillHeld(share, held)) return
  throw new LeaseHeldError(`the lease of ${share.root} was taken by somebody else`, {
    hint: `nothing was published; see who has it: isrfs lease ${share.root}`
  })
}
