/** The mounts of this user, by names that fit into an address. No daemon that hangs holds anybody up. */
import { FailedError } from '../base/errors.js'
import { askStatus, SilentError } from '../daemon/control-client.js'
import type { Status } from '../daemon/messages.js'
import { MOUNT_TYPE, readMountTable } from '../daemon/mount-table.js'
import { findSockets, socketName } from '../daemon/socket-path.js'

export const ANSWER_MS_MAX = 1500

export interface KnownMount {
  readonly id: string
  readonly mountpoint: string
  readonly socketPath: string
}

export interface SeenMount {
  readonly id: string
  readonly mountpoint: string
  /** null: its daemon does not answer */
  readonly status: Status | null
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
      return status === undefined ? undefined : { id, mountpoint, status }
    } catch (error) {
      if (!(error instanceof SilentError)) throw error
      return { id, mountpoint, status: null }
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
