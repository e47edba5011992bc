/** isrfs list and lease: what a share says, read in this process. A dead share hangs this command and nothing else. */
import fs from 'node:fs'
import path from 'node:path'
import { FailedError, LeaseHeldError, messageOf } from '../base/errors.js'
import { leaseHolder } from '../daemon/host.js'
import { BEAT_INTERVAL_MS } from '../daemon/right.js'
import { listGenerations, type PublishedGeneration, readNewestGeneration } from '../format/generations.js'
import { readVmDescriptor } from '../format/vm.js'
import { openClient } from '../session/client.js'
import { breakLease, describeHolder, type LeaseState, readLease } from '../share/lease.js'
import { createSessionPin } from '../share/pin.js'
import { Share } from '../share/share.js'
import { bytes, moment } from './figures.js'
import { leftOverOf } from './left-over.js'
import { directoriesOf, type GlobalOptions } from './options.js'
import { notice, result, resultAs } from './output.js'
import { prepareDirectory } from './prerequisites.js'
import { table } from './table.js'

/** a holder that lives shows it at least once in this time */
const OBSERVED_BEATS = 3

export function listCommand(given: string, options: GlobalOptions & { readonly json?: boolean } = {}): void {
  const leftOver = leftOverOf(directoriesOf(options).clientDirectory)
  const leftOverIds = new Set(leftOver.map(({ vmId }) => vmId))
  const root = new Share(path.resolve(given))
  if (!root.exists('.')) throw new FailedError(`${root.root} does not exist`, { hint: 'is the share mounted?' })
  if (fs.statSync(root.root, { throwIfNoEntry: false })?.isDirectory() === false) {
    throw new FailedError(`${root.root} is not a directory, so it is no share`, {
      hint: 'isrfs list <directory with VMs>'
    })
  }
  const rows = root
    .list('.')
    .sort()
    .filter((name) => !name.startsWith('.') && new Share(root.pathOf(name)).exists('vm.json'))
    .map((name) => describeVm(name, new Share(root.pathOf(name)), leftOverIds))
  if (options.json === true) {
    result(JSON.stringify(rows))
    return
  }
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
      rows.map(rowOf)
    )
  )
}

function describeVm(name: string, share: Share, leftOverIds: ReadonlySet<string>): ListedVm {
  try {
    const { vm } = readVmDescriptor(share)
    const { number, manifest } = readNewestGeneration(share)
    const lease = readLease(share)
    return {
      name,
      path: share.root,
      generation: number,
      created: manifest.created,
      host: manifest.client.host,
      totalBytes: sizeOf(manifest),
      leaseHeldBy: lease === undefined || lease.released !== undefined ? null : lease.lease.holder.host,
      leftOver: leftOverIds.has(vm)
    }
  } catch (error) {
    return { name, path: share.root, damage: messageOf(error) }
  }
}

/** Of a VM that cannot be read only its name and what is wrong. */
type ListedVm =
  | { readonly name: string; readonly path: string; readonly damage: string }
  | {
      readonly name: string
      readonly path: string
      readonly generation: number
      readonly created: string
      readonly host: string
      readonly totalBytes: number
      readonly leaseHeldBy: string | null
      readonly leftOver: boolean
    }

function rowOf(vm: ListedVm): string[] {
  if ('damage' in vm) return [vm.name, '?', '', '', '', vm.damage]
  const lease = vm.leaseHeldBy === null ? 'free' : `held by ${vm.leaseHeldBy}`
  const note = vm.leftOver ? '; changes were left behind on this client (isrfs status)' : ''
  return [vm.name, String(vm.generation), moment(vm.created), vm.host, bytes(vm.totalBytes), `${lease}${note}`]
}

export function sizeOf(manifest: PublishedGeneration['manifest']): number {
  return manifest.entries.reduce((total, entry) => total + (entry.type === 'file' ? entry.size : 0), 0)
}

export async function leaseCommand(
  given: string,
  options: GlobalOptions & { readonly break?: boolean; readonly json?: boolean }
): Promise<void> {
  const share = new Share(path.resolve(given))
  readVmDescriptor(share)
  const state = readLease(share)
  if (state === undefined || state.released !== undefined) {
    resultAs(
      options.json,
      { vm: share.root, state: 'free', number: state?.lease.number ?? null, released: state?.released?.time ?? null },
      () =>
        `free${state === undefined ? '' : ` (lease ${String(state.lease.number)} ended ${moment(state.released?.time ?? '')})`}`
    )
    return
  }
  if (options.break !== true) {
    resultAs(
      options.json,
      heldJson(share, state, 'held'),
      () => `held (lease ${String(state.lease.number)}): ${describeHolder(state)}`
    )
    return
  }
  const { clientDirectory } = directoriesOf(options)
  prepareDirectory(clientDirectory, '--client-dir')
  await refuseWhileAlive(share, state)
  // what its holder has not published is based on the newest generation: prune must leave that alone from now on
  const newest = listGenerations(share).at(-1) // also when it is damaged: a lease can be broken all the same
  if (newest !== undefined) createSessionPin(share, state.lease.holder, state.lease.number, newest)
  breakLease(share, state, leaseHolder(openClient(clientDirectory).id, '(isrfs lease --break)'))
  resultAs(
    options.json,
    heldJson(share, state, 'broken'),
    () => `broken: lease ${String(state.lease.number)}, held by ${describeHolder(state)}`
  )
  notice(
    'changes that its holder has not published can only become a branch now: isrfs recover on that client. Until then prune removes no chunk of this VM, and says how to end that when the client is gone for good'
  )
}

function heldJson(share: Share, { lease }: LeaseState, state: 'held' | 'broken'): object {
  const { host, client, pid, mountpoint } = lease.holder
  return { vm: share.root, state, number: lease.number, taken: lease.taken, host, client, pid, mountpoint }
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
