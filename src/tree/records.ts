/** Builds the change records of one operation. Pure: nothing here changes state. */
import { ROOT_INODE, type InodeId } from '../base/units.js'
import type { ChangeRecord, FileType, Inode, NamePlace } from '../session/namespace-types.js'
import { S_ISGID } from './attributes.js'

export type InodeRecord = Extract<ChangeRecord, { kind: 'inode' }>
export type AttributeChanges = Partial<Pick<InodeRecord, 'mode' | 'uid' | 'gid' | 'atimeNs' | 'mtimeNs' | 'ctimeNs'>>

/** Who asks for a new name, and with which permission bits (the kernel has applied the umask). */
export interface Creation {
  readonly mode: number
  readonly uid: number
  readonly gid: number
}

/** The inode as it is, with some attributes changed. */
export function changed(inode: Inode, changes: AttributeChanges): InodeRecord {
  return {
    kind: 'inode',
    inode: inode.id,
    type: inode.type,
    mode: inode.mode,
    uid: inode.uid,
    gid: inode.gid,
    atimeNs: inode.atimeNs,
    mtimeNs: inode.mtimeNs,
    ctimeNs: inode.ctimeNs,
    rdev: inode.rdev,
    target: inode.target,
    ...changes
  }
}

/** A directory whose entries change. */
export function touched(directory: Inode, nowNs: bigint): InodeRecord {
  return changed(directory, { mtimeNs: nowNs, ctimeNs: nowNs })
}

/**
 * A new name with a new inode. In a set-group-id directory the group is the directory's and directories hand the
 * bit on (inode(7)).
 */
export function created(
  inode: InodeId,
  type: FileType,
  parent: Inode,
  name: string,
  creation: Creation,
  nowNs: bigint,
  special: { readonly rdev?: number; readonly target?: string } = {}
): ChangeRecord[] {
  const inheritsGroup = (parent.mode & S_ISGID) !== 0
  return [
    {
      kind: 'inode',
      inode,
      type,
      mode: inheritsGroup && type === 'directory' ? creation.mode | S_ISGID : creation.mode,
      uid: creation.uid,
      gid: inheritsGroup ? parent.gid : creation.gid,
      atimeNs: nowNs,
      mtimeNs: nowNs,
      ctimeNs: nowNs,
      rdev: special.rdev ?? 0,
      target: special.target ?? ''
    },
    { kind: 'link', parent: parent.id, name, inode },
    touched(parent, nowNs)
  ]
}

/** One more name for an inode that has one. */
export function linked(inode: Inode, parent: Inode, name: string, nowNs: bigint): ChangeRecord[] {
  return [
    { kind: 'link', parent: parent.id, name, inode: inode.id, hardLink: true },
    changed(inode, { ctimeNs: nowNs }),
    touched(parent, nowNs)
  ]
}

/** Takes a name away. With its last one an inode that nobody uses any more goes too, in the same atomic unit. */
export function removed(inode: Inode, from: NamePlace, isUsed: boolean, nowNs: bigint): ChangeRecord[] {
  const unlink: ChangeRecord = { kind: 'unlink', parent: from.parent, name: from.name }
  if (!isUsed && inode.otherNames.length === 0) return [unlink, { kind: 'forget', inode: inode.id }]
  return [unlink, changed(inode, { ctimeNs: nowNs })]
}

/** Whether `inode` is `directory` or lies below it. */
export function isWithin(inode: Inode, directory: Inode, get: (id: InodeId) => Inode | undefined): boolean {
  for (let at: Inode | undefined = inode; at !== undefined; at = get(at.parent)) {
    if (at.id === directory.id) return true
    if (at.id === ROOT_INODE) return false
  }
  return false
}
