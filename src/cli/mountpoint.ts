/** What can be wrong with a mountpoint, each with its own message. Only the command line touches mountpoints. */
import { execFile } from 'node:child_process'
import fs from 'node:fs'
import path from 'node:path'
import { BusyError, errnoOf, FailedError, messageOf, UsageError } from '../base/errors.js'
import { clearDeadMount } from '../daemon/kernel-unmount.js'
import { MOUNT_TYPE, mountAt, readMountTable } from '../daemon/mount-table.js'

const LIFE_MS_MAX = 1500

/** Checks a directory to mount on and returns its real path. Clears a dead mount of isrfs there. */
export async function checkMountpoint(given: string, notice: (text: string) => void): Promise<string> {
  const mountpoint = locateMountpoint(given)
  const mounted = mountAt(mountpoint)
  if (mounted?.fileSystemType === MOUNT_TYPE && (await lifeOf(mountpoint)) === 'dead') {
    notice(`the daemon of the mount on ${mountpoint} is dead; clearing the mount`)
    await clearDeadMount(mountpoint)
    return checkMountpoint(given, notice)
  }
  if (mounted !== undefined) {
    throw new BusyError(`${mountpoint} is a mount already (${mounted.source}, ${mounted.fileSystemType})`, {
      hint:
        mounted.fileSystemType === MOUNT_TYPE
          ? `isrfs unmount ${mountpoint}, or take another directory`
          : 'take another directory'
    })
  }
  checkDirectory(mountpoint)
  return mountpoint
}

/**
 * The path as the kernel's mount table writes it. Every symbolic link is resolved, but a mount itself is not touched: it
 * may be dead, or served by a daemon that hangs.
 */
export function locateMountpoint(given: string): string {
  const lexical = path.resolve(given)
  const table = readMountTable()
  if (mountAt(lexical, table)?.fileSystemType === MOUNT_TYPE) return lexical
  const beside = path.join(realPath(path.dirname(lexical)), path.basename(lexical))
  if (mountAt(beside, table)?.fileSystemType === MOUNT_TYPE) return beside
  return realPath(lexical)
}

function realPath(directory: string): string {
  try {
    return fs.realpathSync(directory)
  } catch {
    return directory // said more clearly where the directory is looked at
  }
}

/**
 * Whether a daemon stands behind a mount: asks something that the kernel does not answer from its own cache, in a child that can
 * be killed when nobody answers.
 */
export function lifeOf(mountpoint: string): Promise<'alive' | 'dead' | 'hangs'> {
  const options = {
    env: { ...process.env, LC_ALL: 'C' },
    timeout: LIFE_MS_MAX,
    killSignal: 'SIGKILL' as const,
    cwd: '/'
  }
  return new Promise((resolve) => {
    execFile('stat', ['-f', '--', mountpoint], options, (error, _stdout, stderr) => {
      if (error?.killed === true) resolve('hangs')
      else resolve(/not connected/i.test(stderr) ? 'dead' : 'alive')
    })
  })
}

function checkDirectory(mountpoint: string): void {
  let names: string[]
  try {
    if (!fs.statSync(mountpoint).isDirectory()) throw new FailedError(`the mountpoint ${mountpoint} is not a directory`)
    names = fs.readdirSync(mountpoint)
  } catch (error) {
    if (error instanceof FailedError) throw error
    if (errnoOf(error) === 'ENOENT') {
      throw new FailedError(`the mountpoint ${mountpoint} does not exist`, {
        hint: `mkdir -p ${mountpoint}`,
        cause: error
      })
    }
    if (errnoOf(error) === 'ENOTCONN') {
      throw new FailedError(`${mountpoint} is a dead FUSE mount of another program`, {
        hint: `fusermount3 -uz ${mountpoint}`,
        cause: error
      })
    }
    throw new FailedError(`cannot look at the mountpoint ${mountpoint}: ${messageOf(error)}`, { cause: error })
  }
  if (names.length > 0) {
    throw new FailedError(
      `the mountpoint ${mountpoint} is not empty: a mount would hide ${String(names[0])}${names.length > 1 ? ' and more' : ''}`,
      {
        hint: 'take an empty directory'
      }
    )
  }
  if (process.getuid?.() !== 0) {
    try {
      fs.accessSync(mountpoint, fs.constants.W_OK)
    } catch (error) {
      throw new FailedError(`you may not write to ${mountpoint}, and only then you may mount on it`, { cause: error })
    }
  }
}

/** The daemon would wait for itself if what it needs lay under its own mount. */
export function checkNotInside(
  mountpoint: string,
  directories: readonly (readonly [what: string, directory: string])[]
): void {
  for (const [what, directory] of directories) {
    const real = realPath(directory)
    if (real === mountpoint || real.startsWith(`${mountpoint}/`)) {
      throw new UsageError(`${what} ${directory} lies in the mountpoint ${mountpoint}`, {
        hint: 'the mount would hide it'
      })
    }
  }
}
