/** The one table of errno: names are used everywhere else, numbers only towards the kernel (Linux, all our machines). */
import { PosixError } from '../base/errors.js'

const ERRNO = {
  EPERM: 1,
  ENOENT: 2,
  EINTR: 4,
  EIO: 5,
  ENXIO: 6,
  EBADF: 9,
  EACCES: 13,
  EBUSY: 16,
  EEXIST: 17,
  EXDEV: 18,
  ENODEV: 19,
  ENOTDIR: 20,
  EISDIR: 21,
  EINVAL: 22,
  ENFILE: 23,
  EFBIG: 27,
  ENOSPC: 28,
  EROFS: 30,
  EMLINK: 31,
  ENAMETOOLONG: 36,
  ENOSYS: 38,
  ENOTEMPTY: 39,
  ELOOP: 40,
  ENODATA: 61,
  EOVERFLOW: 75,
  EILSEQ: 84,
  EOPNOTSUPP: 95,
  ESTALE: 116,
  EDQUOT: 122
} as const

export type ErrnoName = keyof typeof ERRNO

export function errnoNumber(name: ErrnoName): number {
  return ERRNO[name]
}

function isErrnoName(name: string): name is ErrnoName {
  return Object.hasOwn(ERRNO, name)
}

/**
 * The number to answer with. Only a PosixError is meant for programs: a share's ENOENT or a local disk's EACCES says
 * nothing about the file a program asked for, so everything else is EIO and `isExpected` is false.
 */
export function answerOf(error: unknown): { readonly errno: number; readonly isExpected: boolean } {
  if (error instanceof PosixError && isErrnoName(error.errno)) {
    return { errno: ERRNO[error.errno], isExpected: error.errno !== 'EIO' }
  }
  return { errno: ERRNO.EIO, isExpected: false }
}
