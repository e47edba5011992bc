/**
 * Where the control socket of a mountpoint lies: a short hashed name (socket paths end at 107 bytes) in a directory
 * of this user only. A mount may have been made with another environment (cron, sudo, a login without a session), so
 * looking for a socket looks in every directory where it could be.
 */
import { createHash } from 'node:crypto'
import fs from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { errnoOf, FailedError } from '../base/errors.js'

const SOCKET_PATH_BYTES_MAX = 107
const NAME_PATTERN = /^[0-9a-f]{16}\.sock$/

export interface Surroundings {
  readonly uid: number
  readonly runtimeDirectory: string | undefined
  readonly temporaryDirectory: string
}

export function surroundings(): Surroundings {
  return {
    uid: process.getuid?.() ?? 0,
    runtimeDirectory: process.env['XDG_RUNTIME_DIR'],
    temporaryDirectory: os.tmpdir()
  }
}

/** `sock` is the daemon's control socket, `qmp` that of a QEMU which isrfs has started there. */
export type SocketKind = 'sock' | 'qmp'

export function socketName(mountpoint: string, kind: SocketKind = 'sock'): string {
  return `${createHash('sha256').update(mountpoint).digest('hex').slice(0, 16)}.${kind}`
}

/** Directories in which a socket of this user may lie, the preferred one first. */
export function socketDirectories({ uid, runtimeDirectory, temporaryDirectory }: Surroundings): string[] {
  const directories = [
    ...(runtimeDirectory?.startsWith('/') === true ? [path.join(runtimeDirectory, 'isrfs')] : []),
    ...(uid === 0 ? ['/run/isrfs'] : [`/run/user/${String(uid)}/isrfs`]),
    path.join(temporaryDirectory, `isrfs-${String(uid)}`)
  ]
  return [...new Set(directories)].filter((directory) => fits(path.join(directory, socketName('/'))))
}

/** Creates the first directory that works and returns the socket's path in it. */
export function createSocketPath(
  mountpoint: string,
  place: Surroundings = surroundings(),
  kind: SocketKind = 'sock'
): string {
  const failures: string[] = []
  for (const directory of socketDirectories(place)) {
    try {
      fs.mkdirSync(directory, { mode: 0o700 })
    } catch (error) {
      if (errnoOf(error) !== 'EEXIST') {
        failures.push(`${directory} (${errnoOf(error) ?? 'error'})`)
        continue
      }
    }
    if (belongsToUser(directory, place.uid)) return path.join(directory, socketName(mountpoint, kind))
    failures.push(`${directory} (not a directory of this user alone)`)
  }
  throw new FailedError(`no directory for the control socket: ${failures.join(', ')}`, {
    hint: 'set XDG_RUNTIME_DIR to a directory that only you can enter'
  })
}

/** Paths of existing sockets for one mountpoint, or, without a mountpoint, of all mounts of this user. */
export function findSockets(
  mountpoint: string | undefined,
  place: Surroundings = surroundings(),
  kind: SocketKind = 'sock'
): string[] {
  const found: string[] = []
  for (const directory of socketDirectories(place)) {
    if (!belongsToUser(directory, place.uid)) continue
    for (const name of fs.readdirSync(directory).sort()) {
      const wanted = mountpoint === undefined ? NAME_PATTERN.test(name) : name === socketName(mountpoint, kind)
      if (wanted) found.push(path.join(directory, name))
    }
  }
  return found
}

/** A directory under /tmp may have been made by somebody else to listen in. */
function belongsToUser(directory: string, uid: number): boolean {
  try {
    const { mode, uid: owner } = fs.lstatSync(directory)
    return (mode & fs.constants.S_IFMT) === fs.constants.S_IFDIR && owner === uid && (mode & 0o077) === 0
  } catch {
    return false
  }
}

function fits(socketPath: string): boolean {
  return Buffer.byteLength(socketPath) <= SOCKET_PATH_BYTES_MAX
}
