/**
 * Whether some process holds flock(2) on a file, without taking the lock even for an instant: that would make a mount
 * that starts just then believe that the VM is in use. /proc shows it for processes of this user (root: of all) in this PID
 * namespace. Links in there are read and never followed, so nothing here touches another file system. Synchronous, for
 * commands: some 10,000 links take a tenth of a second so, and many times that through a pool of threads.
 */
import fs from 'node:fs'
import path from 'node:path'

const SCAN_MS_MAX = 5000

/** Of these files, those that are locked. What cannot be seen, or is not reached in five seconds, counts as not locked. */
export function lockedOf(files: readonly string[]): Set<string> {
  const locked = new Set<string>()
  const inodes = new Map<string, string>()
  for (const file of files) {
    const stat = fs.statSync(file, { bigint: true, throwIfNoEntry: false })
    if (stat !== undefined) inodes.set(String(stat.ino), file)
  }
  // Another mount namespace has another path to the same file: the end of the path is compared, then the inode.
  const tails = new Set(files.map(tailOf))
  const deadline = Date.now() + SCAN_MS_MAX
  for (const entry of inodes.size === 0 ? [] : fs.readdirSync('/proc')) {
    if (!/^\d+$/.test(entry)) continue
    if (locked.size === inodes.size || Date.now() > deadline) break
    for (const fd of namesOf(`/proc/${entry}/fd`)) {
      if (!tails.has(tailOf(targetOf(`/proc/${entry}/fd/${fd}`)))) continue
      for (const inode of lockedInodes(`/proc/${entry}/fdinfo/${fd}`)) {
        const file = inodes.get(inode)
        if (file !== undefined) locked.add(file)
      }
    }
  }
  return locked
}

/** "/<directory>/<name>" */
function tailOf(file: string): string {
  return `/${path.basename(path.dirname(file))}/${path.basename(file)}`
}

/** Lines such as "lock:\t1: FLOCK  ADVISORY  WRITE 1234 fe:01:5678 0 EOF": the inode is 5678. */
function lockedInodes(fdinfo: string): string[] {
  const text = unlessGone(() => fs.readFileSync(fdinfo, 'utf8'), '')
  return [...text.matchAll(/^lock:.*\bFLOCK\b.*\s[0-9a-f]+:[0-9a-f]+:(\d+)\s/gm)].map(([, inode]) => inode ?? '')
}

function namesOf(directory: string): string[] {
  return unlessGone(() => fs.readdirSync(directory), [])
}

function targetOf(link: string): string {
  return unlessGone(() => fs.readlinkSync(link), '')
}

/** Processes end while they are looked at, and those of others may not be. */
function unlessGone<Value>(look: () => Value, otherwise: Value): Value {
  try {
    return look()
  } catch {
    return otherwise
  }
}
