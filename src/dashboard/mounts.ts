/** The mounts of this user, by names that fit into an address. No daemon that hangs holds anybody up. */
import { FailedError, messageOf } from '../base/errors.js'
import { askStatus, SilentError } from '../daemon/control-client.js'
import type { Status } from '../daemon/messages.js'
import { MOUNT_TYPE, readMountTable } from '../daemon/mount-table.js'
import { findSockets, socketName } from '../daemon/socket-path.js'

export const ANSWER_MS_MAX = 1500

const SILENT = 'it is stopped, or hangs'

export interface KnownMount {
  readonly id: string
  readonly mountpoint: string
  readonly socketPath: string
}

export interface SeenMount {
  readonly id: string
  readonly mountpoint: string
  /** null: its daemon does not answer, or not in words that are understood */
  readonly status: Status | null
  /** why there is no status; empty: there is one */
  readonly why: string
}

/** In the order of the mount table. */
export function knownMounts(): KnownMount[] {
  return readMountTable()
    .filter(({ fileSystemType }) => fileSystemType === MOUNT_TYPE)
    .flatMap(({ mountpoint }) => {
      const [socketPath] = findSockets(mountpoint)
      return socketPath === undefined ? [] : [{ id: idOf(mountpoint), mountpoint, socketPath }]
    })
}

export async function seeMounts(): Promise<SeenMount[]> {
  const seen = knownMounts().map(async ({ id, mountpoint, socketPath }) => {
    try {
      const status = await askStatus(socketPath, ANSWER_MS_MAX)
      return status === undefined ? undefined : { id, mountpoint, status, why: '' }
    } catch (error) {
      // one that is in trouble must not keep the others from being seen
      return { id, mountpoint, status: null, why: error instanceof SilentError ? SILENT : messageOf(error) }
    }
  })
  return (await Promise.all(seen)).filter((mount) => mount !== undefined)
}

/** Throws FailedError when it is not mounted (any more). */
export function findMount(id: string): KnownMount {
  const found = knownMounts().find((mount) => mount.id === id)
  if (found === undefined) throw new FailedError('this mount has ended')
  return found
}

function idOf(mountpoint: string): string {
  return socketName(mountpoint).replace(/\.sock$/, '')
}
