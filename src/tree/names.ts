/**
 * Which names may enter the tree. Names are UTF-8: a transport that decodes other bytes delivers U+FFFD for them, so
 * two different names could meet in one; they are refused instead.
 */
import { PosixError } from '../base/errors.js'
import { NAME_BYTES_MAX, SYMLINK_BYTES_MAX } from '../base/units.js'

const REPLACEMENT_CHARACTER = '\ufffd'

export function checkName(name: string): void {
  // First: a byte that is not UTF-8 has become three, so the length says nothing.
  if (name.includes(REPLACEMENT_CHARACTER)) throw new PosixError('EILSEQ', 'the name is not valid UTF-8')
  // A UTF-16 unit is at most three bytes, so most names need no count.
  if (name.length * 3 > NAME_BYTES_MAX && Buffer.byteLength(name) > NAME_BYTES_MAX) throw new PosixError('ENAMETOOLONG')
  if (name === '' || name.includes('/') || name.includes('\0')) throw new PosixError('EINVAL')
}

/** For names that come into being: `.` and `..` exist always. */
export function checkNewName(name: string): void {
  if (name === '.' || name === '..') throw new PosixError('EEXIST')
  checkName(name)
}

export function checkTarget(target: string): void {
  if (target === '') throw new PosixError('ENOENT')
  if (Buffer.byteLength(target) > SYMLINK_BYTES_MAX) throw new PosixError('ENAMETOOLONG')
  if (target.includes(REPLACEMENT_CHARACTER)) throw new PosixError('EILSEQ', 'the target is not valid UTF-8')
  if (target.includes('\0')) throw new PosixError('EINVAL')
}
