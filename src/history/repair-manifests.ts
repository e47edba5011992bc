/**
 * `check --repair` of manifests: puts back those that are lost or damaged, from copies that this client has kept.
 *
 *     what names the generation -> one digest -> a copy that has it -> its place on the share
 *
 * Invariants:
 * 1. Only what cannot be read is put back, and only the very manifest that was there: generations that were made from it, the
 *    lease, this client's session and manifest.sha256 say which one that is, and all that say something agree.
 * 2. A tombstone is never undone. What is gone without a trace may have been pruned, and is put back only when it cannot have
 *    been: it is the newest, which the lease names, or the session of this client needs it.
 * 3. The newest generation stays the newest: above what a listing shows, only the one that the lease names is put back, for
 *    which everybody waits who holds the lease.
 */
import { errnoOf, IsrfsError, messageOf } from '../base/errors.js'
import { directoryOf, listGenerations, UNKNOWN_DIGEST } from '../format/generations.js'
import { putBack, type Remains, remainsOf } from '../format/put-back.js'
import { readVmDescriptor } from '../format/vm.js'
import type { Share } from '../share/share.js'
import { type LiveGeneration, readLive } from './references.js'
import type { Repaired } from './repair.js'
import { readPromise } from './structure.js'

interface Reference {
  readonly generation: number
  readonly digest: string
}

export interface ManifestCopies {
  /** bytes of a manifest of the VM that have this digest, when this client has them */
  readonly copyOf: (digest: string) => Buffer | undefined
  /** what the session of this client is based on */
  readonly needed: readonly Reference[]
}

/** What the share says, read before anything is changed. */
interface Facts {
  readonly live: readonly LiveGeneration[]
  readonly promised: Reference | null
  readonly newest: number
}

/** One that is whole again may tell what another one has to be: so it goes round until no more come back. */
export function repairManifests(share: Share, copies: ManifestCopies): Repaired {
  const { vm } = readVmDescriptor(share)
  const repaired: string[] = []
  for (;;) {
    const round = repairOnce(share, vm, copies)
    repaired.push(...round.repaired)
    if (round.repaired.length === 0) return { repaired, failed: round.failed }
  }
}

function repairOnce(share: Share, vmId: string, copies: ManifestCopies): Repaired {
  const { promised } = readPromise(share) // before the listing, as everywhere
  const { live, unreadable } = readLive(share)
  const numbers = new Set<number>(listGenerations(share))
  const facts = {
    live,
    promised: promised === null ? null : { generation: promised.number, digest: promised.digest },
    newest: Math.max(0, ...numbers)
  }
  const named = [...copies.needed, ...(facts.promised === null ? [] : [facts.promised])]
  const gone = new Set(named.map(({ generation }) => generation).filter((number) => !numbers.has(number)))
  const names = [...unreadable.filter(({ isDamaged }) => isDamaged).map(({ name }) => name), ...[...gone].map(String)]
  const repaired: string[] = []
  const failed: { path: string; why: string }[] = []
  for (const name of names) {
    const path = share.pathOf(directoryOf(name))
    try {
      const why = repair(share, name, vmId, facts, copies)
      if (why === undefined) repaired.push(path)
      else failed.push({ path, why })
    } catch (error) {
      if (!(error instanceof IsrfsError) && errnoOf(error) === undefined) throw error
      failed.push({ path, why: messageOf(error) })
    }
  }
  return { repaired, failed }
}

/** Why it cannot be put back; undefined when it was. */
function repair(share: Share, name: string, vmId: string, facts: Facts, copies: ManifestCopies): string | undefined {
  const remains = remainsOf(share, name)
  if (remains.hasTombstone) return 'its tombstone cannot be read; a tombstone is never undone'
  if (remains.isGone && isNewerThanAll(name, facts)) {
    return `the share went back in time: nothing is made newer than its newest generation. isrfs recover ${share.root} --accept-rollback keeps what was changed since as a branch`
  }
  if (remains.isGone && !cannotBePruned(name, facts, copies)) {
    return 'nothing of it is left: it may have been pruned, and only a backup of the share can tell'
  }
  const digests = new Set(namesOf(name, facts, copies))
  if (digests.size === 0 && remains.digest !== undefined) digests.add(remains.digest)
  const [digest] = digests
  if (digest === undefined) return 'nothing tells any more which manifest was there'
  if (digests.size > 1 || contradicts(remains, digest)) {
    return `what names it does not agree on its digest (${[...digests, remains.digest].join(', ')}); nothing was changed`
  }
  const bytes = remains.manifest?.digest === digest ? remains.manifest.bytes : copies.copyOf(digest)
  if (bytes === undefined) return `this client has no copy of the manifest ${digest}`
  putBack(share, name, vmId, bytes)
  return undefined
}

/** Digests that others say it had. Nothing is made from a branch, and no lease names one. */
function namesOf(name: string, { live, promised }: Facts, { needed }: ManifestCopies): string[] {
  if (name.includes('-')) return []
  const parents = live.map(({ published }) => published.manifest.parent)
  return [...parents, promised, ...needed].flatMap((reference) =>
    reference?.generation === Number(name) && reference.digest !== UNKNOWN_DIGEST ? [reference.digest] : []
  )
}

/** manifest.sha256 is of another manifest, and not just damaged beside the right one. */
function contradicts({ digest: own, manifest }: Remains, digest: string): boolean {
  return own !== undefined && own !== digest && manifest?.digest !== digest
}

/** Invariant 3, of a generation that a session needs and no lease names. */
function isNewerThanAll(name: string, { promised, newest }: Facts): boolean {
  return !name.includes('-') && Number(name) > newest && promised?.generation !== Number(name)
}

/** Invariants 2 and 3, of a number of which nothing is left. */
function cannotBePruned(name: string, { promised, newest }: Facts, { needed }: ManifestCopies): boolean {
  if (name.includes('-')) return false
  const number = Number(name)
  if (promised?.generation === number) return number >= newest
  return number <= newest && needed.some(({ generation }) => generation === number)
}
