/** Where an inode is in the VM's directory, for messages. */
import { ROOT_INODE } from '../base/units.js'
import type { Namespace } from './namespace.js'
import type { Inode } from './namespace-types.js'

/** no chain of directories that a person reads is deeper */
const DEPTH_MAX = 64

/** Its first name with the directories above it; of one that lies very deep only the last of them. */
export function pathOfInode(namespace: Namespace, inode: Inode): string {
  const names: string[] = []
  let at: Inode | undefined = inode
  while (at !== undefined && at.id !== ROOT_INODE && names.length < DEPTH_MAX) {
    names.unshift(at.name)
    at = at.parent === 0 ? undefined : namespace.get(at.parent)
  }
  return at === undefined || at.id === ROOT_INODE ? names.join('/') : `.../${names.join('/')}`
}
