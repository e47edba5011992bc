/**
 * Change records as bytes. Numbers are little-endian; texts are UTF-8 with a two-byte length.
 *
 *     inode   1, u64 inode, u8 type, u16 mode, u32 uid, u32 gid, i64 atime, i64 mtime, i64 ctime, u64 rdev, text target
 *     link    2, u64 parent, u64 inode, text name
 *     unlink  3, u64 parent, text name
 *     forget  4, u64 inode
 *     size    5, u64 inode, u64 size, u64 base limit
 *     punch   6, u64 inode, u64 first page, u64 page count
 *     pages   7, u64 inode, u32 region, u16 first page, u16 page count, u32 crc32 for each page
 *     uploaded 8, u64 inode, u32 region, u8 block count, for each u8 block of the region and uploaded-codec.ts
 *     link    9, as 2, of an inode that had a name when it was made (link(2))
 *
 * Number 9 says no more than 2 would. It keeps an isrfs that knows of one name only from a session with hard links: to that
 * one the removal of any name would be the removal of the file. It refuses the number.
 *
 * Decoding checks that a field can be what it says; whether the record fits the namespace is asserted when it is applied.
 */
import { BLOCKS_PER_REGION, type InodeId, PAGES_PER_REGION, toInodeId } from '../base/units.js'
import { type ByteReader, type ByteWriter, DamageError } from './bytes.js'
import type { ChangeRecord, FileType, UploadedBlock } from './namespace-types.js'
import { decodeUploaded, encodeUploaded } from './uploaded-codec.js'

const TAGS = { inode: 1, link: 2, unlink: 3, forget: 4, size: 5, punch: 6, pages: 7, uploaded: 8, hardLink: 9 } as const

/** The position is the number on disk: append only. */
const FILE_TYPES: readonly FileType[] = [
  'file',
  'directory',
  'symlink',
  'fifo',
  'socket',
  'character-device',
  'block-device'
]

/** Region file descriptors are cached under inode * 2^20 + region, which must be a safe integer. */
export const INODE_ID_MAX = 2 ** 33 - 1

export function encodeRecord(writer: ByteWriter, record: ChangeRecord): void {
  switch (record.kind) {
    case 'inode':
      writer.u8(TAGS.inode)
      writer.u64(record.inode)
      writer.u8(fileTypeNumber(record.type))
      writer.u16(record.mode)
      writer.u32(record.uid)
      writer.u32(record.gid)
      writer.i64(record.atimeNs)
      writer.i64(record.mtimeNs)
      writer.i64(record.ctimeNs)
      writer.u64(record.rdev)
      writer.text(record.target)
      return
    case 'link':
      writer.u8(record.hardLink === true ? TAGS.hardLink : TAGS.link)
      writer.u64(record.parent)
      writer.u64(record.inode)
      writer.text(record.name)
      return
    case 'unlink':
      writer.u8(TAGS.unlink)
      writer.u64(record.parent)
      writer.text(record.name)
      return
    case 'forget':
      writer.u8(TAGS.forget)
      writer.u64(record.inode)
      return
    case 'size':
      encodeSize(writer, record.inode, record.sizeBytes, record.baseLimitBytes)
      return
    case 'punch':
      writer.u8(TAGS.punch)
      writer.u64(record.inode)
      writer.u64(record.firstPage)
      writer.u64(record.pageCount)
      return
    case 'pages':
      encodePagesHead(writer, record.inode, record.region, record.firstPage, record.checksums.length)
      writer.words(record.checksums)
      return
    case 'uploaded':
      writer.u8(TAGS.uploaded)
      writer.u64(record.inode)
      writer.u32(record.region)
      writer.u8(record.blocks.size)
      for (const [block, uploaded] of record.blocks) {
        writer.u8(block)
        encodeUploaded(writer, uploaded)
      }
      return
  }
}

/** The write path has no record objects: it encodes from its arguments. */
export function encodeSize(writer: ByteWriter, inode: InodeId, sizeBytes: number, baseLimitBytes: number): void {
  writer.u8(TAGS.size)
  writer.u64(inode)
  writer.u64(sizeBytes)
  writer.u64(baseLimitBytes)
}

/** `pageCount` checksums (u32) must follow. */
export function encodePagesHead(
  writer: ByteWriter,
  inode: InodeId,
  region: number,
  firstPage: number,
  pageCount: number
): void {
  writer.u8(TAGS.pages)
  writer.u64(inode)
  writer.u32(region)
  writer.u16(firstPage)
  writer.u16(pageCount)
}

export function decodeRecord(reader: ByteReader): ChangeRecord {
  const tag = reader.u8()
  switch (tag) {
    case TAGS.inode:
      return {
        kind: 'inode',
        inode: readInodeId(reader),
        type: fileTypeOf(reader.u8()),
        mode: reader.u16(),
        uid: reader.u32(),
        gid: reader.u32(),
        atimeNs: reader.i64(),
        mtimeNs: reader.i64(),
        ctimeNs: reader.i64(),
        rdev: reader.u64(),
        target: reader.text()
      }
    case TAGS.link:
      return { kind: 'link', parent: readInodeId(reader), inode: readInodeId(reader), name: reader.text() }
    case TAGS.hardLink: {
      const parent = readInodeId(reader)
      return { kind: 'link', parent, inode: readInodeId(reader), name: reader.text(), hardLink: true }
    }
    case TAGS.unlink:
      return { kind: 'unlink', parent: readInodeId(reader), name: reader.text() }
    case TAGS.forget:
      return { kind: 'forget', inode: readInodeId(reader) }
    case TAGS.size:
      return { kind: 'size', inode: readInodeId(reader), sizeBytes: reader.u64(), baseLimitBytes: reader.u64() }
    case TAGS.punch:
      return { kind: 'punch', inode: readInodeId(reader), firstPage: reader.u64(), pageCount: reader.u64() }
    case TAGS.pages: {
      const inode = readInodeId(reader)
      const region = reader.u32()
      const firstPage = reader.u16()
      const count = reader.u16()
      if (firstPage + count > PAGES_PER_REGION) throw new DamageError('a page record passes the end of its region')
      return { kind: 'pages', inode, region, firstPage, checksums: reader.words(count) }
    }
    case TAGS.uploaded: {
      const inode = readInodeId(reader)
      const region = reader.u32()
      const blocks = new Map<number, UploadedBlock>()
      for (let count = reader.u8(); count > 0; count--) {
        const block = reader.u8()
        if (block >= BLOCKS_PER_REGION) throw new DamageError('an uploaded block passes the end of its region')
        blocks.set(block, decodeUploaded(reader))
      }
      return { kind: 'uploaded', inode, region, blocks }
    }
    default:
      throw new DamageError(`record type ${String(tag)} is unknown`)
  }
}

export function readInodeId(reader: ByteReader): InodeId {
  const value = reader.u64()
  if (value < 1 || value > INODE_ID_MAX) throw new DamageError('an inode number is out of range')
  return toInodeId(value)
}

export function fileTypeNumber(type: FileType): number {
  return FILE_TYPES.indexOf(type)
}

export function fileTypeOf(value: number): FileType {
  const type = FILE_TYPES[value]
  if (type === undefined) throw new DamageError(`file type ${String(value)} is unknown`)
  return type
}
