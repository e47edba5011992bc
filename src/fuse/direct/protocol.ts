/** The kernel's FUSE protocol as linux/fuse.h describes it: opcodes, flags and structures, each once. */
import { Structure } from './structure.js'

export const PROTOCOL_MAJOR = 7
/** what is written here; a newer kernel speaks it too */
export const PROTOCOL_MINOR = 38
/** Linux 5.4: requests of many pages and caller-chosen limits are there, and nothing has an older layout */
export const PROTOCOL_MINOR_MIN = 31

export const OPCODES = {
  LOOKUP: 1,
  FORGET: 2,
  GETATTR: 3,
  SETATTR: 4,
  READLINK: 5,
  SYMLINK: 6,
  MKNOD: 8,
  MKDIR: 9,
  UNLINK: 10,
  RMDIR: 11,
  RENAME: 12,
  LINK: 13,
  OPEN: 14,
  READ: 15,
  WRITE: 16,
  STATFS: 17,
  RELEASE: 18,
  FSYNC: 20,
  SETXATTR: 21,
  GETXATTR: 22,
  LISTXATTR: 23,
  REMOVEXATTR: 24,
  FLUSH: 25,
  INIT: 26,
  OPENDIR: 27,
  READDIR: 28,
  RELEASEDIR: 29,
  FSYNCDIR: 30,
  GETLK: 31,
  SETLK: 32,
  SETLKW: 33,
  ACCESS: 34,
  CREATE: 35,
  INTERRUPT: 36,
  BMAP: 37,
  DESTROY: 38,
  IOCTL: 39,
  POLL: 40,
  NOTIFY_REPLY: 41,
  BATCH_FORGET: 42,
  FALLOCATE: 43,
  READDIRPLUS: 44,
  RENAME2: 45,
  LSEEK: 46,
  COPY_FILE_RANGE: 47,
  SETUPMAPPING: 48,
  REMOVEMAPPING: 49,
  SYNCFS: 50,
  TMPFILE: 51,
  STATX: 52
} as const

export type OpcodeName = keyof typeof OPCODES

const NAMES: ReadonlyMap<number, OpcodeName> = new Map(
  // Object.entries forgets the key type
  Object.entries(OPCODES).map(([name, code]) => [code, name as OpcodeName])
)

export function opcodeName(code: number): OpcodeName | undefined {
  return NAMES.get(code)
}

/** Flags of INIT; which of them are used, and why, is in negotiation.ts. */
export const INIT_FLAGS = {
  ASYNC_READ: 1 << 0,
  BIG_WRITES: 1 << 5,
  DO_READDIRPLUS: 1 << 13,
  READDIRPLUS_AUTO: 1 << 14,
  ASYNC_DIO: 1 << 15,
  WRITEBACK_CACHE: 1 << 16,
  PARALLEL_DIROPS: 1 << 18,
  ABORT_ERROR: 1 << 21,
  MAX_PAGES: 1 << 22,
  CACHE_SYMLINKS: 1 << 23
} as const

/** Bits of SETATTR's `valid`: which parts are to be set. */
export const SETATTR_PARTS = {
  MODE: 1 << 0,
  UID: 1 << 1,
  GID: 1 << 2,
  SIZE: 1 << 3,
  ATIME: 1 << 4,
  MTIME: 1 << 5,
  ATIME_NOW: 1 << 7,
  MTIME_NOW: 1 << 8
} as const

export const FOPEN_KEEP_CACHE = 1 << 1
export const FSYNC_DATA_ONLY = 1 << 0

export const IN_HEADER = new Structure({
  len: 'u32',
  opcode: 'u32',
  unique: 'exact64',
  nodeid: 'u64',
  uid: 'u32',
  gid: 'u32',
  pid: 'u32',
  totalExtlen: 'u16',
  padding: 'u16'
})

export const OUT_HEADER = new Structure({ len: 'u32', error: 'i32', unique: 'exact64' })

const ATTR = {
  ino: 'u64',
  size: 'u64',
  blocks: 'u64',
  atime: 'i64',
  mtime: 'i64',
  ctime: 'i64',
  atimensec: 'u32',
  mtimensec: 'u32',
  ctimensec: 'u32',
  mode: 'u32',
  nlink: 'u32',
  uid: 'u32',
  gid: 'u32',
  rdev: 'u32',
  blksize: 'u32',
  flags: 'u32'
} as const

const ENTRY = {
  nodeid: 'u64',
  generation: 'u64',
  entryValid: 'u64',
  attrValid: 'u64',
  entryValidNsec: 'u32',
  attrValidNsec: 'u32',
  ...ATTR
} as const

