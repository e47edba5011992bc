/**
 * The description of the kernel's structures held against what a kernel has sent: test/fixtures/fuse-requests.txt was
 * recorded on a mount of the tree in memory while a program did what stands beside each request.
 */
import fs from 'node:fs'
import test from 'ava'
import { negotiate } from '../../src/fuse/direct/negotiation.js'
import { messageOn } from '../../src/fuse/direct/answers.js'
import * as protocol from '../../src/fuse/direct/protocol.js'
import { Request } from '../../src/fuse/direct/request.js'
import type { Structure } from '../../src/fuse/direct/structure.js'

const { SETATTR_PARTS } = protocol

interface Expected {
  /** the inode that the request is about */
  readonly inode: number
  /** each structure of the body with what is known of its fields */
  readonly body?: readonly (readonly [Structure<any>, object])[]
  readonly names?: readonly string[]
  readonly bytes?: string
}

/** The file is inode 2 with handle 1; then come dir 3, pipe 4, null 5, soft 6, gone 7. */
const expected: readonly (readonly [what: string, operation: string, Expected])[] = [
  ['init', 'INIT', { inode: 0, body: [[protocol.INIT_IN, { major: 7, minor: 45, maxReadahead: 131_072 }]] }],
  ['open(file, O_RDWR|O_CREAT, 0640), umask 022', 'LOOKUP', { inode: 1, names: ['file'] }],
  [
    'open(file, O_RDWR|O_CREAT, 0640), umask 022',
    'CREATE',
    { inode: 1, body: [[protocol.CREATE_IN, { flags: 0o100102, mode: 0o100640, umask: 0o22 }]], names: ['file'] }
  ],
  [
    'pwrite 6 bytes at 4',
    'WRITE',
    { inode: 2, body: [[protocol.WRITE_IN, { fh: 1, offset: 4, size: 6, flags: 0o100002 }]], bytes: 'hello!' }
  ],
  [
    'fallocate PUNCH|KEEP 8192 4096',
    'FALLOCATE',
    { inode: 2, body: [[protocol.FALLOCATE_IN, { fh: 1, offset: 8192, length: 4096, mode: 3 }]] }
  ],
  [
    'ftruncate 2^40+1',
    'SETATTR',
    {
      inode: 2,
      body: [[protocol.SETATTR_IN, { valid: SETATTR_PARTS.SIZE | (1 << 6) | (1 << 9), fh: 1, size: 2 ** 40 + 1 }]]
    }
  ],
  [
    'pread 100 at 2^33',
    'READ',
    { inode: 2, body: [[protocol.READ_IN, { fh: 1, offset: 2 ** 33, size: 4096, flags: 0o100002 }]] }
  ],
  ['lseek 5 SEEK_DATA', 'LSEEK', { inode: 2, body: [[protocol.LSEEK_IN, { fh: 1, offset: 5, whence: 3 }]] }],
  ['statvfs', 'STATFS', { inode: 2 }],
  [
    'utime',
    'SETATTR',
    {
      inode: 2,
      body: [
        [
          protocol.SETATTR_IN,
          {
            valid: SETATTR_PARTS.ATIME | SETATTR_PARTS.MTIME,
            atime: 1_234_567_890,
            atimensec: 123_456_789,
            mtime: -2,
            mtimensec: 499_999_999
          }
        ]
      ]
    }
  ],
  [
    'atime now, mtime omit',
    'SETATTR',
    { inode: 2, body: [[protocol.SETATTR_IN, { valid: SETATTR_PARTS.ATIME | SETATTR_PARTS.ATIME_NOW }]] }
  ],
  [
    'fchmod 04751',
    'SETATTR',
    { inode: 2, body: [[protocol.SETATTR_IN, { valid: SETATTR_PARTS.MODE, mode: 0o104751 }]] }
  ],
  [
    'chown 1000 1001',
    'SETATTR',
    {
      inode: 2,
      body: [
        [
          protocol.SETATTR_IN,
          { valid: SETATTR_PARTS.MODE | SETATTR_PARTS.UID | SETATTR_PARTS.GID, uid: 1000, gid: 1001, mode: 0o100751 }
        ]
      ]
    }
  ],
  ['close', 'FLUSH', { inode: 2, body: [[protocol.FLUSH_IN, { fh: 1 }]] }],
  ['close', 'RELEASE', { inode: 2, body: [[protocol.RELEASE_IN, { fh: 1, flags: 0o100002 }]] }],
  ['mkdir 0750', 'MKDIR', { inode: 1, body: [[protocol.MKDIR_IN, { mode: 0o750, umask: 0o22 }]], names: ['dir'] }],
  [
    'mkfifo',
    'MKNOD',
    { inode: 1, body: [[protocol.MKNOD_IN, { mode: 0o10600, rdev: 0, umask: 0o22 }]], names: ['pipe'] }
  ],
  [
    'mknod c 1 3 0666',
    'MKNOD',
    { inode: 1, body: [[protocol.MKNOD_IN, { mode: 0o20644, rdev: 0x103, umask: 0o22 }]], names: ['null'] }
  ],
  ['symlink', 'SYMLINK', { inode: 1, names: ['soft', 'target ü'] }],
  ['readlink', 'READLINK', { inode: 6 }],
  ['link', 'LINK', { inode: 1, body: [[protocol.LINK_IN, { oldnodeid: 2 }]], names: ['hard'] }],
  ['rename', 'RENAME', { inode: 1, body: [[protocol.RENAME_IN, { newdir: 3 }]], names: ['file', 'moved'] }],
  [
    'exchange',
    'RENAME2',
    { inode: 1, body: [[protocol.RENAME2_IN, { newdir: 1, flags: 2 }]], names: ['hard', 'pipe'] }
  ],
  ['opendir', 'OPENDIR', { inode: 1, body: [[protocol.OPEN_IN, { flags: 0o300000 }]] }],
  ['listdir', 'READDIRPLUS', { inode: 1, body: [[protocol.READ_IN, { fh: 2, offset: 0, size: 32_768 }]] }],
  ['listdir', 'READDIR', { inode: 1, body: [[protocol.READ_IN, { fh: 2, offset: 7, size: 32_768 }]] }],
  ['fsyncdir, closedir', 'FSYNCDIR', { inode: 1, body: [[protocol.FSYNC_IN, { fh: 2, fsyncFlags: 0 }]] }],
  ['fsyncdir, closedir', 'RELEASEDIR', { inode: 1, body: [[protocol.RELEASE_IN, { fh: 2 }]] }],
  ['unlink', 'UNLINK', { inode: 1, names: ['soft'] }],
  ['unlink', 'FORGET', { inode: 6, body: [[protocol.FORGET_IN, { nlookup: 3 }]] }],
  ['rmdir', 'RMDIR', { inode: 1, names: ['gone'] }],
  ['open O_RDONLY/close', 'OPEN', { inode: 2, body: [[protocol.OPEN_IN, { flags: 0o100000 }]] }],
  [
    'drop caches',
    'BATCH_FORGET',
    {
      inode: 0,
      body: [
        [protocol.BATCH_FORGET_IN, { count: 3 }],
        [protocol.FORGET_ONE, { nodeid: 4, nlookup: 3 }],
        [protocol.FORGET_ONE, { nodeid: 5, nlookup: 3 }],
        [protocol.FORGET_ONE, { nodeid: 2, nlookup: 4 }]
      ]
    }
  ]
]

