/** Where the log of a mount lies: its daemon tells while it lives; afterwards it is found by its name and its first line. */
import fs from 'node:fs'
import path from 'node:path'
import { FailedError } from '../base/errors.js'
import { olderLog } from '../daemon/log-names.js'
import { socketName } from '../daemon/socket-path.js'
import { locateMountpoint } from './mountpoint.js'

const HASH_LETTERS = 8

/** `<client-dir>/log/<name of the VM>-<hash of the mountpoint>.log` */
export function logFileOf(clientDirectory: string, vmPath: string, mountpoint: string): string {
  const name = path
    .basename(vmPath)
    .replace(/[^\w.-]/g, '_')
    .slice(0, 100)
  return path.join(logDirectory(clientDirectory), `${name}-${hashOf(mountpoint)}.log`)
}

/** The log of the mount, or of the VM's last mount on this client. Rejects with FailedError when there is none. */
export async function findLog(given: string, clientDirectory: string): Promise<string> {
  const asked = path.resolve(given)
  const { askAllStatus } = await import('../daemon/control-client.js') // mounts need only the name of a log from here
  const living = (await askAllStatus()).find(({ vm, mountpoint }) => mountpoint === asked || vm === asked)
  if (living !== undefined) return living.log
  const [newest] = findLogs(asked, clientDirectory)
  if (newest !== undefined) return newest
  const located = locateMountpoint(given)
  const [other] = located === asked ? [] : findLogs(located, clientDirectory)
  if (other !== undefined) return other
  throw new FailedError(`there is no log of ${asked} in ${logDirectory(clientDirectory)}`, {
    hint: 'name a mountpoint, or a VM that was mounted by this client (--client-dir, or another user?)'
  })
}

/** Newest first. */
function findLogs(asked: string, clientDirectory: string): string[] {
  const directory = logDirectory(clientDirectory)
  if (!fs.existsSync(directory)) return []
  return fs
    .readdirSync(directory)
    .filter((name) => name.endsWith('.log'))
    .map((name) => path.join(directory, name))
    .filter((file) => file.endsWith(`-${hashOf(asked)}.log`) || vmIn(file) === asked)
    .sort((first, second) => fs.statSync(second).mtimeMs - fs.statSync(first).mtimeMs)
}

/** The last lines of what is before byte `end` of the file, older files included. */
export function lastLines(file: string, count: number, end = Infinity): string[] {
  let lines: string[] = []
  for (let number = 0; lines.length < count; number++) {
    const text = readIfThere(olderLog(file, number), number === 0 ? end : Infinity)
    if (text === undefined) break
    lines = [...text.split('\n').filter((line) => line !== ''), ...lines]
  }
  return count === 0 ? [] : lines.slice(-count)
}

function vmIn(file: string): unknown {
  for (const line of lastLines(file, 20)) {
    try {
      return (JSON.parse(line) as { vm?: unknown }).vm // whatever it is, it is only compared
    } catch {
      continue // what Node itself wrote
    }
  }
  return undefined
}

function logDirectory(clientDirectory: string): string {
  return path.join(clientDirectory, 'log')
}

function hashOf(mountpoint: string): string {
  return socketName(mountpoint).slice(0, HASH_LETTERS)
}

function readIfThere(file: string, end: number): string | undefined {
  try {
    const bytes = fs.readFileSync(file)
    return bytes.toString('utf8', 0, Math.min(end, bytes.length))
  } catch {
    return undefined
  }
}
