/**
 * Session directories seen from outside: removing one without opening it, and the private ones of mounts that never
 * publish (--discard, --read-only). Each has a lock file; a directory whose lock is free belongs to nobody.
 */
import { randomBytes } from 'node:crypto'
import fs from 'node:fs'
import path from 'node:path'
import { DirectoryLock } from '../base/file-lock.js'

const LOCK_FILE = 'lock'
/** names the session: as long as it is there, a removal that was interrupted is repeated */
const IDENTITY_FILE = 'session.json'

/** Removes what a session consists of and keeps the lock file. The caller holds the lock. */
export function removeSessionFiles(directory: string): void {
  for (const name of fs.readdirSync(directory)) {
    if (name !== LOCK_FILE && name !== IDENTITY_FILE)
      fs.rmSync(path.join(directory, name), { recursive: true, force: true })
  }
  fs.rmSync(path.join(directory, IDENTITY_FILE), { force: true })
}

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
      fs.rmSync(directory, { recursive: true, force: true })
      lock?.release()
    }
  }
}

function removeLeftOvers(parent: string): void {
  for (const name of fs.readdirSync(parent)) {
    const directory = path.join(parent, name)
    if (name.endsWith('.new') && Date.now() - fs.statSync(directory).mtimeMs < 60_000) continue
    const lock = DirectoryLock.tryAcquire(path.join(directory, LOCK_FILE))
    if (lock === undefined) continue
    fs.rmSync(directory, { recursive: true, force: true })
    lock.release()
  }
}
