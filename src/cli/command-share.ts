/** isrfs list and lease: what a share says, read in this process. A dead share hangs this command and nothing else. */
import path from 'node:path'
import { FailedError, LeaseHeldError, messageOf } from '../base/errors.js'
import { leaseHolder } from '../daemon/host.js'
import { BEAT_INTERVAL_MS } from '../daemon/right.js'
import { type PublishedGeneration, readNewestGeneration } from '../format/generations.js'
import { readVmDescriptor } from '../format/vm.js'
import { openClient } from '../session/client.js'
import { breakLease, describeHolder, type LeaseState, readLease } from '../share/lease.js'
import { createSessionPin } from '../share/pin.js'
import { Share } from '../share/share.js'
import { bytes, moment } from './figures.js'
import { directoriesOf, type GlobalOptions } from './options.js'
import { notice, result } from './output.js'
import { prepareDirectory } from './prerequisites.js'
import { table } from './table.js'

/** a holder that lives shows it at least once in this time */
const OBSERVED_BEATS = 3

export function listCommand(given: string): void {
  const root = new Share(path.resolve(given))
  if (!root.exists('.')) throw new FailedError(`${root.root} does not exist`, { hint: 'is the share mounted?' })
  const rows = root
    .list('.')
    .sort()
    .filter((name) => !name.startsWith('.') && new Share(root.pathOf(name)).exists('vm.json'))
    .map((name) => [name, ...describeVm(new Share(root.pathOf(name)))])
  if (rows.length === 0) {
    const isVm = root.exists('vm.json')
    notice(
      isVm ? `${root.root} is a VM itself; isrfs log ${root.root} tells about it` : `there is no VM in ${root.root}`
    )
    return
  }
  result(
    table(
      [
        { title: 'VM' },
        { title: 'GENERATION', align: 'right' },
        { title: 'WHEN' },
        { title: 'HOST' },
        { title: 'SIZE', align: 'right' },
        { title: 'LEASE' }
      ],
      rows
    )
  )
}

function describeVm(share: Share): string[] {
  try {
    readVmDescriptor(share)
    const { number, manifest } = readNewestGeneration(share)
    return [
      String(number),
      moment(manifest.created),
      manifest.client.host,
      bytes(sizeOf(manifest)),
      leaseWord(readLease(share))
    ]
  } catch (error) {
    return ['?', '', '', '', messageOf(error)]
  }
}

function leaseWord(state: LeaseState | undefined): string {
  return state === undefined || state.released !== undefined ? 'free' : `held by ${state.lease.holder.host}`
}

export function sizeOf(manifest: PublishedGeneration['manifest']): number {
  return manifest.entries.reduce((total, entry) => total + (entry.type === 'file' ? entry.size : 0), 0)
}

export async function leaseCommand(
  given: string,
  options: GlobalOptions & { readonly break?: boolean }
): Promise<void> {
  const share = new Share(path.resolve(given))
  readVmDescriptor(share)
  const state = readLease(share)
  if (state === undefined || state.released !== undefined) {
    result(
      `free${state === undefined ? '' : ` (lease ${String(state.lease.number)} ended ${state.released?.time ?? ''})`}`
    )
    return
  }
  if (options.break !== true) {
    result(`held (lease ${String(state.lease.number)}): ${describeHolder(state)}`)
    return
  }
  const { clientDirectory } = directoriesOf(options)
  prepareDirectory(clientDirectory, '--client-dir')
  await refuseWhileAlive(share, state)
  // what its holder has not published is based on the newest generation: prune must leave that alone from now on
  createSessionPin(share, state.lease.holder, state.lease.number, readNewestGeneration(share).number)
  breakLease(share, state, leaseHolder(openClient(clientDirectory).id, '(isrfs lease --break)'))
  result(`broken: lease ${String(state.lease.number)}, held by ${describeHolder(state)}`)
  notice('changes that its holder has not published can only become a branch now: isrfs recover on that client')
}

/** Clocks of two machines are not compared: the beat moves while it is watched, or it does not. */
async function refuseWhileAlive(share: Share, before: LeaseState): Promise<void> {
  const watchedMs = OBSERVED_BEATS * BEAT_INTERVAL_MS
  notice(`watching for ${String(watchedMs / 1000)} s whether the holder lives: ${describeHolder(before)}`)
  const endMs = Date.now() + watchedMs
  while (Date.now() < endMs) {
    await new Promise((resolve) => setTimeout(resolve, 1000))
    const now = readLease(share)
    if (now?.lease.number !== before.lease.number || now.released !== undefined) {
      throw new FailedError(`the lease of ${share.root} changed hands meanwhile`, {
        hint: `look again: isrfs lease ${share.root}`
      })
    }
    if (now.beat?.count !== before.beat?.count) {
      throw new LeaseHeldError(`the holder of the lease lives: ${describeHolder(now)}`, {
        hint: 'suspend the VM there: isrfs unmount'
      })
    }
  }
}
