/**
 * Snapshots: the whole state at the start of a journal, so that the journals before it can go. `snapshot-<n>` is
 * what base image and journals below n amount to. Written whole or not at all; its checksum covers everything.
 *
 *     "ISRFSNAP", u32 version, u32 salt, u64 next inode, u64 number of inodes, then for each inode:
 *       u64 id, u8 type, u8 has base, u16 mode, u32 uid, u32 gid, i64 atime, i64 mtime, i64 ctime, u64 rdev, u64 parent,
 *       u64 size, u64 base limit, text name, text target, u32 regions, then for each region:
 *         u32 index, u8 has holes, 512 bytes valid bits, 512 bytes hole bits if it has
 *       u32 uploaded blocks (not in version 1), then for each: u64 block, uploaded-codec.ts
 *       u32 other names (only in version 3), then for each: u64 parent, text name
 *     u32 crc32 of everything before
 *
 * Version 3 is written when a file has several names, else version 2: an isrfs that does not know of hard links goes on
 * with what has none, and refuses what it would take for something else.
 */
import { crc32 } from 'node:zlib'
import { bitWords } from '../base/bits.js'
import { type InodeId, PAGES_PER_REGION, toInodeId } from '../base/units.js'
import { ByteReader, ByteWriter, DamageError } from './bytes.js'
import type { BaseImage, BaseInode, Namespace } from './namespace.js'
import type { BaseFile, NamePlace, RegionPages, UploadedBlock } from './namespace-types.js'
import { fileTypeNumber, fileTypeOf, readInodeId } from './record-codec.js'
import { decodeUploaded, encodeUploaded } from './uploaded-codec.js'

const MAGIC = 'ISRFSNAP'
const VERSION_WITH_OTHER_NAMES = 3
const VERSION = 2
const VERSION_WITHOUT_UPLOADED = 1
const SALT_AND_COUNTS_BYTES = 4 + 8 + 8
const WORDS = bitWords(PAGES_PER_REGION)
const INITIAL_BYTES = 1024 * 1024

export function encodeSnapshot(namespace: Namespace, salt: number): Buffer {
  const writer = new ByteWriter(INITIAL_BYTES)
  const inodes = [...namespace.inodes()]
  const hasOtherNames = inodes.some(({ otherNames }) => otherNames.length > 0)
  writer.text(MAGIC)
  writer.u32(hasOtherNames ? VERSION_WITH_OTHER_NAMES : VERSION)
  writer.u32(salt)
  writer.u64(namespace.nextInode)
  writer.u64(inodes.length)
  for (const inode of inodes) {
    writer.u64(inode.id)
    writer.u8(fileTypeNumber(inode.type))
    writer.u8(inode.base === undefined ? 0 : 1)
    writer.u16(inode.mode)
    writer.u32(inode.uid)
    writer.u32(inode.gid)
    writer.i64(inode.atimeNs)
    writer.i64(inode.mtimeNs)
    writer.i64(inode.ctimeNs)
    writer.u64(inode.rdev)
    writer.u64(inode.parent)
    writer.u64(inode.sizeBytes)
    writer.u64(inode.baseLimitBytes)
    writer.text(inode.name)
    writer.text(inode.target)
    writer.u32(inode.regions.size)
    for (const [index, pages] of inode.regions) {
      writer.u32(index)
      writer.u8(pages.punched === undefined ? 0 : 1)
      writer.words(pages.valid)
      if (pages.punched !== undefined) writer.words(pages.punched)
    }
    writer.u32(inode.uploaded.size)
    for (const [block, uploaded] of inode.uploaded) {
      writer.u64(block)
      encodeUploaded(writer, uploaded)
    }
    if (!hasOtherNames) continue
    writer.u32(inode.otherNames.length)
    for (const { parent, name } of inode.otherNames) {
      writer.u64(parent)
      writer.text(name)
    }
  }
  writer.u32(crc32(writer.bytes.subarray(0, writer.length)))
  return Buffer.from(writer.bytes.subarray(0, writer.length))
}

