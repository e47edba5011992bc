/**
 * A guard against shares that go back in time: restored from a backup, or changed by somebody who may write there. The
 * history that this client has seen must still be part of what the share shows; anything else needs a person's word.
 */
import { IntegrityError } from '../base/errors.js'
import type { SharePool } from '../fetch/share-pool.js'
import type { GenerationReference } from '../share/lease.js'
import { readSeen, writeSeen } from '../session/seen.js'

/** The history that this client has seen is not part of what the share shows: it went back in time. */
export class WentBackError extends IntegrityError {}

export interface SeenCheck {
  readonly pool: SharePool
  readonly vmPath: string
  readonly vmId: string
  readonly clientDirectory: string
  readonly acceptRollback: boolean
}

/** Refuses a newest generation that is older than, or grew from another history than, what was seen; remembers it. */
export async function rememberNewest(check: SeenCheck, newest: GenerationReference): Promise<void> {
  const seen = readSeen(check.clientDirectory, check.vmId)
  if (seen?.digest === newest.digest) return
  if (seen !== undefined && !check.acceptRollback) {
    const input = { number: seen.generation }
    const digest =
      newest.number < seen.generation
        ? undefined
        : await check.pool.run('digestOf', input, { what: 'comparing with what was seen' })
    if (digest === undefined && newest.number > seen.generation) throw lost(check.vmPath, seen.generation)
    if (digest !== seen.digest) throw wentBack(check.vmPath, seen.generation, newest.number)
  }
  notePublished(check, newest)
}

/**
 * The same for somebody who only looks, which is what a person does when the share went back: that is told, and not
 * remembered, so that nobody who comes later resumes it.
 */
export async function noticeIfOlder(
  check: SeenCheck,
  newest: GenerationReference,
  notice: (text: string) => void
): Promise<void> {
  try {
    await rememberNewest(check, newest)
  } catch (error) {
    if (!(error instanceof IntegrityError)) throw error
    notice(
      `${error.message}. It is shown as it is; a mount that goes on with it needs --accept-rollback${error.hint === undefined ? '' : `: ${error.hint}`}`
    )
  }
}

/** The generation was read back from the share, or made by this client. A full disk only costs the guard. */
export function notePublished(
  { clientDirectory, vmId }: Pick<SeenCheck, 'clientDirectory' | 'vmId'>,
  { number, digest }: GenerationReference
): void {
  try {
    writeSeen(clientDirectory, vmId, { generation: number, digest })
  } catch {
    // the next mount notes it
  }
}

function lost(vmPath: string, seen: number): WentBackError {
  return new WentBackError(`${vmPath} has no generation ${String(seen)} any more, which this client has seen`, {
    hint: `the share has lost it: isrfs check ${vmPath} --repair puts it back, when this client has left a session that is based on it. ${whenItIsRight(vmPath)}`
  })
}

function wentBack(vmPath: string, seen: number, newest: number): WentBackError {
  return new WentBackError(
    newest < seen
      ? `generation ${String(newest)} is the newest of ${vmPath} now, but this client has seen generation ${String(seen)}`
      : `the history of ${vmPath} is not the one that this client has seen: its generation ${String(seen)} is another one`,
    {
      hint: whenItIsRight(vmPath)
    }
  )
}

/** A wrong share, or an old copy of it, must not get what was left behind: that would drop the only copy here. */
function whenItIsRight(vmPath: string): string {
  return `make sure that the right share is mounted, and look at the VM with --read-only. When it was restored from a backup: isrfs recover ${vmPath} --accept-rollback keeps changes that were left behind on this client as a branch, and isrfs mount --accept-rollback goes on with what the share shows`
}