const DIRENT = { direntIno: 'u64', off: 'u64', namelen: 'u32', type: 'u32' } as const

export const INIT_IN = new Structure({ major: 'u32', minor: 'u32', maxReadahead: 'u32', flags: 'u32' })
export const INIT_OUT = new Structure({
  major: 'u32',
  minor: 'u32',
  maxReadahead: 'u32',
  flags: 'u32',
  maxBackground: 'u16',
  congestionThreshold: 'u16',
  maxWrite: 'u32',
  timeGran: 'u32',
  maxPages: 'u16',
  mapAlignment: 'u16',
  flags2: 'u32',
  unused0: 'u32',
  unused1: 'u32',
  unused2: 'u32',
  unused3: 'u32',
  unused4: 'u32',
  unused5: 'u32',
  unused6: 'u32'
})
export const ENTRY_OUT = new Structure(ENTRY)
export const ATTR_OUT = new Structure({ attrValid: 'u64', attrValidNsec: 'u32', dummy: 'u32', ...ATTR })
export const FORGET_IN = new Structure({ nlookup: 'u64' })
export const BATCH_FORGET_IN = new Structure({ count: 'u32', dummy: 'u32' })
export const FORGET_ONE = new Structure({ nodeid: 'u64', nlookup: 'u64' })
export const SETATTR_IN = new Structure({
  valid: 'u32',
  padding: 'u32',
  fh: 'u64',
  size: 'u64',
  lockOwner: 'u64',
  atime: 'i64',
  mtime: 'i64',
  ctime: 'i64',
  atimensec: 'u32',
  mtimensec: 'u32',
  ctimensec: 'u32',
  mode: 'u32',
  unused4: 'u32',
  uid: 'u32',
  gid: 'u32',
  unused5: 'u32'
})
export const MKNOD_IN = new Structure({ mode: 'u32', rdev: 'u32', umask: 'u32', padding: 'u32' })
export const MKDIR_IN = new Structure({ mode: 'u32', umask: 'u32' })
export const RENAME_IN = new Structure({ newdir: 'u64' })
export const RENAME2_IN = new Structure({ newdir: 'u64', flags: 'u32', padding: 'u32' })
export const LINK_IN = new Structure({ oldnodeid: 'u64' })
export const OPEN_IN = new Structure({ flags: 'u32', openFlags: 'u32' })
export const CREATE_IN = new Structure({ flags: 'u32', mode: 'u32', umask: 'u32', openFlags: 'u32' })
export const OPEN_OUT = new Structure({ fh: 'u64', openFlags: 'u32', padding: 'u32' })
export const RELEASE_IN = new Structure({ fh: 'u64', flags: 'u32', releaseFlags: 'u32', lockOwner: 'u64' })
export const FLUSH_IN = new Structure({ fh: 'u64', unused: 'u32', padding: 'u32', lockOwner: 'u64' })
/** READ, READDIR and READDIRPLUS */
export const READ_IN = new Structure({
  fh: 'u64',
  offset: 'u64',
  size: 'u32',
  readFlags: 'u32',
  lockOwner: 'u64',
  flags: 'u32',
  padding: 'u32'
})
/** of WRITE: from the page cache */
export const WRITE_CACHE = 1
export const WRITE_IN = new Structure({
  fh: 'u64',
  offset: 'u64',
  size: 'u32',
  writeFlags: 'u32',
  lockOwner: 'u64',
  flags: 'u32',
  padding: 'u32'
})
export const WRITE_OUT = new Structure({ size: 'u32', padding: 'u32' })
export const STATFS_OUT = new Structure({
  blocks: 'u64',
  bfree: 'u64',
  bavail: 'u64',
  files: 'u64',
  ffree: 'u64',
  bsize: 'u32',
  namelen: 'u32',
  frsize: 'u32',
  padding: 'u32',
  spare0: 'u32',
  spare1: 'u32',
  spare2: 'u32',
  spare3: 'u32',
  spare4: 'u32',
  spare5: 'u32'
})
export const FSYNC_IN = new Structure({ fh: 'u64', fsyncFlags: 'u32', padding: 'u32' })
export const FALLOCATE_IN = new Structure({ fh: 'u64', offset: 'u64', length: 'u64', mode: 'u32', padding: 'u32' })
export const LSEEK_IN = new Structure({ fh: 'u64', offset: 'i64', whence: 'u32', padding: 'u32' })
export const LSEEK_OUT = new Structure({ offset: 'u64' })
export const DIRENT_OUT = new Structure(DIRENT)
export const DIRENTPLUS_OUT = new Structure({ ...ENTRY, ...DIRENT })
