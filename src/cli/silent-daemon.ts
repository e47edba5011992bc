/** Daemons that do not answer, or are not there: what is known of them, and what can be done. */
import fs from 'node:fs'
import { FailedError } from '../base/errors.js'
import { MOUNT_TYPE, mountAt } from '../daemon/mount-table.js'
import { lifeOf } from './mountpoint.js'

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
