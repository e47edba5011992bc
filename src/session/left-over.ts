/**
 * What was left behind in a client directory: sessions whose changes are in no generation, and that no process uses.
 * Nothing is locked, replayed or changed, and the share is not asked; so a session that was noted as published is left out, and
 * one that was published a moment before a crash, without a note, is named all the same.
 */
import fs from 'node:fs'
import path from 'node:path'
import { messageOf } from '../base/errors.js'
import { lockedOf } from '../base/lock-holders.js'
import { namesIn } from './durable-file.js'
import { IDENTITY_FILE, LOCK_FILE, readSessionFile } from './identity.js'

/** a session of more region files (64 GiB of changes or more) does not tell how big it is */
const SIZED_FILES_MAX = 4096

export interface LeftOverSession {
  readonly vmId: string
  readonly directory: string
  /** null: a session of an earlier version, which does not know */
  readonly vmPath: string | null
  readonly baseGeneration: number
  readonly createdIso: string
  /** disk space of the changes; null: too many files to look at */
  readonly changedBytes: number | null
}

/** One that cannot be read is no reason to say nothing of the others. */
export interface DamagedLeftOver {
  readonly vmId: string
  readonly directory: string
  readonly damage: string
}

export function listLeftOver(clientDirectory: string): (LeftOverSession | DamagedLeftOver)[] {
  const sessions = path.join(clientDirectory, 'sessions')
  const directories = namesIn(sessions)
    .sort()
    .map((name) => path.join(sessions, name))
    .filter((directory) => fs.existsSync(path.join(directory, IDENTITY_FILE)))
  const inUse = lockedOf(directories.map((directory) => path.join(directory, LOCK_FILE)))
  return directories
    .filter((directory) => !inUse.has(path.join(directory, LOCK_FILE)))
    .flatMap((directory) => describe(directory) ?? [])
}

/** undefined: it was removed or published meanwhile. */
function describe(directory: string): LeftOverSession | DamagedLeftOver | undefined {
  const vmId = path.basename(directory)
  try {
    const file = readSessionFile(directory)
    if (file === undefined || file.published !== null) return undefined
    const { vmPath = null, baseGeneration, createdIso } = file
    return { vmId, directory, vmPath, baseGeneration, createdIso, changedBytes: changedBytes(directory) }
  } catch (error) {
    return { vmId, directory, damage: messageOf(error) }
  }
}

/** Disk space of a session's changes; null: too many files to look at. */
export function changedBytes(directory: string): number | null {
  const regions = path.join(directory, 'regions')
  const names = namesIn(regions)
  if (names.length > SIZED_FILES_MAX) return null
  return names.reduce((total, name) => total + diskBytes(path.join(regions, name)), 0)
}

function diskBytes(file: string): number {
  return (fs.statSync(file, { throwIfNoEntry: false })?.blocks ?? 0) * 512
}
