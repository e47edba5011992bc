/** Attributes as stat(2) shows them, and the type bits of a mode. */
import type { InodeId } from '../base/units.js'
import type { FileType, Inode } from '../session/namespace-types.js'

export interface Attributes {
  readonly inode: InodeId
  readonly type: FileType
  /** st_mode: type bits and permission bits */
  readonly mode: number
  readonly nlink: number
  readonly uid: number
  readonly gid: number
  readonly rdev: number
  readonly sizeBytes: number
  readonly allocatedBytes: number
  readonly atimeNs: bigint
  readonly mtimeNs: bigint
  readonly ctimeNs: bigint
}

export const S_IFMT = 0o170000
export const S_ISGID = 0o2000
export const PERMISSION_BITS = 0o7777

const TYPE_BITS: Readonly<Record<FileType, number>> = {
  fifo: 0o010000,
  'character-device': 0o020000,
  directory: 0o040000,
  'block-device': 0o060000,
  file: 0o100000,
  symlink: 0o120000,
  socket: 0o140000
}

const TYPES: ReadonlyMap<number, FileType> = new Map(
  // Object.entries forgets the key type; TYPE_BITS has exactly the file types as keys
  Object.entries(TYPE_BITS).map(([type, bits]) => [bits, type as FileType])
)

/** The type that mknod's mode asks for; no type bits mean a regular file. */
export function typeOfMode(mode: number): FileType | undefined {
  const bits = mode & S_IFMT
  return bits === 0 ? 'file' : TYPES.get(bits)
}

/** st_mode's type bits of a type. */
export function typeBits(type: FileType): number {
  return TYPE_BITS[type]
}

/** `times` are later than the inode's own when a write has not been recorded yet. */
export function attributesOf(inode: Inode, allocatedBytes: number, writtenNs: bigint | undefined): Attributes {
  return {
    inode: inode.id,
    type: inode.type,
    mode: TYPE_BITS[inode.type] | inode.mode,
    nlink: linkCount(inode),
    uid: inode.uid,
    gid: inode.gid,
    rdev: inode.rdev,
    sizeBytes: sizeOf(inode),
    allocatedBytes,
    atimeNs: inode.atimeNs,
    mtimeNs: writtenNs ?? inode.mtimeNs,
    ctimeNs: writtenNs ?? inode.ctimeNs
  }
}

function linkCount(inode: Inode): number {
  if (inode.parent === 0) return 0
  return inode.type === 'directory' ? 2 + inode.subdirectories : 1 + inode.otherNames.length
}

function sizeOf(inode: Inode): number {
  switch (inode.type) {
    case 'file':
      return inode.sizeBytes
    case 'symlink':
      return Buffer.byteLength(inode.target)
    case 'directory':
      return 4096 // what most local file systems show for a small directory
    default:
      return 0
  }
}
