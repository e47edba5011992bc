/** Daemons that do not answer, or are not there: what is known of them, and what can be done. */
import fs from 'node:fs'
import type net from 'node:net'
import path from 'node:path'
import { FailedError } from '../base/errors.js'
import { askStatus, connectTo, SilentError } from '../daemon/control-client.js'
import { MOUNT_TYPE, mountAt, readMountTable } from '../daemon/mount-table.js'
import { findSockets, socketName } from '../daemon/socket-path.js'
import { lifeOf } from './mountpoint.js'
import { notice } from './output.js'

/** It is there and says nothing: which process it is. */
export function silentDaemon(mountpoint: string): { readonly error: FailedError; readonly isStopped: boolean } {
  const found = findDaemon(mountpoint)
  const who = found === undefined ? '' : ` (process ${String(found.pid)}${found.isStopped ? ', stopped' : ''})`
  const isStopped = found?.isStopped === true
  const error = new FailedError(`the daemon of ${mountpoint}${who} does not answer`, {
    hint: isStopped
      ? `let it go on: kill -CONT ${String(found.pid)}; what was accepted is safe`
      : `isrfs logs ${mountpoint} tells what it did last; what was accepted is safe, also when it has to be killed`
  })
  return { error, isStopped }
}

/** with the start of the command, what is said of a daemon that does not answer is said within two seconds */
const ANSWER_MS_MAX = 1000
/** a daemon that is busy, and not stopped, gets so much time */
const PATIENCE_MS = 10_000

/**
 * What `ask` resolves with. Says soon that there is no answer; a daemon that is only busy gets more time, one that is stopped does not.
 * Rejects with FailedError that names its process.
 */
export async function askPatiently<Answer>(
  mountpoint: string,
  ask: (limitMs: number) => Promise<Answer>
): Promise<Answer> {
  try {
    return await ask(ANSWER_MS_MAX)
  } catch (error) {
    if (!(error instanceof SilentError)) throw error
  }
  const error = sayBusy(mountpoint)
  return ask(PATIENCE_MS).catch((failure: unknown) => {
    throw failure instanceof SilentError ? error : failure
  })
}

/** Throws when the daemon is stopped; else tells that it is asked on. */
function sayBusy(mountpoint: string): FailedError {
  const { isStopped, error } = silentDaemon(mountpoint)
  if (isStopped) throw error
  notice(`${error.message}; still asking`)
  return error
}

/**
 * A connection to the daemon that serves the mountpoint, for long work; undefined: there is none. Throws when the daemon is stopped,
 * which would keep the command waiting without a word.
 */
export async function connectToLiving(mountpoint: string): Promise<net.Socket | undefined> {
  for (const socketPath of findSockets(mountpoint)) {
    try {
      await askStatus(socketPath, ANSWER_MS_MAX)
    } catch (error) {
      if (error instanceof SilentError) sayBusy(mountpoint)
    }
  }
  return connectTo(mountpoint)
}

/** Sockets of this user's mounts, with the mountpoint where there is one: a mount that starts, or has just ended, has none. */
export function socketsOfAll(): { readonly mountpoint: string; readonly socketPath: string }[] {
  const mountpoints = new Map(readMountTable().map(({ mountpoint }) => [socketName(mountpoint), mountpoint]))
  return findSockets(undefined).map((socketPath) => ({
    mountpoint: mountpoints.get(path.basename(socketPath)) ?? socketPath,
    socketPath
  }))
}

/** Nobody listens for this mountpoint: why. */
export async function whyNoDaemon(mountpoint: string): Promise<FailedError> {
  const mounted = mountAt(mountpoint)
  if (mounted?.fileSystemType !== MOUNT_TYPE) {
    return new FailedError(`${mountpoint} is not an isrfs mount`, { hint: 'isrfs status lists the mounts' })
  }
  const life = await lifeOf(mountpoint)
  if (life === 'hangs') return silentDaemon(mountpoint).error
  if (life === 'dead') {
    return new FailedError(`the daemon of ${mountpoint} is dead`, {
      hint: `what was changed is safe on this client: mount ${mounted.source} again (that clears the dead mount), or isrfs recover ${mounted.source}`
    })
  }
  return new FailedError(`${mountpoint} is an isrfs mount, but its daemon cannot be reached`, {
    hint: 'does it belong to another user?'
  })
}

/** By the title that daemon/process.ts gives itself. */
function findDaemon(mountpoint: string): { readonly pid: number; readonly isStopped: boolean } | undefined {
  for (const name of fs.readdirSync('/proc').filter((entry) => /^\d+$/.test(entry))) {
    try {
      const title = fs.readFileSync(`/proc/${name}/cmdline`, 'utf8').replace(/\0.*$/s, '')
      if (!title.startsWith('isrfs-daemon ') || !title.endsWith(` ${mountpoint}`)) continue
      const state = /\) (\S)/.exec(fs.readFileSync(`/proc/${name}/stat`, 'utf8'))?.[1]
      return { pid: Number(name), isStopped: state === 'T' }
    } catch {
      continue // it has ended meanwhile
    }
  }
  return undefined
}
