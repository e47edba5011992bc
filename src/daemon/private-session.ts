/**
 * The private session directories of mounts that never publish (--discard, --read-only). Each has a lock file; a
 * directory whose lock is free belongs to nobody.
 */
import { randomBytes } from 'node:crypto'
import fs from 'node:fs'
import path from 'node:path'
import { errnoOf } from '../base/errors.js'
import { DirectoryLock } from '../base/file-lock.js'
import { isRemoved, removeDirectoryLater } from '../base/remove-later.js'
import { LOCK_FILE } from '../session/identity.js'

export interface PrivateDirectory {
  readonly path: string
  remove(): void
}

/** A directory of this mount alone, gone with it. What dead mounts have left is removed first. */
export function createPrivateDirectory(clientDirectory: string): PrivateDirectory {
  const parent = path.join(clientDirectory, 'private')
  fs.mkdirSync(parent, { recursive: true, mode: 0o700 })
  removeLeftOvers(parent)
  const directory = path.join(parent, randomBytes(8).toString('hex'))
  // under a name that nobody sweeps until it is locked
  const unlocked = `${directory}.new`
  fs.mkdirSync(unlocked, { mode: 0o700 })
  const lock = DirectoryLock.tryAcquire(path.join(unlocked, LOCK_FILE))
  fs.renameSync(unlocked, directory)
  return {
    path: directory,
    remove: () => {
      removeDirectoryLater(directory)
      lock?.release()
    }
  }
}

function removeLeftOvers(parent: string): void {
  for (const name of fs.readdirSync(parent)) {
    if (!isRemoved(name)) removeIfDead(path.join(parent, name))
  }
}

function removeIfDead(directory: string): void {
  try {
    if (directory.endsWith('.new') && Date.now() - fs.statSync(directory).mtimeMs < 60_000) return
    const lock = DirectoryLock.tryAcquire(path.join(directory, LOCK_FILE))
    if (lock === undefined) return
    removeDirectoryLater(directory)
    lock.release()
  } catch (error) {
    if (errnoOf(error) !== 'ENOENT') throw error // its mount has ended meanwhile
  }
}
