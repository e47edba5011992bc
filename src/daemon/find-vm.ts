/** Which VM is at a path, and what to say when there is none although this client has changes of it. */
import { FailedError } from '../base/errors.js'
import type { SharePool } from '../fetch/share-pool.js'
import { listLeftOver } from '../session/left-over.js'

export interface Wanted {
  readonly vmPath: string
  readonly clientDirectory: string
}

/**
 * The VM's id, which everything that the pool does expects at that path from then on. FailedError when there is no VM: with changes of it on this client that can only mean that its share is not
 * mounted, or that the VM was moved or removed.
 */
export async function findVm(pool: SharePool, wanted: Wanted): Promise<string> {
  const { vmPath } = wanted
  try {
    const { vm } = await pool.run('openVm', {}, { what: `opening ${vmPath}` })
    pool.vmId = vm
    return vm
  } catch (error) {
    const hint = error instanceof FailedError ? hintOf(wanted) : undefined
    if (hint === undefined || !(error instanceof FailedError)) throw error
    throw new FailedError(error.message, { hint, cause: error })
  }
}

/** undefined: there is nothing of it here. */
function hintOf({ vmPath, clientDirectory }: Wanted): string | undefined {
  const found = listLeftOver(clientDirectory).find((one) => !('damage' in one) && one.vmPath === vmPath)
  if (found === undefined) return undefined
  return `is the share mounted? changes of this VM that were not published are safe on this client, in ${found.directory}: mount the share (or give the VM's new path), then isrfs mount or isrfs recover goes on with them`
}
