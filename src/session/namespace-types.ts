/**
 * The words of a VM's live state: what an inode is and which records change it. State changes only by applying
 * records, live and in replay, so that recovery cannot differ from what the running mount saw.
 */
import type { InodeId } from '../base/units.js'
import type { BlockPlace, ObjectPlace } from '../format/place.js'

export type FileType = 'file' | 'directory' | 'symlink' | 'fifo' | 'socket' | 'character-device' | 'block-device'

/** What the base generation knows about a regular file. */
export interface BaseFile {
  readonly sizeBytes: number
  /** root of the block map; null when every byte is zero */
  readonly map: ObjectPlace | null
  /** number of blocks that are not all zero */
  readonly dataBlocks: number
}

/** Modified pages of one 16 MiB region of a file. Bit n is page n of the region (4,096 pages). */
export interface RegionPages {
  /** page has its bytes in the session's region file */
  readonly valid: Uint32Array
  /** page reads as zeros although the base has bytes there; undefined when there is none */
  punched: Uint32Array | undefined
}

/**
 * A block whose bytes were sent to the share before any generation names them, because the session filled the disk. It
 * stands in place of the base's whole block; pages that are written or punched after that lie above it.
 */
export interface UploadedBlock {
  /** undefined: every byte is zero */
  readonly place: BlockPlace | undefined
  /** bytes that count, from the start of the block; zeros beyond. A truncate makes it smaller. */
  readonly limitBytes: number
}

/** A name of an inode in a directory. */
export interface NamePlace {
  readonly parent: InodeId
  readonly name: string
}

export interface Inode {
  readonly id: InodeId
  readonly type: FileType
  /** permission bits with set-id and sticky, 0..0o7777 */
  mode: number
  uid: number
  gid: number
  /** nanoseconds since the epoch */
  atimeNs: bigint
  mtimeNs: bigint
  ctimeNs: bigint
  readonly rdev: number
  /** of a symlink, else '' */
  readonly target: string
  /** the directory that names it; 0 while it is unlinked but open. The root's parent is the root. */
  parent: InodeId
  /** its name there; '' for the root and for unlinked inodes */
  name: string
  /** hard links: its other names, in the order in which they came; none while it has no name, and never of a directory */
  readonly otherNames: NamePlace[]
  /** of a directory */
  readonly children: Map<string, InodeId> | undefined
  /** number of children that are directories (nlink is this + 2) */
  subdirectories: number
  /** of a regular file */
  sizeBytes: number
  readonly base: BaseFile | undefined
  /** the smallest size since the base generation: at and above it the base no longer counts. 0 without a base. */
  baseLimitBytes: number
  /** modified regions by region index */
  readonly regions: Map<number, RegionPages>
  /** by block; the region of each is in `regions` too */
  readonly uploaded: Map<number, UploadedBlock>
}

export type ChangeRecord =
  | {
      /** creates the inode (unlinked), or gives an existing one these attributes; type, rdev and target never change */
      readonly kind: 'inode'
      readonly inode: InodeId
      readonly type: FileType
      readonly mode: number
      readonly uid: number
      readonly gid: number
      readonly atimeNs: bigint
      readonly mtimeNs: bigint
      readonly ctimeNs: bigint
      readonly rdev: number
      readonly target: string
    }
  /** one more name for an inode; `hardLink`: made by link(2), beside those that it has */
  | {
      readonly kind: 'link'
      readonly parent: InodeId
      readonly name: string
      readonly inode: InodeId
      readonly hardLink?: true
    }
  /** one name less; one of the others, when there are any, takes the place of the first */
  | { readonly kind: 'unlink'; readonly parent: InodeId; readonly name: string }
  /** an unlinked inode that nobody has open any more */
  | { readonly kind: 'forget'; readonly inode: InodeId }
  /** resulting size and base limit; pages wholly past the size lose their bytes */
  | { readonly kind: 'size'; readonly inode: InodeId; readonly sizeBytes: number; readonly baseLimitBytes: number }
  /** whole pages now read as zeros (pages of the file, not of a region) */
  | { readonly kind: 'punch'; readonly inode: InodeId; readonly firstPage: number; readonly pageCount: number }
  /** pages of one region became valid; one crc32 of its 4,096 bytes for each */
  | {
      readonly kind: 'pages'
      readonly inode: InodeId
      readonly region: number
      readonly firstPage: number
      readonly checksums: Uint32Array
    }
  /** blocks of one region now have their bytes on the share; their pages in the session do not count any more */
  | {
      readonly kind: 'uploaded'
      readonly inode: InodeId
      readonly region: number
      /** by block of the region, 0..127 */
      readonly blocks: ReadonlyMap<number, UploadedBlock>
    }
