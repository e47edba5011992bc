/** Telling one object that is damaged, or that the server cannot read (a broken sector), from a share that is in trouble. */
import { errnoOf, IntegrityError, ShareError } from '../base/errors.js'
import { UnknownVersionError } from './json.js'
import type { Share } from './share.js'

/** What is wrong with the object whose reading failed with `error`; undefined: trouble of the share, which says nothing of the object. */
export function damageIn(share: Share, error: unknown): string | undefined {
  return error instanceof IntegrityError ? error.message : brokenIn(share, error)
}

/** The same of a generation or a descriptor, which a newer isrfs may have made: then it is not damaged. */
export function isDamaged(share: Share, error: unknown): boolean {
  return damageIn(share, error) !== undefined && !(error instanceof UnknownVersionError)
}

/**
 * undefined: nothing is known of it. Else it could be opened, its bytes cannot be read, and the share answers for another file: a
 * server that is gone (a soft NFS mount says EIO, too) does not.
 */
function brokenIn(share: Share, error: unknown): string | undefined {
  if (!(error instanceof ShareError) || error.errno !== 'EIO' || !isOfRead(error.cause)) return undefined
  try {
    share.requireVm()
  } catch (trouble) {
    if (errnoOf(trouble) === undefined) throw trouble
    return undefined
  }
  return 'the server cannot read its bytes (EIO: a broken disk?)'
}

function isOfRead(cause: unknown): boolean {
  return cause instanceof Error && 'syscall' in cause && cause.syscall === 'read'
}
