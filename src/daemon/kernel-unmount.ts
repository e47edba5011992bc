/**
 * Taking the mount out of the kernel, in child processes: the daemon would wait for itself. Never lazily: the kernel's
 * EBUSY decides whether somebody still uses it.
 */
import { execFile } from 'node:child_process'
import { BusyError, FailedError } from '../base/errors.js'

const BUSY_RETRIES = 5
const STALE_RETRIES = 10
/** what sync says of a removed file */
const NAMELESS = /error syncing .*: (stale file handle|no such file or directory)/i
const BUSY_RETRY_MS = 100

/**
 * Writes everything that the kernel still has to the daemon. A failure must stop the unmount.
 *
 * One failure is none: with the writeback cache the kernel sends the new ctime of a file that was just removed, libfuse
 * finds no path for it, and the next syncfs reports ESTALE or ENOENT once (native-notes/kernel.md). No WRITE of isrfs
 * is ever answered with these. As a later error hides an earlier one, it is overlooked only while no WRITE of this mount
 * has failed.
 */
export async function flushKernel(mountpoint: string, anyWriteFailed: () => boolean): Promise<void> {
  let { code, stderr } = await run('sync', ['-f', mountpoint])
  for (let attempt = 0; code !== 0 && attempt < STALE_RETRIES; attempt++) {
    if (!NAMELESS.test(stderr) || anyWriteFailed()) break
    ;({ code, stderr } = await run('sync', ['-f', mountpoint]))
  }
  if (code === 0) return
  throw new FailedError(
    `the kernel could not write everything to ${mountpoint}: ${stderr || `sync ended with ${String(code)}`}`,
    {
      hint: 'nothing was unmounted; isrfs status and the log tell what is wrong (a full disk?), then try again'
    }
  )
}

/** Returns 'gone' when nothing is mounted there any more. Throws BusyError when it is in use. */
export async function unmountKernel(mountpoint: string): Promise<'unmounted' | 'gone'> {
  for (let attempt = 0; ; attempt++) {
    const { code, stderr } = await run('fusermount3', ['-u', mountpoint])
    if (code === 0) return 'unmounted'
    if (/not (found|mounted)|invalid argument/i.test(stderr)) return 'gone'
    if (!/busy/i.test(stderr)) throw new FailedError(`cannot unmount ${mountpoint}: ${stderr}`)
    if (attempt >= BUSY_RETRIES) throw new BusyError(`${mountpoint} is in use`)
    await new Promise((resolve) => setTimeout(resolve, BUSY_RETRY_MS)) // a process that ended a moment ago
  }
}

/** Clears a mount whose daemon is dead. Only for mounts of isrfs. */
export async function clearDeadMount(mountpoint: string): Promise<void> {
  const { code, stderr } = await run('fusermount3', ['-uz', mountpoint])
  if (code !== 0) throw new FailedError(`cannot clear the dead mount on ${mountpoint}: ${stderr}`)
}

function run(command: string, parameters: readonly string[]): Promise<{ code: number; stderr: string }> {
  return new Promise((resolve) => {
    const env = { ...process.env, LC_ALL: 'C' }
    execFile(command, parameters, { env, cwd: '/' }, (error, _stdout, stderr) => {
      if (error === null) resolve({ code: 0, stderr })
      else resolve({ code: typeof error.code === 'number' ? error.code : 1, stderr: stderr.trim() || error.message })
    })
  })
}
