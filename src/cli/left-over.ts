/** What was left behind on this client, for `isrfs status` and `isrfs list`. It never keeps them from saying the rest. */
import { messageOf } from '../base/errors.js'
import { type DamagedLeftOver, type LeftOverSession, listLeftOver } from '../session/left-over.js'
import { bytes, moment } from './figures.js'
import { notice } from './output.js'
import { table } from './table.js'

export type LeftOver = LeftOverSession | DamagedLeftOver

export function leftOverOf(clientDirectory: string): LeftOver[] {
  try {
    return listLeftOver(clientDirectory)
  } catch (error) {
    notice(`cannot tell whether something was left behind in ${clientDirectory}: ${messageOf(error)}`)
    return []
  }
}

/** As `isrfs status --json` prints it. */
export function leftOverJson(found: LeftOver): object {
  const { vmId, directory } = found
  if ('damage' in found) {
    return { vm: null, vmId, directory, generation: null, since: null, changedBytes: null, damage: found.damage }
  }
  const { vmPath: vm, baseGeneration: generation, createdIso: since, changedBytes } = found
  return { vm, vmId, directory, generation, since, changedBytes, damage: null }
}

export function leftOverTable(found: readonly LeftOver[]): string {
  const columns = [
    { title: 'LEFT BEHIND, NOT PUBLISHED' },
    { title: 'GENERATION', align: 'right' as const },
    { title: 'CHANGED', align: 'right' as const },
    { title: 'SINCE' }
  ]
  return table(columns, found.map(rowOf))
}

/** What to type. */
export function waysOn(found: readonly LeftOver[]): string {
  const known = found.flatMap((one) => ('damage' in one || one.vmPath === null ? [] : [one.vmPath]))
  const vm = known.length === 1 && found.length === 1 ? (known[0] ?? '<vm>') : '<vm>'
  return `what was left behind is safe here, and on the share not yet. Go on with it: isrfs mount ${vm} <mountpoint>; or publish it: isrfs recover ${vm}`
}

function rowOf(found: LeftOver): string[] {
  if ('damage' in found) return [found.directory, '?', '', found.damage]
  const { vmPath, directory, baseGeneration, changedBytes, createdIso } = found
  const changed = changedBytes === null ? 'much' : bytes(changedBytes)
  return [vmPath ?? directory, String(baseGeneration), changed, moment(createdIso)]
}
