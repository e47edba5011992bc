/**
 * Whether a process of this machine has a file of the mount mapped: an error for a page of it would be SIGBUS. Asked in a
 * child process, because reading the maps of a process that waits for a page can wait too; no answer counts as yes.
 */
import { execFile } from 'node:child_process'
import { mountAt } from './mount-table.js'

const ANSWER_MS_MAX = 3000

/**
 * `name` is the file's own name, as the last part of its path; '' is any. A mapping whose name is gone counts as well: the
 * file may have another one.
 */
export function isMapped(mountpoint: string, name: string): Promise<boolean> {
  const device = mountAt(mountpoint)?.device
  if (device === undefined) return Promise.resolve(true)
  const [major = '', minor = ''] = device.split(':').map((part) => Number(part).toString(16).padStart(2, '0'))
  const script = 'cat /proc/[0-9]*/maps 2>/dev/null | grep -F -e " $1 " | grep -F -q -e "$2" -e " (deleted)"'
  return new Promise((resolve) => {
    const options = { timeout: ANSWER_MS_MAX, killSignal: 'SIGKILL' as const, cwd: '/' }
    execFile('sh', ['-c', script, 'sh', `${major}:${minor}`, name], options, (error) => resolve(error?.code !== 1))
  })
}