const captured = fs
  .readFileSync('test/fixtures/fuse-requests.txt', 'utf8')
  .split('\n')
  .filter((line) => line !== '' && !line.startsWith('#'))
  .map((line) => line.split('\t') as [what: string, operation: string, hex: string])

function requestOf(hex: string): Request {
  const bytes = Buffer.from(hex, 'hex')
  return new Request(bytes, messageOn(bytes).view, bytes.length)
}

for (const [what, operation, { inode, body = [], names = [], bytes }] of expected) {
  test(`${operation} is what a kernel sent for: ${what}`, (t) => {
    const [, , hex = ''] = captured.find((line) => line[0] === what && line[1] === operation) ?? []
    const request = requestOf(hex)
    t.is(protocol.opcodeName(request.opcode), operation as protocol.OpcodeName)
    t.is(Number(request.inode), inode)
    for (const [structure, fields] of body) t.like(request.take(structure), fields)
    for (const name of names) t.is(request.takeName(), name)
    if (bytes !== undefined) t.is(request.takeBytes(bytes.length).toString(), bytes)
    if (operation !== 'INIT') t.is(request.remainingBytes, 0, 'all of it is described') // a later kernel's INIT is longer
  })
}

test('fsync and fdatasync differ in one flag', (t) => {
  const flags = captured
    .filter(([, operation]) => operation === 'FSYNC')
    .map(([, , hex]) => requestOf(hex).take(protocol.FSYNC_IN).fsyncFlags)
  t.deepEqual(flags, [0, protocol.FSYNC_DATA_ONLY])
})

test('every operation that is served was seen, but those that need a program that is killed, or the end of a mount', (t) => {
  const seen = new Set(captured.map(([, operation]) => operation))
  const refused = [
    'SETXATTR',
    'LISTXATTR',
    'REMOVEXATTR',
    'GETLK',
    'SETLK',
    'SETLKW',
    'ACCESS',
    'BMAP',
    'IOCTL',
    'POLL'
  ]
  const never = ['COPY_FILE_RANGE', 'SETUPMAPPING', 'REMOVEMAPPING', 'SYNCFS', 'TMPFILE', 'STATX', 'NOTIFY_REPLY']
  const left = Object.keys(protocol.OPCODES).filter((name) => !seen.has(name) && ![...refused, ...never].includes(name))
  t.deepEqual(left.sort(), ['DESTROY', 'INTERRUPT'])
})

test('what that kernel offers, and what is agreed with it', (t) => {
  const [, , hex = ''] = captured.find(([, operation]) => operation === 'INIT') ?? []
  const agreement = negotiate(requestOf(hex).take(protocol.INIT_IN), true)
  if (agreement.kind !== 'agreed') return t.fail()
  const wanted = Object.values(protocol.INIT_FLAGS).reduce((all, flag) => (all | flag) >>> 0, 0)
  t.is(agreement.out.flags, wanted, 'all that is wanted')
  t.is(agreement.out.minor, protocol.PROTOCOL_MINOR)
})
