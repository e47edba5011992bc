/** --transport: which way to the kernel a mount takes, and what has to run before its daemon for that. */
import fs from 'node:fs'
import path from 'node:path'
import { UsageError } from '../base/errors.js'
import { packageFile } from '../base/program-files.js'
import type { MountRequest } from '../daemon/request.js'
import type { TransportName } from '../fuse/port.js'
import { mountOptions } from '../fuse/direct/mounting.js'

const LAUNCHER = path.join('mount-scripts', 'fuse-launch')
/** those whose number of recvmsg the launcher knows */
const LAUNCHER_MACHINES: readonly string[] = ['x64', 'arm64']

export interface Starter {
  readonly uid: number
  readonly architecture: string
  readonly foreground: boolean
  readonly searchPath: string
}

export function chooseTransport(given: string, starter: Starter): TransportName {
  switch (given) {
    case 'auto':
      return directObstacle(starter) === undefined ? 'direct' : 'binding'
    case 'binding':
      return 'binding'
    case 'direct': {
      const obstacle = directObstacle(starter)
      if (obstacle === undefined) return 'direct'
      throw new UsageError(`--transport direct ${obstacle}`, { hint: 'use --transport binding' })
    }
    default:
      throw new UsageError(`--transport ${given} is unknown`, { hint: 'use auto, direct or binding' })
  }
}

/** What keeps this user from the direct transport. Root needs nothing but the kernel. */
function directObstacle({ uid, architecture, foreground, searchPath }: Starter): string | undefined {
  if (uid === 0) return undefined
  if (foreground)
    return 'with --foreground needs root: an ordinary user’s connection is opened before the daemon starts'
  if (!LAUNCHER_MACHINES.includes(architecture)) return `as an ordinary user is not there for ${architecture}`
  const isPerl = (directory: string): boolean => fs.existsSync(path.join(directory, 'perl'))
  return searchPath.split(':').some(isPerl) ? undefined : 'as an ordinary user needs perl'
}

/** The words that start the daemon: behind the launcher when an ordinary user mounts directly. */
export function daemonCommand(request: MountRequest, uid: number, words: readonly string[]): readonly string[] {
  if (request.transport !== 'direct' || uid === 0) return words
  const options = [...mountOptions(request), 'subtype=isrfs', `fsname=${request.vmPath.replace(/[\0,\\\r\n]/g, '_')}`]
  return ['perl', packageFile(LAUNCHER), request.mountpoint, options.join(','), '--', ...words]
}
