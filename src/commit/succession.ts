/**
 * What the next generation of a session follows: its base, or the newest checkpoint that the session itself has published.
 * A session knows its checkpoints by their digests, which it writes down before it publishes each; so whoever finds
 * another newest generation on the share knows that somebody else has made it, also with a session directory that was
 * restored from a backup.
 */
import type { PublishedGeneration } from '../format/generations.js'
import type { Manifest } from '../format/manifest.js'
import type { CheckpointReference } from '../session/identity.js'
import type { GenerationReference, HeldLease } from '../share/lease.js'
import type { CommitPool } from './commit-pool.js'

export interface SuccessionOptions {
  readonly vmPath: string
  readonly session: { readonly ownGenerations: readonly CheckpointReference[] }
  readonly base: PublishedGeneration
  /** it is not what the share shows under its number: it was pruned there, or the share went back in time */
  readonly isBaseLost?: boolean
  readonly held: Pick<HeldLease, 'number' | 'token'> | undefined
  /** why there is no lease; somebody else has it unless given */
  readonly whyNotHeld?: string
}

export interface Head extends GenerationReference {
  /** undefined when it was pruned */
  readonly manifest: Manifest | undefined
}

export interface Succession {
  /** the newest generation of this session's line */
  readonly head: Head
  /** why the session may not make the next generation; undefined while it may */
  readonly lost: string | undefined
}

/** Looks on the share what the session's next generation would follow, and whether it may be published. */
export async function findSuccession(
  pool: CommitPool,
  { vmPath, session, base, held, isBaseLost = false, whyNotHeld }: SuccessionOptions
): Promise<Succession> {
  const newest = await pool.run('newest', {})
  // a branch of what the share does have: nothing on it may name a generation that it has not
  if (isBaseLost) return { head: newest, lost: whyBaseIsLost(base, newest) }
  const isOwn = session.ownGenerations.some((own) => isSame(own, newest))
  if (!isOwn && (newest.number !== base.number || newest.digest !== base.digest)) {
    const head = await lastOwn(pool, session.ownGenerations, base)
    return {
      head,
      lost: `generation ${String(newest.number)} was published by ${newest.manifest.client.host} since generation ${String(head.number)}, which these changes are based on`
    }
  }
  if (held !== undefined && (await pool.run('leaseStillHeld', { held }))) return { head: newest, lost: undefined }
  const lost = held === undefined ? whyNotHeld : undefined
  return { head: newest, lost: lost ?? `the lease of ${vmPath} was taken by somebody else` }
}

function whyBaseIsLost(base: GenerationReference, newest: GenerationReference): string {
  const number = String(base.number)
  return newest.number < base.number
    ? `the share went back in time: its newest generation is ${String(newest.number)}, and these changes are based on generation ${number}`
    : `the generation ${number} that these changes are based on is not on the share any more`
}

/** Checkpoints that somebody else's generation follows are among the generations, or were pruned meanwhile. */
async function lastOwn(
  pool: CommitPool,
  own: readonly CheckpointReference[],
  base: PublishedGeneration
): Promise<Head> {
  for (const reference of [...own].reverse()) {
    const { generation: number, digest } = reference
    if ((await pool.run('digestOf', { number })) !== digest) continue
    const read = await pool.run('generation', { number }).catch(() => undefined)
    return { number, digest, manifest: read?.manifest }
  }
  return base
}

export function isSame(own: CheckpointReference, { number, digest }: GenerationReference): boolean {
  return own.generation === number && own.digest === digest
}

export function referenceTo({ number, digest }: GenerationReference): GenerationReference {
  return { number, digest }
}
