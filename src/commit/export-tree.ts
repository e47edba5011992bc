/**
 * The plain tree of an export: made empty and private first, and given its attributes last, when nothing writes any
 * more. Nothing is followed and nothing is replaced: every name is created, exclusively, below a directory that this
 * export has made.
 */
import { spawnSync } from 'node:child_process'
import fs from 'node:fs'
import path from 'node:path'
import { FailedError, messageOf } from '../base/errors.js'
import type { ManifestEntry } from '../format/manifest.js'
import { setTimes } from './export-times.js'

const PRIVATE_DIRECTORY_MODE = 0o700
const PRIVATE_FILE_MODE = 0o600

export interface ExportedEntry {
  readonly entry: ManifestEntry
  readonly path: string
  /** in the VM, for messages */
  readonly name: string
}

/**
 * Makes everything, files at their full length without a byte of data, hard links last. Returns what was made, each file
 * once, parents first.
 */
export function createTree(
  root: string,
  entries: readonly ManifestEntry[],
  onWarning: (message: string) => void
): ExportedEntry[] {
  const names = new Map<number, string>()
  const made: ExportedEntry[] = []
  for (const entry of entries) {
    const parent = names.get(entry.parent) ?? ''
    const name = parent === '' ? entry.name : `${parent}/${entry.name}`
    const target = path.join(root, name)
    names.set(entry.inode, name)
    try {
      if (createEntry(target, entry, onWarning)) made.push({ entry, path: target, name })
    } catch (error) {
      throw new FailedError(`cannot create ${target}: ${messageOf(error)}`, { cause: error })
    }
  }
  for (const { entry, path: existing } of made) {
    for (const { parent, name } of entry.otherNames ?? [])
      makeLink(existing, path.join(root, names.get(parent) ?? '', name))
  }
  return made
}

/** A copy in its place would be another VM: what is written through one name has to be seen through the other. */
function makeLink(existing: string, target: string): void {
  try {
    fs.linkSync(existing, target)
  } catch (error) {
    throw new FailedError(`cannot make ${target} another name of ${existing}: ${messageOf(error)}`, {
      hint: 'export to a file system that has hard links',
      cause: error
    })
  }
}

/** Returns false for what cannot be made here, after a warning. */
function createEntry(target: string, entry: ManifestEntry, onWarning: (message: string) => void): boolean {
  switch (entry.type) {
    case 'directory':
      fs.mkdirSync(target, PRIVATE_DIRECTORY_MODE)
      return true
    case 'file':
      createFile(target, entry.size)
      return true
    case 'symlink':
      fs.symlinkSync(entry.target, target)
      return true
    case 'fifo':
      return makeNode([target, 'p'], onWarning)
    case 'character-device':
    case 'block-device': {
      const { major, minor } = deviceNumbers(BigInt(entry.rdev))
      return makeNode([target, entry.type === 'block-device' ? 'b' : 'c', String(major), String(minor)], onWarning)
    }
    case 'socket':
      onWarning(`${target} is a socket: skipped, since only its maker can answer on it`)
      return false
  }
}

function createFile(target: string, sizeBytes: number): void {
  const { O_WRONLY, O_CREAT, O_EXCL, O_NOFOLLOW } = fs.constants
  const descriptor = fs.openSync(target, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, PRIVATE_FILE_MODE)
  try {
    if (sizeBytes > 0) fs.ftruncateSync(descriptor, sizeBytes)
  } finally {
    fs.closeSync(descriptor)
  }
}

/** Node has no mknod; devices need root. */
function makeNode(argumentsOfMknod: readonly string[], onWarning: (message: string) => void): boolean {
  const { status, stderr, error } = spawnSync('mknod', ['-m', '600', '--', ...argumentsOfMknod], { encoding: 'utf8' })
  if (status === 0) return true
  onWarning(`${argumentsOfMknod[0] ?? ''} was skipped: ${error === undefined ? stderr.trim() : messageOf(error)}`)
  return false
}

/** Linux's dev_t: 12 bits of minor around 20 bits of major (makedev(3)). */
function deviceNumbers(device: bigint): { readonly major: bigint; readonly minor: bigint } {
  return {
    major: ((device >> 8n) & 0xfffn) | ((device >> 32n) & 0xfffff000n),
    minor: (device & 0xffn) | ((device >> 12n) & 0xffffff00n)
  }
}

/** Makes bytes and names durable. */
export function syncTree(made: readonly ExportedEntry[]): void {
  for (const { entry, path } of made) {
    if (entry.type !== 'file' && entry.type !== 'directory') continue
    const descriptor = fs.openSync(path, fs.constants.O_RDONLY | fs.constants.O_NOFOLLOW)
    try {
      fs.fsyncSync(descriptor)
    } catch (error) {
      throw new FailedError(`cannot write ${path} to the disk: ${messageOf(error)}`, { cause: error })
    } finally {
      fs.closeSync(descriptor)
    }
  }
}

/** Owners (as root), modes and times; directories last and deepest first, since their modes may lock their content. */
export async function setAttributes(
  made: readonly ExportedEntry[],
  onWarning: (message: string) => void
): Promise<void> {
  const others = made.filter(({ entry }) => entry.type !== 'directory')
  const directories = made.filter(({ entry }) => entry.type === 'directory').reverse()
  for (const exported of others) setOwnerAndMode(exported)
  const times = made.map(({ entry, path }) => ({ path, atimeNs: BigInt(entry.atime), mtimeNs: BigInt(entry.mtime) }))
  for (const { path } of await setTimes(times)) onWarning(`the times of ${path} could not be set exactly`)
  for (const exported of directories) setOwnerAndMode(exported)
}

function setOwnerAndMode({ entry, path }: ExportedEntry): void {
  try {
    if (process.getuid?.() === 0) fs.lchownSync(path, entry.uid, entry.gid)
    if (entry.type !== 'symlink') fs.chmodSync(path, entry.mode) // after the owner: chown clears set-user-id
  } catch (error) {
    throw new FailedError(`cannot set the owner and mode of ${path}: ${messageOf(error)}`, { cause: error })
  }
}
