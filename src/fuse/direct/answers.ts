/** Answers to the kernel, encoded into one buffer that is reused: encode, then write, in one synchronous step. */
import type { Attributes } from '../../tree/attributes.js'
import type { FileSystemSpace } from '../../tree/tree.js'
import { IO_BYTES_MAX } from './negotiation.js'
import { ATTR_OUT, DIRENT_OUT, DIRENTPLUS_OUT, ENTRY_OUT, OPEN_OUT, OUT_HEADER, STATFS_OUT } from './protocol.js'

/** One mount owns the tree: nothing changes behind the kernel's back. */
const CACHE_SECONDS = 86_400
/** inode ids are never used twice */
const GENERATION = 1
const NANOSECONDS = 1_000_000_000n
const DIRENT_ALIGNMENT = 8

/** Bytes in front of every answer that its header takes. */
export const HEADER_BYTES = OUT_HEADER.bytes

export interface Message {
  readonly bytes: Buffer
  readonly view: DataView
}

export function createMessage(bodyBytesMax: number): Message {
  return messageOn(Buffer.allocUnsafeSlow(HEADER_BYTES + bodyBytesMax))
}

export function messageOn(bytes: Buffer): Message {
  return { bytes, view: new DataView(bytes.buffer, bytes.byteOffset, bytes.length) }
}

/** What can be listed of one directory entry. */
export interface ListedEntry {
  readonly name: string
  readonly attributes: Attributes
  readonly nextOffset: number
}

/** Each function puts a body behind the header of a message; answers its length. */
export const encode = {
  entry(view: DataView, attributes: Attributes, at = HEADER_BYTES): number {
    ENTRY_OUT.write(view, at, entryFields(attributes))
    return ENTRY_OUT.bytes
  },

  /** A name that is not there, which the kernel may remember. */
  noEntry(view: DataView): number {
    ENTRY_OUT.write(view, HEADER_BYTES, { entryValid: CACHE_SECONDS })
    return ENTRY_OUT.bytes
  },

  attributes(view: DataView, attributes: Attributes): number {
    ATTR_OUT.write(view, HEADER_BYTES, { attrValid: CACHE_SECONDS, ...attributeFields(attributes) })
    return ATTR_OUT.bytes
  },

  open(view: DataView, handle: number, openFlags: number, at = HEADER_BYTES): number {
    OPEN_OUT.write(view, at, { fh: handle, openFlags })
    return OPEN_OUT.bytes
  },

  created(view: DataView, attributes: Attributes, handle: number, openFlags: number): number {
    const entryBytes = encode.entry(view, attributes)
    return entryBytes + encode.open(view, handle, openFlags, HEADER_BYTES + entryBytes)
  },

  space(view: DataView, space: FileSystemSpace): number {
    const freeBlocks = Math.floor(space.freeBytes / space.blockBytes)
    STATFS_OUT.write(view, HEADER_BYTES, {
      blocks: Math.floor(space.totalBytes / space.blockBytes),
      bfree: freeBlocks,
      bavail: freeBlocks,
      files: space.totalInodes,
      ffree: space.freeInodes,
      bsize: space.blockBytes,
      frsize: space.blockBytes,
      namelen: space.nameBytesMax
    })
    return STATFS_OUT.bytes
  },

  /** Adds one listed entry at `at` when it fits below `end`; answers where the next one goes, or undefined. */
  listed({ bytes, view }: Message, entry: ListedEntry, plus: boolean, at: number, end: number): number | undefined {
    const { name, attributes, nextOffset } = entry
    const structure = plus ? DIRENTPLUS_OUT : DIRENT_OUT
    const nameBytes = Buffer.byteLength(name)
    const next = at + Math.ceil((structure.bytes + nameBytes) / DIRENT_ALIGNMENT) * DIRENT_ALIGNMENT
    if (next > end) return undefined
    const dirent = {
      direntIno: attributes.inode,
      off: nextOffset,
      namelen: nameBytes,
      type: attributes.mode >>> 12
    }
    if (!plus) DIRENT_OUT.write(view, at, dirent)
    else DIRENTPLUS_OUT.write(view, at, isSelfOrParent(name) ? dirent : { ...entryFields(attributes), ...dirent })
    bytes.fill(0, bytes.write(name, at + structure.bytes) + at + structure.bytes, next)
    return next
  }
}

/** The kernel does not count a lookup for these two. */
export function isSelfOrParent(name: string): boolean {
  return name === '.' || name === '..'
}

export const BODY_BYTES_MAX = IO_BYTES_MAX

function entryFields(attributes: Attributes) {
  return {
    nodeid: attributes.inode,
    generation: GENERATION,
    entryValid: CACHE_SECONDS,
    attrValid: CACHE_SECONDS,
    ...attributeFields(attributes)
  }
}

function attributeFields(attributes: Attributes) {
  const { atimeNs, mtimeNs, ctimeNs } = attributes
  return {
    ino: attributes.inode,
    size: attributes.sizeBytes,
    blocks: Math.ceil(attributes.allocatedBytes / 512),
    atime: secondsOf(atimeNs),
    mtime: secondsOf(mtimeNs),
    ctime: secondsOf(ctimeNs),
    atimensec: nanosecondsOf(atimeNs),
    mtimensec: nanosecondsOf(mtimeNs),
    ctimensec: nanosecondsOf(ctimeNs),
    mode: attributes.mode,
    nlink: attributes.nlink,
    uid: attributes.uid,
    gid: attributes.gid,
    rdev: attributes.rdev,
    blksize: 4096
  }
}

/** Also before 1970: the nanoseconds are never negative. */
function nanosecondsOf(timeNs: bigint): number {
  return Number(((timeNs % NANOSECONDS) + NANOSECONDS) % NANOSECONDS)
}

function secondsOf(timeNs: bigint): number {
  return Number((timeNs - BigInt(nanosecondsOf(timeNs))) / NANOSECONDS)
}
