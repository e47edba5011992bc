/**
 * How a mount ends on the share, after the kernel has let go of it: commit, then the session goes, then the lease.
 *
 * Invariants:
 * 1. The session is removed only when its generation is published, or when it differs from its base in nothing.
 * 2. While there are unpublished changes the lease is kept, so that nobody else makes the next generation.
 * 3. What fails after the publish is told, and is no failure: the generation is durable.
 */
import { IsrfsError, messageOf, NotPublishedError } from '../base/errors.js'
import { type CommitResult, commitSession } from '../commit/commit.js'
import type { Profile } from '../format/profile.js'
import type { GenerationReference } from '../share/lease.js'
import { hostName } from './host.js'
import { keepCopy } from './keep-manifest.js'
import { event } from './log-events.js'
import type { Log } from './log.js'
import type { Outcome, Progress } from './messages.js'
import { newestOf, type OpenedVm } from './opened-vm.js'
import type { MountRequest } from './request.js'
import { notePublished } from './seen-generation.js'
import { withinMs } from './within.js'

const RELEASE_MS_MAX = 15_000
const PROFILE_MS_MAX = 5000

export interface Settling {
  readonly verify: boolean
  readonly keepLocks?: boolean
  readonly log: Log
  readonly onProgress: (progress: Progress) => void
  readonly notice: (text: string) => void
  readonly profile?: () => Profile | undefined
}

/** Rejects with NotPublishedError, the session closed and whole. */
export async function settleMount(request: MountRequest, vm: OpenedVm, settling: Settling): Promise<Outcome> {
  const { session, base, held } = vm
  const before = newestOf(vm)
  if (held === undefined) {
    await letGo(vm, base, settling)
    return { kind: 'nothing-to-publish', why: request.readOnly ? 'read-only' : 'discard' }
  }
  const committed = session.isUntouched ? undefined : await commit(request, vm, held, settling)
  if (committed?.branch !== undefined) {
    const { branch, changedBytes, sentBytes } = committed
    await letGo(vm, before, settling)
    return { kind: 'branch', branch: branch.published.name, why: branch.why, changedBytes, sentBytes }
  }
  await keepProfile(vm, (committed?.head ?? before).number, settling)
  if (committed?.published === undefined) {
    const newest = committed?.head ?? before
    await letGo(vm, newest, settling)
    return { kind: 'unchanged', generation: newest.number }
  }
  const { published, changedBytes, sentBytes } = committed
  const { clientDirectory } = request
  const vmId = base.manifest.vm
  notePublished({ clientDirectory, vmId }, published)
  await keepCopy({ pool: vm.pool, clientDirectory, vmId }, published)
  await letGo(vm, published, settling)
  return { kind: 'published', generation: published.number, changedBytes, sentBytes, verified: settling.verify }
}

/** Advice for the next mount: a share that does not take it in time keeps nobody. */
async function keepProfile(
  { pool }: OpenedVm,
  generation: number,
  { profile: profileOf, log }: Settling
): Promise<void> {
  const profile = profileOf?.()
  if (profile === undefined) return
  try {
    const input = { generation, profile }
    const written = pool.run('writeProfile', input, { what: 'writing the profile' })
    if (!(await withinMs(written, PROFILE_MS_MAX)))
      log.warn(event('no-profile', { why: 'not in time' }), 'the profile was not written in time')
  } catch (error) {
    log.warn(event('no-profile', { why: messageOf(error) }), 'no profile was written')
  }
}

async function commit(
  request: MountRequest,
  vm: OpenedVm,
  held: NonNullable<OpenedVm['held']>,
  { verify, keepLocks = false, log, onProgress }: Settling
): Promise<CommitResult> {
  const { session, base, cache, client } = vm
  try {
    return await commitSession({
      vmPath: request.vmPath,
      session,
      base,
      held,
      cache,
      client: { id: client.id, host: hostName() },
      verify,
      keepLocks,
      onProgress
    })
  } catch (error) {
    vm.right.stop()
    await session
      .close()
      .catch((failure: unknown) => log.error(event('failed', { why: messageOf(failure) }), 'closing the session'))
    throw asNotPublished(error, request.vmPath)
  }
}

async function letGo(
  { session, right, pool, client, held }: OpenedVm,
  newest: GenerationReference,
  { notice }: Settling
): Promise<void> {
  try {
    session.destroy()
  } catch (error) {
    notice(`the session could not be cleaned up (the next mount does it): ${messageOf(error)}`)
  }
  // While the lease is held nobody prunes: the pins of a session that is gone may go first.
  const unpinned =
    held === undefined
      ? Promise.resolve()
      : pool.run('removeSessionPins', { client: client.id }).catch((error: unknown) => {
          notice(`a pin could not be removed: ${messageOf(error)}`)
        })
  const given = unpinned.then(() => right.giveBack({ number: newest.number, digest: newest.digest }))
  try {
    if (await withinMs(given, RELEASE_MS_MAX)) return
    notice('the share does not answer: the lease could not be given back; the next mount by this client takes it back')
  } catch (error) {
    notice(`the lease could not be given back: ${messageOf(error)}`)
  }
}

/** The changes are safe, on the share even, but they are not what the next mount shows: no success. */
export function branchError(vmPath: string, outcome: Extract<Outcome, { kind: 'branch' }>): NotPublishedError {
  return new NotPublishedError(`not published as the next generation: ${outcome.why}`, {
    hint: `the changes are kept on the share as branch ${outcome.branch}: look at it with isrfs mount ${vmPath} <mountpoint> --generation ${outcome.branch}, make it the newest generation with isrfs rollback ${vmPath} ${outcome.branch}`
  })
}

/** Whatever stopped a commit: the changes are safe, and this is how to go on. */
export function asNotPublished(error: unknown, vmPath: string): NotPublishedError {
  if (error instanceof NotPublishedError && error.hint?.includes('--accept-loss') === true) return error
  const hint =
    error instanceof IsrfsError && error.hint !== undefined ? `${error.hint}; then` : 'when the cause is gone:'
  return new NotPublishedError(messageOf(error), {
    cause: error,
    hint: `the changes are safe on this client; ${hint} isrfs recover ${vmPath} (or mount it again)`
  })
}
