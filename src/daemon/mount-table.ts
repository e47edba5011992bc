/** The kernel's list of mounts. Reading it never touches a mountpoint, which may be dead or served by this process. */
import fs from 'node:fs'

export interface MountEntry {
  readonly mountpoint: string
  readonly fileSystemType: string
  /** for isrfs: the VM */
  readonly source: string
  /** "major:minor" */
  readonly device: string
}

export const MOUNT_TYPE = 'fuse.isrfs'

/** The topmost mount on exactly this path, or undefined. */
export function mountAt(mountpoint: string, table: readonly MountEntry[] = readMountTable()): MountEntry | undefined {
  return table.findLast((entry) => entry.mountpoint === mountpoint)
}

export function readMountTable(): MountEntry[] {
  return parseMountTable(fs.readFileSync('/proc/self/mountinfo', 'utf8'))
}

/** proc(5): id parent major:minor root mountpoint options [optional fields] - type source super-options */
export function parseMountTable(text: string): MountEntry[] {
  const entries: MountEntry[] = []
  for (const line of text.split('\n')) {
    const [before, after] = line.split(' - ', 2)
    const [, , device, , mountpoint] = before?.split(' ') ?? []
    const [fileSystemType, source] = after?.split(' ') ?? []
    if (device === undefined || mountpoint === undefined || fileSystemType === undefined) continue
    entries.push({ mountpoint: unescape(mountpoint), fileSystemType, source: unescape(source ?? ''), device })
  }
  return entries
}

/** Blanks, tabs, newlines and backslashes are written as octal; bytes above 127 are written as they are. */
function unescape(text: string): string {
  return text.replace(/\\([0-7]{3})/g, (_match, octal: string) => String.fromCharCode(Number.parseInt(octal, 8)))
}
