/**
 * The base of a session that becomes a branch. Where the share does not have it any more (it was restored from a backup, or
 * the generation was pruned), it comes from the copy of its manifest on this client, and what of its content can still be
 * had is put on the share again (commit/salvage.ts).
 */
import { FailedError, IntegrityError, NotPublishedError } from '../base/errors.js'
import { toGeneration } from '../base/units.js'
import { CachedBytes } from '../cache/find-cached.js'
import { CommitPool } from '../commit/commit-pool.js'
import { describeLost } from '../commit/lost-ranges.js'
import { salvageBase } from '../commit/salvage.js'
import type { SharePool } from '../fetch/share-pool.js'
import { parseManifestOf, type PublishedGeneration } from '../format/generations.js'
import { keptManifest } from '../session/kept-manifests.js'
import type { Session, SessionIdentity } from '../session/session.js'
import { openLeftOver, readBase } from './claim.js'

/** named one by one; of more only how many there are */
const LOST_NAMED_MAX = 20

export interface LeftOverVm {
  readonly pool: SharePool
  readonly vmPath: string
  readonly vmId: string
  readonly clientDirectory: string
  readonly cacheDirectory: string
  /** publish although something is lost: a person has decided so */
  readonly acceptLoss: boolean
  readonly notice: (text: string) => void
  readonly onStep: () => void
}

export interface FoundBase {
  readonly base: PublishedGeneration
  readonly isLost: boolean
}

/** Throws IntegrityError when the share has to be repaired first, or when nobody has the manifest any more. */
export async function findBase(
  vm: Pick<LeftOverVm, 'pool' | 'vmPath' | 'vmId' | 'clientDirectory'>,
  directory: string,
  identity: SessionIdentity
): Promise<FoundBase> {
  const { baseGeneration: number, baseDigest } = identity
  const what = 'reading the base of the session'
  const digest = await vm.pool.run('digestOf', { number }, { what })
  const newest = await vm.pool.run('newest', {}, { what })
  const isGone = digest === undefined ? number > newest.number : digest !== baseDigest
  if (isGone) return keptBase(vm, directory, identity)
  try {
    return { base: await readBase(vm, directory, identity), isLost: false }
  } catch (error) {
    if (error instanceof FailedError) return keptBase(vm, directory, identity) // pruned: no repair undoes a tombstone
    throw error
  }
}

function keptBase(
  { vmPath, vmId, clientDirectory }: Pick<LeftOverVm, 'vmPath' | 'vmId' | 'clientDirectory'>,
  directory: string,
  { baseGeneration, baseDigest }: SessionIdentity
): FoundBase {
  const number = toGeneration(baseGeneration)
  const bytes = keptManifest(clientDirectory, vmId, baseDigest)
  if (bytes === undefined) {
    throw new IntegrityError(
      `${vmPath} does not have generation ${String(number)} any more, on which the session is based, and this client has no copy of its manifest`,
      {
        hint: `nothing was changed, keep ${directory}; restore a backup of the share that has generation ${String(number)}, then: isrfs recover ${vmPath}`
      }
    )
  }
  const manifest = parseManifestOf(number, bytes, `the copy of the manifest of generation ${String(number)}`)
  return { base: { number, digest: baseDigest, manifest }, isLost: true }
}

/**
 * The session over what is left of its lost base. Takes over `session`, which was opened over `base`. Throws
 * NotPublishedError, the session closed and whole, when parts of the base are lost and nobody has accepted that.
 */
export async function overSalvagedBase(
  vm: LeftOverVm,
  directory: string,
  session: Session,
  base: PublishedGeneration
): Promise<{ readonly session: Session; readonly base: PublishedGeneration }> {
  const number = String(base.number)
  vm.notice(
    `the share does not have generation ${number} any more, on which the changes are based; what of it is on the share, or in the cache of this client, is put together`
  )
  const pool = new CommitPool(vm.vmPath)
  const cached = new CachedBytes(vm.cacheDirectory, vm.vmId)
  const salvaged = await salvageBase({ pool, session, base, cached, onStep: vm.onStep }).finally(async () => {
    await pool.close()
    await session.close()
  })
  const { lost } = salvaged
  for (const range of lost.slice(0, LOST_NAMED_MAX)) vm.notice(`lost with generation ${number}: ${describeLost(range)}`)
  if (lost.length > LOST_NAMED_MAX) vm.notice(`and ${String(lost.length - LOST_NAMED_MAX)} ranges more`)
  if (lost.length > 0 && !vm.acceptLoss) {
    throw new NotPublishedError(
      `${String(lost.length)} ranges of generation ${number} of ${vm.vmPath}, on which the changes are based, are neither on the share nor in the cache of this client`,
      {
        hint: `everything is safe on this client. A backup of the share that has generation ${number} makes it whole: restore its chunks, then isrfs recover ${vm.vmPath}. To keep all that is left as a branch in which reading the rest is an error: isrfs recover ${vm.vmPath} --accept-rollback --accept-loss`
      }
    )
  }
  return { session: openLeftOver(directory, salvaged.base, vm.vmPath), base: salvaged.base }
}
