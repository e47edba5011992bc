/**
 * A state to start from, out of a snapshot whose checksum is wrong. Which of its bytes is wrong nobody knows, so what is made
 * here is for a person to look at, never for a mount to go on with.
 *
 * What comes out is a tree: an inode without a place in it gets the name `salvaged-<inode>` in the root. Where the snapshot
 * ends early, files of the base that it did not come to are as they were there.
 */
import { FILE_BYTES_MAX, type InodeId, NAME_BYTES_MAX, ROOT_INODE, toInodeId } from '../base/units.js'
import type { BaseImage, BaseInode } from './namespace.js'
import type { NamePlace } from './namespace-types.js'
import { decodeDamagedSnapshot } from './snapshot.js'

const PERMISSIONS = 0o7777

export interface SalvagedState {
  readonly image: BaseImage
  /** of the snapshot */
  readonly inodes: number
  readonly isComplete: boolean
  /** names that were given because the old place made no sense */
  readonly moved: readonly string[]
}

export function salvageSnapshot(bytes: Buffer, base: BaseImage): SalvagedState {
  const { inodes, isComplete } = decodeDamagedSnapshot(bytes, base)
  const known = new Map<InodeId, BaseInode>()
  for (const inode of inodes) if (!known.has(inode.id) && isPlausible(inode)) known.set(inode.id, inode)
  const found = known.size
  for (const inode of base.inodes) {
    const isMissing = !known.has(inode.id) && (!isComplete || inode.id === ROOT_INODE)
    if (isMissing || (inode.id === ROOT_INODE && known.get(inode.id)?.type !== 'directory')) known.set(inode.id, inode)
  }
  const { placed, moved } = placeAll(known)
  const nextInode = [...known.keys()].reduce((next, id) => Math.max(next, id + 1), base.nextInode)
  return { image: { nextInode, inodes: placed }, inodes: found, isComplete, moved }
}

function isPlausible({ sizeBytes, mode, type, regions }: BaseInode): boolean {
  const isFile = type === 'file'
  return sizeBytes <= FILE_BYTES_MAX && (mode & ~PERMISSIONS) === 0 && (isFile || (regions?.size ?? 0) === 0)
}

function placeAll(known: ReadonlyMap<InodeId, BaseInode>): { placed: BaseInode[]; moved: string[] } {
  const taken = new Set<string>()
  const moved: string[] = []
  const take = ({ parent, name }: NamePlace): boolean => {
    const key = `${String(parent)}/${name}`
    if (!isName(name) || !leadsToRoot(known, parent) || taken.has(key)) return false
    taken.add(key)
    return true
  }
  const placed = [...known.values()].map((inode): BaseInode => {
    if (inode.id === ROOT_INODE || inode.parent === 0) return { ...inode, otherNames: [] }
    const isInPlace = leadsToRoot(known, inode.id) && take(inode)
    const names = inode.type === 'directory' ? [] : (inode.otherNames ?? []).filter(take)
    if (isInPlace) return { ...inode, otherNames: names }
    const name = `salvaged-${String(inode.id)}`
    moved.push(name)
    taken.add(`${String(ROOT_INODE)}/${name}`)
    return { ...inode, parent: ROOT_INODE, name, otherNames: names }
  })
  return { placed, moved }
}

/** Whether an inode, which is a directory or about to be linked, has only directories above it, up to the root. */
function leadsToRoot(known: ReadonlyMap<InodeId, BaseInode>, from: InodeId): boolean {
  const seen = new Set<number>()
  let id: InodeId = from
  while (id !== ROOT_INODE) {
    const inode = known.get(id)
    if (inode === undefined || seen.has(id)) return false
    if (id !== from && inode.type !== 'directory') return false
    seen.add(id)
    id = toInodeId(inode.parent)
  }
  return true
}

function isName(name: string): boolean {
  if (name === '' || name === '.' || name === '..') return false
  return !name.includes('/') && !name.includes('\0') && Buffer.byteLength(name) <= NAME_BYTES_MAX
}
