/**
 * A session and file images in memory, for tests of the tree and the transports: the namespace is the real one, nothing
 * is journalled, and bytes lie in sparse 4 KiB pages.
 */
import { PosixError } from '../../src/base/errors.js'
import { FILE_BYTES_MAX, PAGE_BYTES, ROOT_INODE, type InodeId } from '../../src/base/units.js'
import type { FileImage } from '../../src/image/port.js'
import { ByteWriter } from '../../src/session/bytes.js'
import { encodeRecord } from '../../src/session/record-codec.js'
import { Namespace, type BaseInode } from '../../src/session/namespace.js'
import type { ChangeRecord, Inode } from '../../src/session/namespace-types.js'
import type { TreeSession } from '../../src/tree/port.js'

/** What a VM without files looks like. */
const ROOT: BaseInode = {
  id: ROOT_INODE,
  type: 'directory',
  mode: 0o755,
  uid: 0,
  gid: 0,
  atimeNs: 0n,
  mtimeNs: 0n,
  ctimeNs: 0n,
  rdev: 0,
  target: '',
  parent: ROOT_INODE,
  name: '',
  sizeBytes: 0,
  base: undefined
}

export class MemorySession implements TreeSession {
  readonly namespace = new Namespace({ nextInode: 2, inodes: [ROOT] })
  /** every unit that was recorded */
  readonly units: ChangeRecord[][] = []
  readonly #writer = new ByteWriter(4096)
  /** when set, the next units fail with it */
  failure: PosixError | undefined

  record(...records: ChangeRecord[]): void {
    if (this.failure !== undefined) throw this.failure
    this.#writer.length = 0
    for (const record of records) encodeRecord(this.#writer, record) // nothing that a journal could not take
    this.units.push(records)
    for (const record of records) this.namespace.apply(record)
  }
}

const FALLOC_FL_KEEP_SIZE = 1
const FALLOC_FL_PUNCH_HOLE = 2
const FALLOC_FL_ZERO_RANGE = 16

export class MemoryImage implements FileImage {
  readonly #session: MemorySession
  readonly #pages = new Map<InodeId, Map<number, Buffer>>()
  readonly synced: InodeId[] = []
  freeBytes = 2 ** 40
  /** answers come as promises, as they do when blocks must be fetched */
  asynchronous = false

  constructor(session: MemorySession) {
    this.#session = session
  }

  read(inode: Inode, into: Buffer, offset: number): number | Promise<number> {
    const pages = this.#of(inode)
    const length = Math.max(0, Math.min(into.length, inode.sizeBytes - offset))
    for (const { page, start, position, bytes } of slices(offset, length)) {
      const source = pages.get(page)
      if (source === undefined) into.fill(0, position, position + bytes)
      else source.copy(into, position, start, start + bytes)
    }
    return this.#answer(length)
  }

  write(inode: Inode, bytes: Buffer, offset: number): number | Promise<number> {
    const pages = this.#of(inode)
    for (const slice of slices(offset, bytes.length)) {
      const target = pages.get(slice.page) ?? Buffer.alloc(PAGE_BYTES)
      pages.set(slice.page, target)
      bytes.copy(target, slice.start, slice.position, slice.position + slice.bytes)
    }
    if (offset + bytes.length > inode.sizeBytes) this.#resize(inode, offset + bytes.length)
    return this.#answer(bytes.length)
  }

  truncate(inode: Inode, sizeBytes: number): void | Promise<void> {
    const pages = this.#of(inode)
    for (const page of pages.keys()) if (page * PAGE_BYTES >= sizeBytes) pages.delete(page)
    pages.get(Math.floor(sizeBytes / PAGE_BYTES))?.fill(0, sizeBytes % PAGE_BYTES)
    this.#resize(inode, sizeBytes)
    return this.#answer(undefined)
  }

  fallocate(inode: Inode, mode: number, offset: number, lengthBytes: number): void {
    const keepSize = (mode & FALLOC_FL_KEEP_SIZE) !== 0
    const operation = mode & ~FALLOC_FL_KEEP_SIZE
    if (operation !== 0 && operation !== FALLOC_FL_PUNCH_HOLE && operation !== FALLOC_FL_ZERO_RANGE) {
      throw new PosixError('EOPNOTSUPP')
    }
    const end = offset + lengthBytes
    if (operation !== 0) {
      for (const { page, start, bytes } of slices(offset, lengthBytes)) {
        if (bytes === PAGE_BYTES) this.#of(inode).delete(page)
        else
          this.#of(inode)
            .get(page)
            ?.fill(0, start, start + bytes)
      }
    }
    if (!keepSize && end > inode.sizeBytes) this.#resize(inode, end)
  }

  seek(inode: Inode, offset: number, whence: 'data' | 'hole', mayHaveUnflushedPages: boolean): number {
    if (offset >= inode.sizeBytes) throw new PosixError('ENXIO')
    if (mayHaveUnflushedPages) return whence === 'data' ? offset : inode.sizeBytes
    const pages = this.#of(inode)
    for (let at = offset; at < inode.sizeBytes; at = (Math.floor(at / PAGE_BYTES) + 1) * PAGE_BYTES) {
      if (pages.has(Math.floor(at / PAGE_BYTES)) === (whence === 'data')) return at
    }
    if (whence === 'hole') return inode.sizeBytes
    throw new PosixError('ENXIO')
  }

  allocatedBytes(inode: Inode): number {
    return this.#of(inode).size * PAGE_BYTES
  }

  sync(inode: Inode): Promise<void> {
    this.synced.push(inode.id)
    return Promise.resolve()
  }

  requireSpace(bytes: number): void {
    if (bytes >= this.freeBytes) throw new PosixError('ENOSPC')
  }

  space(): { totalBytes: number; freeBytes: number } {
    return { totalBytes: FILE_BYTES_MAX, freeBytes: this.freeBytes }
  }

  #resize(inode: Inode, sizeBytes: number): void {
    this.#session.record({ kind: 'size', inode: inode.id, sizeBytes, baseLimitBytes: 0 })
  }

  #of(inode: Inode): Map<number, Buffer> {
    let pages = this.#pages.get(inode.id)
    if (pages === undefined) this.#pages.set(inode.id, (pages = new Map<number, Buffer>()))
    return pages
  }

  #answer<Value>(value: Value): Value | Promise<Value> {
    return this.asynchronous ? new Promise((resolve) => setImmediate(() => resolve(value))) : value
  }
}

/** The parts of a range, page by page. */
function* slices(offset: number, length: number) {
  for (let at = offset; at < offset + length;) {
    const start = at % PAGE_BYTES
    const bytes = Math.min(PAGE_BYTES - start, offset + length - at)
    yield { page: Math.floor(at / PAGE_BYTES), start, position: at - offset, bytes }
    at += bytes
  }
}
