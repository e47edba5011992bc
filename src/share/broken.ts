/** Telling one object that the server cannot read (a broken sector) from a share that is in trouble. */
import { errnoOf, ShareError } from '../base/errors.js'
import type { Share } from './share.js'

/**
 * What is wrong with the object whose reading failed with `error`; undefined: nothing is known of it. It could be opened, its bytes cannot
 * be read, and the share answers for another file: a server that is gone (a soft NFS mount says EIO, too) does not.
 */
export function brokenIn(share: Share, error: unknown): string | undefined {
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