/** The state of a snapshot as something a namespace can start from. Throws DamageError. */
export function decodeSnapshot(bytes: Buffer, salt: number, base: BaseImage): BaseImage {
  if (!hasChecksum(bytes)) throw new DamageError('its checksum is wrong')
  const reader = new ByteReader(bytes, 0, bytes.length - 4)
  if (reader.text() !== MAGIC) throw new DamageError('it is not a snapshot')
  const version = reader.u32()
  if (version < VERSION_WITHOUT_UPLOADED || version > VERSION_WITH_OTHER_NAMES)
    throw new DamageError(`it has version ${String(version)}, which this isrfs does not know`)
  if (reader.u32() !== salt) throw new DamageError('it is not a snapshot of this session')
  const files = baseFilesOf(base)
  const nextInode = reader.u64()
  const count = reader.u64()
  const inodes: BaseInode[] = []
  for (let index = 0; index < count; index++) inodes.push(readInode(reader, files, version))
  return { nextInode, inodes }
}

/** Whether its bytes are those that were written. */
export function hasChecksum(bytes: Buffer): boolean {
  return bytes.length >= 4 && crc32(bytes.subarray(0, -4)) === bytes.readUInt32LE(bytes.length - 4)
}

/** What can still be told of a snapshot whose checksum is wrong. Any field of any inode may be wrong. */
export interface DamagedSnapshot {
  /** those before the place where it makes no sense any more */
  readonly inodes: readonly BaseInode[]
  /** there was no such place */
  readonly isComplete: boolean
}

export function decodeDamagedSnapshot(bytes: Buffer, base: BaseImage): DamagedSnapshot {
  const files = baseFilesOf(base)
  const inodes: BaseInode[] = []
  try {
    const reader = new ByteReader(bytes, 0, bytes.length - 4)
    reader.text() // the magic
    const version = reader.u32()
    reader.raw(SALT_AND_COUNTS_BYTES)
    const known = version >= VERSION_WITHOUT_UPLOADED && version <= VERSION_WITH_OTHER_NAMES ? version : VERSION
    while (reader.at < reader.end) inodes.push(readInode(reader, files, known))
    return { inodes, isComplete: true }
  } catch {
    return { inodes, isComplete: false }
  }
}

function baseFilesOf(base: BaseImage): Map<InodeId, BaseFile | undefined> {
  const files = new Map<InodeId, BaseFile | undefined>()
  for (const inode of base.inodes) files.set(inode.id, inode.base)
  return files
}

function readInode(reader: ByteReader, files: ReadonlyMap<InodeId, BaseFile | undefined>, version: number): BaseInode {
  const id = readInodeId(reader)
  const type = fileTypeOf(reader.u8())
  const base = reader.u8() === 1 ? files.get(id) : undefined
  const attributes = {
    mode: reader.u16(),
    uid: reader.u32(),
    gid: reader.u32(),
    atimeNs: reader.i64(),
    mtimeNs: reader.i64(),
    ctimeNs: reader.i64(),
    rdev: reader.u64(),
    parent: toInodeId(reader.u64()),
    sizeBytes: reader.u64(),
    baseLimitBytes: reader.u64(),
    name: reader.text(),
    target: reader.text()
  }
  const regions = new Map<number, RegionPages>()
  const count = reader.u32()
  for (let index = 0; index < count; index++) {
    const region = reader.u32()
    const hasHoles = reader.u8() === 1
    const valid = reader.words(WORDS)
    regions.set(region, { valid, punched: hasHoles ? reader.words(WORDS) : undefined })
  }
  const uploaded = new Map<number, UploadedBlock>()
  const uploadedCount = version === VERSION_WITHOUT_UPLOADED ? 0 : reader.u32()
  for (let index = 0; index < uploadedCount; index++) uploaded.set(reader.u64(), decodeUploaded(reader))
  const otherNames: NamePlace[] = []
  const namesCount = version < VERSION_WITH_OTHER_NAMES ? 0 : reader.u32()
  for (let index = 0; index < namesCount; index++) otherNames.push({ parent: readInodeId(reader), name: reader.text() })
  return { id, type, base, regions, uploaded, otherNames, ...attributes }
}
