/** isrfs status: asks one daemon; or all of this user's, and looks for what was left behind. */
import { messageOf } from '../base/errors.js'
import { askStatus } from '../daemon/control-client.js'
import type { Status } from '../daemon/messages.js'
import { findSockets } from '../daemon/socket-path.js'
import { bytes, moment } from './figures.js'
import { leftOverJson, leftOverOf, leftOverTable, waysOn } from './left-over.js'
import { cableText, presentPercent, presentText, suspendText } from './mount-facts.js'
import { locateMountpoint } from './mountpoint.js'
import { directoriesOf, type GlobalOptions } from './options.js'
import { notice, result } from './output.js'
import { askPatiently, socketsOfAll, whyNoDaemon } from './silent-daemon.js'
import { facts, table } from './table.js'

export async function statusCommand(
  given: string | undefined,
  options: GlobalOptions & { readonly json?: boolean }
): Promise<void> {
  if (given === undefined) {
    await statusWithoutMountpoint(options)
    return
  }
  const status = await statusAt(locateMountpoint(given))
  result(options.json === true ? JSON.stringify(status) : details(status))
}

/** All mounts of this user, and what was left behind in this client directory. */
async function statusWithoutMountpoint(options: GlobalOptions & { readonly json?: boolean }): Promise<void> {
  const { clientDirectory } = directoriesOf(options)
  const { mounts, silent } = await statusOfAll()
  const leftOver = leftOverOf(clientDirectory)
  if (options.json === true) {
    result(JSON.stringify({ mounts, leftOver: leftOver.map(leftOverJson) }))
    return
  }
  if (mounts.length > 0) result(overview(mounts))
  else if (silent === 0) notice('nothing is mounted')
  if (leftOver.length === 0) return
  result(`${mounts.length > 0 ? '\n' : ''}${leftOverTable(leftOver)}`)
  notice(waysOn(leftOver))
}

async function statusAt(mountpoint: string): Promise<Status> {
  for (const socketPath of findSockets(mountpoint)) {
    const status = await askPatiently(mountpoint, (limitMs) => askStatus(socketPath, limitMs))
    if (status !== undefined) return status
  }
  throw await whyNoDaemon(mountpoint)
}

/** A daemon that says nothing is told of, and is no reason to say nothing of the others. */
async function statusOfAll(): Promise<{ readonly mounts: Status[]; readonly silent: number }> {
  let silent = 0
  const asked = socketsOfAll().map(async ({ mountpoint, socketPath }) => {
    try {
      return await askPatiently(mountpoint, (limitMs) => askStatus(socketPath, limitMs))
    } catch (error) {
      notice(messageOf(error))
      silent++
      return undefined
    }
  })
  const mounts = (await Promise.all(asked)).filter((status) => status !== undefined)
  return { mounts, silent }
}

function overview(mounts: readonly Status[]): string {
  const rows = mounts.map((status) => [
    status.vm,
    status.mountpoint,
    status.state,
    String(status.generation),
    bytes(status.dirtyBytes),
    presentPercent(status),
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
    ['size', bytes(status.totalBytes)],
    ['present', `${presentText(status)} (${presentPercent(status)})`],
    ['dirty', bytes(status.dirtyBytes)],
    ['suspend', suspendText(status).replace('suspend now: ', 'would send ')],
    ['cable', cableText(status)],
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
