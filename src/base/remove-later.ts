/**
 * Removing big files without waiting for it: an unlink takes as long as the file system needs to free the file's extents.
 * On ext4 that discards at once, 2 ms for each extent were measured, and half a minute for a session of 64 MiB in scattered pages.
 *
 * What is to go gets another name at once, so that its own one is free, and is removed in the background, one thing
 * after the other. What a crash leaves under such a name is removed by the next mount (sweepRemoved).
 */
import { randomBytes } from 'node:crypto'
import fs from 'node:fs'
import path from 'node:path'
import { errnoOf } from './errors.js'

const PREFIX = 'removed-'
const NAME = /^removed-[0-9a-f]{16}$/
/** so many files may take space although they are gone; then whoever removes one waits for it */
const FILES_WAITING_MAX = 16
/** with less free space on the disk everybody waits: what is removed is needed */
const FREE_BYTES_MIN = 1024 * 1024 * 1024

let filesWaiting = 0
let last: Promise<void> = Promise.resolve()

/** Whether the name is one of something that is to be removed. */
export function isRemoved(name: string): boolean {
  return NAME.test(name)
}

/** Removes a file, if there is one. `into`: a directory of the same file system that gets its new name. */
export function removeFileLater(file: string, into = path.dirname(file)): void {
  if (filesWaiting >= FILES_WAITING_MAX || isScarce(into)) {
    fs.rmSync(file, { force: true })
    return
  }
  const removed = renamed(file, into)
  if (removed === undefined) return
  filesWaiting++
  inTurn(() => removeAll(removed).finally(() => filesWaiting--))
}

/** Removes a directory, if there is one. */
export function removeDirectoryLater(directory: string): void {
  if (isScarce(path.dirname(directory))) {
    fs.rmSync(directory, { recursive: true, force: true })
    return
  }
  const removed = renamed(directory, path.dirname(directory))
  if (removed !== undefined) inTurn(() => removeAll(removed))
}

/** Removes what a crash has left in a directory, or in those below it that have such names, level by level. */
export function sweepRemoved(directory: string, ...levels: readonly RegExp[]): void {
  inTurn(() => sweep(directory, levels))
}

async function sweep(directory: string, [level, ...below]: readonly RegExp[]): Promise<void> {
  for (const name of await namesLater(directory)) {
    try {
      if (level === undefined && isRemoved(name)) await removeAll(path.join(directory, name))
      if (level?.test(name) === true) await sweep(path.join(directory, name), below)
    } catch {
      // what cannot be removed keeps nothing else
    }
  }
}

/** Resolves when everything is removed that was to be until then. */
export function removals(): Promise<void> {
  return last
}

/** A failure costs space until somebody looks there again. */
function inTurn(remove: () => Promise<void>): void {
  last = last.then(remove).catch(() => undefined)
}

function renamed(target: string, into: string): string | undefined {
  const removed = path.join(into, `${PREFIX}${randomBytes(8).toString('hex')}`)
  try {
    fs.renameSync(target, removed)
    return removed
  } catch (error) {
    if (errnoOf(error) !== 'ENOENT') fs.rmSync(target, { recursive: true, force: true })
    return undefined
  }
}

/** One file at a time: other work waits for the same few threads of libuv. Somebody else may be removing it, too. */
async function removeAll(target: string): Promise<void> {
  try {
    await fs.promises.unlink(target)
  } catch (error) {
    const code = errnoOf(error)
    if (code === 'ENOENT') return
    if (code !== 'EISDIR' && code !== 'EPERM') throw error
    for (const name of await namesLater(target)) await removeAll(path.join(target, name))
    await fs.promises.rmdir(target).catch((failure: unknown) => {
      if (errnoOf(failure) !== 'ENOENT') throw failure
    })
  }
}

async function namesLater(directory: string): Promise<string[]> {
  try {
    return await fs.promises.readdir(directory)
  } catch (error) {
    const code = errnoOf(error)
    if (code === 'ENOENT' || code === 'ENOTDIR') return []
    throw error
  }
}

function isScarce(directory: string): boolean {
  try {
    const { bavail, bsize } = fs.statfsSync(directory)
    return bavail * bsize < FREE_BYTES_MIN
  } catch {
    return true
  }
}
