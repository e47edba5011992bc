/** What the machine must have for a mount. Paths are parameters so that each complaint can be tested. */
import fs from 'node:fs'
import path from 'node:path'
import { errnoOf, FailedError, messageOf } from '../base/errors.js'
import { requireOwnDirectory } from '../base/own-directory.js'

export interface Machine {
  readonly uid: number
  readonly searchPath: string
  readonly fuseDevice: string
  readonly fuseConfiguration: string
  readonly maxRequestTimeout: string
}

export function thisMachine(): Machine {
  return {
    uid: process.getuid?.() ?? 0,
    searchPath: process.env['PATH'] ?? '',
    fuseDevice: '/dev/fuse',
    fuseConfiguration: '/etc/fuse.conf',
    maxRequestTimeout: '/proc/sys/fs/fuse/max_request_timeout'
  }
}

export function checkMachine(machine: Machine, wants: { readonly allowOther: boolean }): void {
  checkFuseDevice(machine.fuseDevice)
  checkFusermount(machine.searchPath)
  checkRequestTimeout(machine.maxRequestTimeout)
  if (wants.allowOther && machine.uid !== 0) checkAllowOther(machine.fuseConfiguration)
}

export interface MachineCheck {
  readonly file: (machine: Machine) => string
  /** what it costs */
  readonly why: string
  readonly severity: 'error' | 'note'
  readonly check: (machine: Machine) => void
}

/** Each for itself, for isrfs doctor. */
export const MACHINE_CHECKS: readonly MachineCheck[] = [
  {
    file: ({ fuseDevice }) => fuseDevice,
    why: 'no file system can be mounted without it',
    severity: 'error',
    check: ({ fuseDevice }) => checkFuseDevice(fuseDevice)
  },
  {
    file: () => 'fusermount3',
    why: 'it mounts and unmounts for users without root',
    severity: 'error',
    check: ({ searchPath }) => checkFusermount(searchPath)
  },
  {
    file: ({ maxRequestTimeout }) => maxRequestTimeout,
    why: 'the first slow fetch would end the mount, with the guest on it',
    severity: 'error',
    check: ({ maxRequestTimeout }) => checkRequestTimeout(maxRequestTimeout)
  },
  {
    file: ({ fuseConfiguration }) => fuseConfiguration,
    why: 'VMware runs its guests as root, which sees your mount only with --allow-other',
    severity: 'note',
    check: ({ uid, fuseConfiguration }) => {
      if (uid !== 0) checkAllowOther(fuseConfiguration)
    }
  }
]

function checkFuseDevice(device: string): void {
  try {
    fs.closeSync(fs.openSync(device, 'r+'))
  } catch (error) {
    if (errnoOf(error) === 'EACCES' || errnoOf(error) === 'EPERM') {
      throw new FailedError(`you may not use ${device}`, {
        hint: `as root: chmod 666 ${device}, or in a container: --device ${device}`,
        cause: error
      })
    }
    throw new FailedError(`${device} is missing, so nothing can be mounted`, {
      hint: `as root: modprobe fuse; in a container: --device ${device} --cap-add SYS_ADMIN`,
      cause: error
    })
  }
}

function checkFusermount(searchPath: string): void {
  const found = searchPath.split(':').some((directory) => {
    try {
      fs.accessSync(path.join(directory === '' ? '.' : directory, 'fusermount3'), fs.constants.X_OK)
      return true
    } catch {
      return false
    }
  })
  if (!found) throw new FailedError('fusermount3 is not in PATH', { hint: 'apt-get install fuse3' })
}

/** A kernel that gives up on slow requests would abort the whole mount at the first slow fetch. */
function checkRequestTimeout(file: string): void {
  const seconds = Number(readIfThere(file) ?? '0')
  if (seconds > 0) {
    throw new FailedError(
      `the kernel ends FUSE mounts that take longer than ${String(seconds)} s to answer (${file})`,
      {
        hint: `a slow fetch would end the mount. As root: echo 0 > ${file}`
      }
    )
  }
}

function checkAllowOther(configuration: string): void {
  if (/^\s*user_allow_other\s*$/m.test(readIfThere(configuration) ?? '')) return
  throw new FailedError(`--allow-other is not allowed here: ${configuration} has no line user_allow_other`, {
    hint: `as root: echo user_allow_other >> ${configuration}`
  })
}

function readIfThere(file: string): string | undefined {
  try {
    return fs.readFileSync(file, 'utf8')
  } catch {
    return undefined
  }
}

/** Creates a directory of isrfs, 0700, and checks that it can be written. */
export function prepareDirectory(directory: string, option: string): void {
  try {
    makeDirectories(directory)
    const probe = fs.mkdtempSync(path.join(directory, '.probe-'))
    fs.rmdirSync(probe)
  } catch (error) {
    const why = errnoOf(error) === 'ENOSPC' ? 'the disk is full' : messageOf(error)
    throw new FailedError(`cannot write to ${directory}: ${why}`, {
      hint: `name another directory with ${option}, on a local disk`,
      cause: error
    })
  }
}

/** The same of the cache's directory, in which nobody else may write: blocks count in it after they were verified once. */
export function prepareCacheDirectory(directory: string): void {
  prepareDirectory(directory, '--cache-dir')
  requireOwnDirectory(directory, { option: '--cache-dir', mayBeLink: true })
}

/** Like mkdir -p. Node's own never ends where a file system refuses every name (/proc). */
function makeDirectories(directory: string): void {
  if (fs.existsSync(directory)) return
  if (path.dirname(directory) !== directory) makeDirectories(path.dirname(directory))
  try {
    fs.mkdirSync(directory, { mode: 0o700 })
  } catch (error) {
    if (errnoOf(error) !== 'EEXIST') throw error
  }
}
