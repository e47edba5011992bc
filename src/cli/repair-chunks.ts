/** The second half of `check --repair`: chunks are put back, or left, as far as this client can, and each is told. */
import path from 'node:path'
import { CachedBytes } from '../cache/find-cached.js'
import type { ImportClient } from '../commit/import-lease.js'
import { listGenerations } from '../format/generations.js'
import { readVmDescriptor } from '../format/vm.js'
import type { BadObject, CheckResult } from '../history/check.js'
import { moveOutOfDamaged } from '../history/move-out.js'
import { repairChunks } from '../history/repair.js'
import type { Share } from '../share/share.js'
import { directoriesOf, type GlobalOptions } from './options.js'
import { notice } from './output.js'

export interface RepairingChunks {
  readonly share: Share
  readonly options: GlobalOptions
  readonly client: () => ImportClient
  /** paths of what was tried already, and told */
  readonly notPutBack: ReadonlySet<string>
  readonly checkAgain: () => Promise<CheckResult>
}

/** What a check finds in the end. Behind a map that is whole again more may be damaged, so it goes round. */
export async function repairChunksOf(repairing: RepairingChunks, found: CheckResult): Promise<CheckResult> {
  const { share, options, notPutBack, checkAgain } = repairing
  const { vm: vmId } = readVmDescriptor(share)
  const cached = new CachedBytes(directoriesOf(options).cacheDirectory, vmId)
  let checked = found
  while (checked.bad.length > 0) {
    const bad = checked.bad.filter((object) => !notPutBack.has(object.path))
    const paths = bad.map((object) => object.path)
    const { repaired, failed } = repairChunks(share, paths, cached)
    for (const object of repaired) notice(`put back from the cache: ${object}`)
    if (repaired.length === 0) {
      const isLeft = leaveChunks(repairing, cached, bad)
      if (!isLeft) {
        for (const { path: object, why } of failed) notice(`not put back: ${object}: ${why}`)
        break
      }
    }
    checked = await checkAgain()
  }
  return checked
}

/** Whether the newest generation was published once more, without some of what cannot be put back. */
function leaveChunks({ share, client }: RepairingChunks, cached: CachedBytes, bad: readonly BadObject[]): boolean {
  const newest = String(listGenerations(share).at(-1))
  const suffers = bad.filter((object) => object.suffers.some(({ generation }) => generation === newest))
  const chunks = new Set(
    suffers.map((object) => path.relative(share.root, object.path)).flatMap((name) => chunkIn(name) ?? [])
  )
  if (chunks.size === 0) return false
  const moved = moveOutOfDamaged({ share, chunks, cached, client: client() })
  if ('why' in moved) {
    notice(`generation ${newest} was not published once more without what is damaged: ${moved.why}`)
    return false
  }
  notice(
    `${String(chunks.size)} damaged chunks could not be put back as they were. What this client's cache has of them was written into new chunks: generation ${String(moved.number)} has the same content as generation ${newest}, and needs less of the damaged ones. Older generations go on needing them: isrfs prune removes those`
  )
  return true
}

function chunkIn(name: string): string | undefined {
  return /^chunks\/[0-9a-f]{2}\/([0-9a-f]{64})$/.exec(name)?.[1]
}
