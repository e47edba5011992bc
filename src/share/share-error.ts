/** A failed call on the share as an error for people: what was tried, on which path, and why it failed in words. */
import { errnoOf, IntegrityError, messageOf, ShareError } from '../base/errors.js'

export function shareError(error: unknown, file: string, action: string): Error {
  if (error instanceof ShareError || error instanceof IntegrityError) return error
  const errno = errnoOf(error) ?? 'EIO'
  return new ShareError(errno, file, `cannot ${action} ${file}: ${explain(errno) ?? messageOf(error)}`, {
    cause: error
  })
}

function explain(errno: string): string | undefined {
  switch (errno) {
    case 'ENOENT':
      return 'it does not exist'
    case 'EACCES':
    case 'EPERM':
      return 'permission denied'
    case 'ENOSPC':
      return 'the share is full'
    case 'EDQUOT':
      return 'the quota on the share is used up'
    case 'EROFS':
      return 'the share is read-only'
    case 'ESTALE':
      return 'the server has replaced it (stale file handle)'
    case 'ENOTDIR':
      return 'a part of its path is not a directory'
    case 'ELOOP':
      return 'it is a symbolic link'
    default:
      return undefined
  }
}
