/** The description of the kernel's structures: sizes of linux/fuse.h, and requests and answers as they were seen. */
import test from 'ava'
import { toInodeId } from '../../src/base/units.js'
import { createMessage, encode, HEADER_BYTES, messageOn } from '../../src/fuse/direct/answers.js'
import * as protocol from '../../src/fuse/direct/protocol.js'
import { Request } from '../../src/fuse/direct/request.js'
import { Structure } from '../../src/fuse/direct/structure.js'

test('structures have the sizes that the kernel counts with', (t) => {
  const sizes: Record<string, number> = {
    IN_HEADER: 40,
    OUT_HEADER: 16,
    INIT_IN: 16, // the part that every version sends
    INIT_OUT: 64,
    ENTRY_OUT: 128,
    ATTR_OUT: 104,
    FORGET_IN: 8,
    BATCH_FORGET_IN: 8,
    FORGET_ONE: 16,
    SETATTR_IN: 88,
    MKNOD_IN: 16,
    MKDIR_IN: 8,
    RENAME_IN: 8,
    RENAME2_IN: 16,
    LINK_IN: 8,
    OPEN_IN: 8,
    CREATE_IN: 16,
    OPEN_OUT: 16,
    RELEASE_IN: 24,
    FLUSH_IN: 24,
    READ_IN: 40,
    WRITE_IN: 40,
    WRITE_OUT: 8,
    STATFS_OUT: 80,
    FSYNC_IN: 16,
    FALLOCATE_IN: 32,
    LSEEK_IN: 24,
    LSEEK_OUT: 8,
    DIRENT_OUT: 24,
    DIRENTPLUS_OUT: 152
  }
  const described = Object.entries(protocol).filter(([, value]) => value instanceof Structure) as [string, any][]
  t.deepEqual(Object.fromEntries(described.map(([name, { bytes }]) => [name, bytes as number])), sizes)
})

test('numbers keep their sign and their 64 bits', (t) => {
  const structure = new Structure({
    a: 'i64',
    b: 'u64',
    c: 'exact64',
    d: 'i32',
    e: 'u32',
    f: 'u16',
    g: 'u16',
    h: 'u32'
  })
  const view = new DataView(new ArrayBuffer(64))
  for (const number of [0, 1, -1, -1_000_000_000, 2 ** 32, 2 ** 32 - 1, 2 ** 53 - 1, -(2 ** 53 - 1)]) {
    const values = { a: number, b: Math.abs(number), c: 2n ** 64n - 1n, d: -5, e: 2 ** 32 - 1, f: 65535, g: 1, h: 7 }
    structure.write(view, 8, values)
    t.deepEqual(structure.read(view, 8), values)
  }
  t.throws(() => new Structure({ a: 'u32', b: 'u64' }), { message: /not aligned/ })
})

test('a WRITE as the kernel sends it', (t) => {
  // 6 bytes at offset 4 of handle 3 of inode 2, by uid 1000
  const bytes = Buffer.from(
    '5600000010000000' +
      '2a00000000000000' +
      '0200000000000000' +
      'e8030000e9030000' +
      '7b00000000000000' +
      '0300000000000000' +
      '0400000000000000' +
      '0600000001000000' +
      '0000000000000000' +
      '0280000000000000' +
      '68656c6c6f21',
    'hex'
  )
  const { view } = messageOn(bytes)
  const request = new Request(bytes, view, bytes.length)
  t.like(request, { opcode: protocol.OPCODES.WRITE, unique: 42n, inode: toInodeId(2), uid: 1000, gid: 1001 })
  t.like(request.take(protocol.WRITE_IN), { fh: 3, offset: 4, size: 6 })
  t.is(request.takeBytes(6).toString(), 'hello!')
  t.throws(() => request.takeBytes(1), { message: /too short/ })
  t.throws(() => new Request(bytes, view, bytes.length - 1).take(protocol.WRITE_IN), { message: /too short/ })
})

test('an entry carries its time to the nanosecond, also before 1970, and its place in a listing is aligned', (t) => {
  const attributes = {
    inode: toInodeId(7),
    type: 'file' as const,
    mode: 0o100644,
    nlink: 1,
    uid: 5,
    gid: 6,
    rdev: 0,
    sizeBytes: 2 ** 40 + 1,
    allocatedBytes: 4096,
    atimeNs: -1n,
    mtimeNs: 1_700_000_000_123_456_789n,
    ctimeNs: 0n
  }
  const message = createMessage(1000)
  message.bytes.fill(0xff)
  t.is(encode.entry(message.view, attributes), 128)
  const entry = protocol.ENTRY_OUT.read(message.view, HEADER_BYTES)
  t.like(entry, { nodeid: 7, size: 2 ** 40 + 1, blocks: 8, mode: 0o100644, flags: 0 })
  t.like(entry, { atime: -1, atimensec: 999_999_999, mtime: 1_700_000_000, mtimensec: 123_456_789, ctime: 0 })
  const listed = { name: 'äb', attributes, nextOffset: 3 }
  const next = encode.listed(message, listed, false, HEADER_BYTES, 900)
  t.is(next, HEADER_BYTES + 32)
  t.is(message.bytes.toString('hex', HEADER_BYTES + 24, HEADER_BYTES + 32), 'c3a4620000000000')
  t.like(protocol.DIRENT_OUT.read(message.view, HEADER_BYTES), { direntIno: 7, off: 3, namelen: 3, type: 8 })
  t.is(encode.listed(message, listed, true, HEADER_BYTES, HEADER_BYTES + 159), undefined)
})
