/** What has to be so before anything of a session is published, at a suspend as at a checkpoint. */
import { errnoOf, NotPublishedError } from '../base/errors.js'
import type { Cache } from '../cache/cache.js'
import type { BlockPlace, ObjectPlace } from '../format/place.js'
import type { Session } from '../session/session.js'
import type { CommitPool } from './commit-pool.js'

const PLACES_PER_CHECK = 1024
/** what a full disk needs to end a session: a barrier in its journal, the records of what was sent */
export const SPACE_TO_COMMIT_BYTES = 16 * 1024 * 1024

interface Publishing {
  readonly vmPath: string
  readonly session: Session
  readonly cache: Cache | undefined
  readonly acceptLoss?: boolean
}

/** Throws NotPublishedError when accepted writes are gone and no person has said that this does not matter. */
export function refuseLoss({ session, acceptLoss, vmPath }: Publishing): void {
  const lost = session.lost.all()
  if (lost.length === 0 || acceptLoss === true) return
  throw new NotPublishedError(`writes that programs were told of were lost: ${lost.join('; ')}`, {
    hint: `everything else is safe on this client. To publish it without them: isrfs recover ${vmPath} --accept-loss; to drop it: isrfs recover ${vmPath} --discard`
  })
}

/** A disk that the session has filled must not keep it from being published: the cache makes way. */
export async function syncSession({ session, cache }: Publishing): Promise<void> {
  try {
    await session.sync()
  } catch (error) {
    if (errnoOf(error) !== 'ENOSPC' || cache === undefined) throw error
    cache.evict(SPACE_TO_COMMIT_BYTES)
    await session.sync()
  }
}

/** Everything that a new generation brings along is on the share; with `verify` it also is what was sent. */
export async function checkSent(
  pool: CommitPool,
  { places, objects }: { readonly places: readonly BlockPlace[]; readonly objects: readonly ObjectPlace[] },
  verify: boolean,
  onStep: () => void
): Promise<void> {
  const task = verify ? 'verify' : 'checkChunks'
  for (let start = 0; start < places.length; start += PLACES_PER_CHECK) {
    await pool.run(task, { places: places.slice(start, start + PLACES_PER_CHECK) })
    onStep()
  }
  await pool.run(task, { places: [], objects })
}
