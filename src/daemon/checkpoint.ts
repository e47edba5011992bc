/** Checkpoints of a mount: who may make one, and what is noted of one elsewhere. */
import { IsrfsError, messageOf, NotPublishedError, UsageError } from '../base/errors.js'
import { Checkpointer } from '../commit/checkpointer.js'
import type { Images } from '../image/images.js'
import type { GenerationReference } from '../share/lease.js'
import { hostName, leaseHolder } from './host.js'
import { keepCopy } from './keep-manifest.js'
import { event } from './log-events.js'
import type { Log } from './log.js'
import type { OpenedVm } from './opened-vm.js'
import type { MountRequest } from './request.js'
import { notePublished } from './seen-generation.js'
import { withinMs } from './within.js'

const NOTE_MS_MAX = 10_000
const NOT_NAMED = 'the lease does not name the checkpoint'

/** undefined for a mount that never publishes. */
export function createCheckpointer(request: MountRequest, vm: OpenedVm, images: Images): Checkpointer | undefined {
  const { held, session, cache, base, client, pool } = vm
  if (held === undefined) return undefined
  const holder = leaseHolder(client.id, request.mountpoint)
  const pin = { holder, leaseNumber: held.number, generation: base.number }
  const checkpointer = new Checkpointer({
    vmPath: request.vmPath,
    session,
    cache,
    maps: images.maps,
    base,
    held,
    client: { id: client.id, host: hostName() },
    holdWrites: () => images.holdWrites(),
    pinBase: () => pool.run('pinBase', pin, { what: 'pinning the base of the session' })
  })
  images.trickleIsPaused = () => checkpointer.isRunning
  images.isInCheckpoint = (inode, block) => checkpointer.isSent(inode, block)
  return checkpointer
}

export function whyNoCheckpointer({ readOnly }: MountRequest): Error {
  return new UsageError(
    readOnly ? 'the mount is read-only: there is nothing to publish' : 'the mount is --discard: it never publishes',
    { hint: 'a checkpoint needs a mount that may change the VM' }
  )
}

/** The generation is durable: what fails here is told to the log, and costs guards and nothing else. */
export async function notePublishedByMount(
  { clientDirectory }: MountRequest,
  { base, held, pool }: OpenedVm,
  { number, digest }: GenerationReference,
  log: Log
): Promise<void> {
  const vmId = base.manifest.vm
  notePublished({ clientDirectory, vmId }, { number, digest })
  await keepCopy({ pool, clientDirectory, vmId }, { number, digest })
  if (held === undefined) return
  const noted = pool.run('noteOnLease', { held, generation: { number, digest } }, { what: 'naming the checkpoint' })
  try {
    if (!(await withinMs(noted, NOTE_MS_MAX)))
      log.warn(event('share-trouble', { why: 'it does not answer' }), NOT_NAMED)
  } catch (error) {
    log.warn(event('share-trouble', { why: messageOf(error) }), NOT_NAMED)
  }
}

/** Whatever stopped it: the mount goes on, and nothing is lost. */
export function asNoCheckpoint(error: unknown): NotPublishedError {
  const hint = error instanceof IsrfsError && error.hint !== undefined ? `; ${error.hint}` : ''
  return new NotPublishedError(`no checkpoint: ${messageOf(error)}`, {
    cause: error,
    hint: `the mount goes on, and all changes are safe on this client${hint}`
  })
}
