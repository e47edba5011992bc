/** A daemon that is there and does not answer: which process it is, and what can be done. */
import fs from 'node:fs'
import { FailedError } from '../base/errors.js'

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

/** By the title that daemon/main.ts gives itself. */
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
