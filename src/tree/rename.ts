/** rename(2) with RENAME_NOREPLACE and RENAME_EXCHANGE: what is allowed, and the records of one atomic change. */
import { PosixError } from '../base/errors.js'
import type { InodeId } from '../base/units.js'
import type { ChangeRecord, Inode } from '../session/namespace-types.js'
import { changed, isWithin, removed, touched } from './records.js'

export const RENAME_NOREPLACE = 1
export const RENAME_EXCHANGE = 2

export interface Rename {
  readonly source: Inode
  readonly parent: Inode
  readonly name: string
  readonly newParent: Inode
  readonly newName: string
  readonly target: Inode | undefined
  readonly flags: number
  readonly targetIsUsed: boolean
  readonly nowNs: bigint
}

/** The records; none when source and target are the same file, also under two names. Throws PosixError when the rename is not allowed. */
export function renameRecords(rename: Rename, get: (id: InodeId) => Inode | undefined): ChangeRecord[] {
  const { source, parent, name, newParent, newName, target, flags, nowNs } = rename
  const exchange = flags === RENAME_EXCHANGE
  if (flags !== 0 && flags !== RENAME_NOREPLACE && !exchange) throw new PosixError('EINVAL')
  if (flags === RENAME_NOREPLACE && target !== undefined) throw new PosixError('EEXIST')
  if (exchange && target === undefined) throw new PosixError('ENOENT')
  if (target?.id === source.id) return []
  if (source.type === 'directory' && isWithin(newParent, source, get)) throw new PosixError('EINVAL')
  if (exchange && target?.type === 'directory' && isWithin(parent, target, get)) throw new PosixError('EINVAL')
  if (!exchange && target !== undefined) checkReplaceable(source, target)

  const records: ChangeRecord[] = [{ kind: 'unlink', parent: parent.id, name }]
  if (target !== undefined && exchange) {
    records.push({ kind: 'unlink', parent: newParent.id, name: newName })
    records.push({ kind: 'link', parent: parent.id, name, inode: target.id })
    records.push(changed(target, { ctimeNs: nowNs }))
  } else if (target !== undefined) {
    records.push(...removed(target, { parent: newParent.id, name: newName }, rename.targetIsUsed, nowNs))
  }
  records.push({ kind: 'link', parent: newParent.id, name: newName, inode: source.id })
  records.push(changed(source, { ctimeNs: nowNs }), touched(parent, nowNs))
  if (newParent.id !== parent.id) records.push(touched(newParent, nowNs))
  return records
}

function checkReplaceable(source: Inode, target: Inode): void {
  if (target.type === 'directory') {
    if (source.type !== 'directory') throw new PosixError('EISDIR')
    if (target.children !== undefined && target.children.size > 0) throw new PosixError('ENOTEMPTY')
  } else if (source.type === 'directory') {
    throw new PosixError('ENOTDIR')
  }
}
