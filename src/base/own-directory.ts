/**
 * Directories and files that nobody but this user may change. What is checked once and then believed (blocks of the cache,
 * after their digest was compared) must not lie where another user can change it afterwards.
 */
import fs from 'node:fs'
import { errnoOf, FailedError } from './errors.js'

const WRITABLE_BY_OTHERS = 0o022

/** `option` named the directory. */
export interface OwnDirectory {
  readonly option: string
  /** a link of this user's, or of root, to such a directory will do */
  readonly mayBeLink?: boolean
}

/** Creates a directory (0700) in one that is there, unless it exists. Throws FailedError when it is not this user's alone. */
export function makeOwnDirectory(directory: string, own: OwnDirectory): void {
  try {
    fs.mkdirSync(directory, { mode: 0o700 })
  } catch (error) {
    if (errnoOf(error) !== 'EEXIST') throw error
  }
  requireOwnDirectory(directory, own)
}

export function requireOwnDirectory(directory: string, { option, mayBeLink = false }: OwnDirectory): void {
  const user = process.geteuid?.() ?? 0
  const another = `or name another directory with ${option}`
  const itself = fs.lstatSync(directory)
  if (itself.isSymbolicLink() && !(mayBeLink && (itself.uid === user || itself.uid === 0))) {
    throw new FailedError(`${directory} is a symbolic link, which somebody else may turn elsewhere`, {
      hint: `remove it, ${another}`
    })
  }
  const found = fs.statSync(directory)
  if (!found.isDirectory()) throw new FailedError(`${directory} is not a directory`, { hint: `remove it, ${another}` })
  if (found.uid !== user) {
    throw new FailedError(
      `${directory} belongs to another user (${String(found.uid)}), who could change what was verified in it`,
      { hint: `remove it, or as root: chown -R ${String(user)} ${directory}; ${another}` }
    )
  }
  if ((found.mode & WRITABLE_BY_OTHERS) !== 0) {
    throw new FailedError(`other users may write to ${directory}, and could change what was verified in it`, {
      hint: `chmod go-w ${directory}, ${another}`
    })
  }
}

/** Whether an open file is a regular one that only this user may change. */
export function isOwnFile(descriptor: number): boolean {
  const { uid, mode } = fs.fstatSync(descriptor)
  const isRegular = (mode & fs.constants.S_IFMT) === fs.constants.S_IFREG
  return isRegular && uid === (process.geteuid?.() ?? uid) && (mode & WRITABLE_BY_OTHERS) === 0
}
