/**
 * The VM beside this one, on the same share. Its blocks may stand in for those of this VM only when whoever may write or read
 * one of them may do so with the other: the directories have the same owner, group and permissions (docs/security.md).
 */
import fs from 'node:fs'
import path from 'node:path'
import { readVmDescriptor } from '../format/vm.js'
import { Share } from '../share/share.js'

/** Its id; undefined when there is none, or when it is none of ours. */
export function idOfSibling(share: Share, name: string): string | undefined {
  const directory = path.join(path.dirname(share.root), name)
  if (path.basename(directory) !== name || isMountpoint(directory)) return undefined
  try {
    const own = fs.statSync(share.root)
    const other = fs.lstatSync(directory)
    const isAlike =
      other.isDirectory() &&
      (['dev', 'uid', 'gid', 'mode'] as const).every((attribute) => other[attribute] === own[attribute])
    return isAlike ? readVmDescriptor(new Share(directory)).vm : undefined
  } catch {
    return undefined
  }
}

/** Of another server, perhaps one that does not answer: it is not touched. */
function isMountpoint(directory: string): boolean {
  const mounts = fs.readFileSync('/proc/self/mountinfo', 'utf8').split('\n')
  return mounts.some((line) => unescape(line.split(' ')[4] ?? '') === directory)
}

/** The kernel writes blanks in paths as octal numbers. */
function unescape(text: string): string {
  return text.replace(/\\([0-7]{3})/g, (_, octal: string) => String.fromCharCode(parseInt(octal, 8)))
}
