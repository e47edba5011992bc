/** isrfs status: asks one daemon, or all of this user's. */
import { askAllStatus, askStatus, SilentError } from '../daemon/control-client.js'
import type { Status } from '../daemon/messages.js'
import { findSockets } from '../daemon/socket-path.js'
import { bytes, moment, percent } from './figures.js'
import { locateMountpoint } from './mountpoint.js'
import { notice, result } from './output.js'
import { silentDaemon, whyNoDaemon } from './silent-daemon.js'
import { facts, table } from './table.js'

/** a daemon that serves its main loop answers at once; one that does not in this time is told of */
const ANSWER_MS_MAX = 1500

export async function statusCommand(given: string | undefined, options: { readonly json?: boolean }): Promise<void> {
  if (given === undefined) {
    const mounts = await askAllStatus((socketPath) => notice(`the daemon behind ${socketPath} does not answer`))
    if (options.json === true) result(JSON.stringify({ mounts }))
    else if (mounts.length === 0) notice('nothing is mounted')
    else result(overview(mounts))
    return
  }
  const status = await statusAt(locateMountpoint(given))
  result(options.json === true ? JSON.stringify(status) : details(status))
}

async function statusAt(mountpoint: string): Promise<Status> {
  for (const socketPath of findSockets(mountpoint)) {
    const status = await askPatiently(socketPath, mountpoint)
    if (status !== undefined) return status
  }
  throw await whyNoDaemon(mountpoint)
}

/** Says soon that there is no answer; a daemon that is only busy gets more time, one that is stopped does not. */
async function askPatiently(socketPath: string, mountpoint: string): Promise<Status | undefined> {
  try {
    return await askStatus(socketPath, ANSWER_MS_MAX)
  } catch (error) {
    if (!(error instanceof SilentError)) throw error
  }
  const { isStopped, error } = silentDaemon(mountpoint)
  if (isStopped) throw error
  notice(`${error.message}; still asking`)
  return askStatus(socketPath).catch((failure: unknown) => {
    throw failure instanceof SilentError ? error : failure
  })
}

function overview(mounts: readonly Status[]): string {
  const rows = mounts.map((status) => [
    status.vm,
    status.mountpoint,
    status.state,
    String(status.generation),
    bytes(status.dirtyBytes),
    percent(status.presentBytes, status.totalBytes),
    String(status.pid)
  ])
  return table(
    [
      { title: 'VM' },
      { title: 'MOUNTPOINT' },
      { title: 'STATE' },
      { title: 'GENERATION', align: 'right' },
      { title: 'DIRTY', align: 'right' },
      { title: 'PRESENT', align: 'right' },
      { title: 'PID', align: 'right' }
    ],
    rows
  )
}

function details(status: Status): string {
  const kind = status.readOnly ? ' (read-only)' : status.discard ? ' (changes are discarded)' : ''
  const share = status.shareAnswers ? 'answers' : 'does not answer'
  return facts([
    ['VM', status.vm],
    ['mountpoint', `${status.mountpoint}${kind}`],
    [
      'state',
      status.phase === ''
        ? status.state
        : `${status.state}, ${status.phase}: ${bytes(status.doneBytes)} of ${bytes(status.toDoBytes)}`
    ],
    ['generation', String(status.generation)],
    ['since', moment(status.since)],
    [
      'present',
      `${bytes(status.presentBytes)} of ${bytes(status.totalBytes)} (${percent(status.presentBytes, status.totalBytes)})`
    ],
    ['dirty', bytes(status.dirtyBytes)],
    ['fetched', `${bytes(status.fetchedBytes)} (${String(status.fetchedBlocks)} blocks)`],
    ['fetched ahead', `${String(status.aheadBlocks)} blocks, ${String(status.aheadUsedBlocks)} of them read since`],
    ['uploaded', bytes(status.uploadedBytes)],
    ['cache', bytes(status.cacheBytes)],
    ['lease', status.leaseNumber === null ? status.lease : `${status.lease} (number ${String(status.leaseNumber)})`],
    ['share', `${share}, ${String(status.shareErrors)} errors, ${String(status.damagedBlocks)} damaged blocks`],
    ['waiting', status.waiting.length === 0 ? 'nothing' : status.waiting.join(', ')],
    ['client', status.client],
    ['process', `${String(status.pid)}, ${bytes(status.residentBytes)} in memory`],
    ['log', status.log]
  ])
}
