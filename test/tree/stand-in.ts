/**
 * A session and file images in memory, for tests of the tree and the transports: records are applied as the contract
 * of namespace-types.ts says, bytes lie in sparse 4 KiB pages.
 */
import { PosixError } from '../../src/base/errors.js'
import { FILE_BYTES_MAX, PAGE_BYTES, ROOT_INODE, toInodeId, type InodeId } from '../../src/base/units.js'
import type { FileImage } from '../../src/image/port.js'
import type { ChangeRecord, Inode } from '../../src/session/namespace-types.js'
import type { TreeNamespace, TreeSession } from '../../src/tree/port.js'

export class MemoryNamespace implements TreeNamespace {
  nextInode = 2
  readonly inodes = new Map<InodeId, Inode>()

  constructor() {
    this.apply({
      kind: 'inode',
      inode: ROOT_INODE,
      type: 'directory',
      mode: 0o755,
      uid: 0,
      gid: 0,
      atimeNs: 0n,
      mtimeNs: 0n,
      ctimeNs: 0n,
      rdev: 0,
      target: ''
    })
    this.inodes.get(ROOT_INODE)!.parent = ROOT_INODE
  }

  get(id: InodeId): Inode | undefined {
    return this.inodes.get(id)
  }

  child(parent: Inode, name: string): Inode | undefined {
    const id = parent.children?.get(name)
    return id === undefined ? undefined : this.inodes.get(id)
  }

  allocateInode(): InodeId {
    return toInodeId(this.nextInode++)
  }

  apply(record: ChangeRecord): void {
    switch (record.kind) {
      case 'inode': {
        const { kind: _kind, inode: id, type, rdev, target, ...attributes } = record
        const inode = this.inodes.get(id)
        if (inode !== undefined) return void Object.assign(inode, attributes)
        const parent = toInodeId(0)
        const children = type === 'directory' ? new Map<string, InodeId>() : undefined
        const rest = { sizeBytes: 0, base: undefined, baseLimitBytes: 0, regions: new Map() }
        const links = { parent, name: '', children, subdirectories: 0 }
        return void this.inodes.set(id, { id, type, rdev, target, ...attributes, ...links, ...rest })
      }
      case 'link': {
        const parent = this.inodes.get(record.parent)!
        const inode = this.inodes.get(record.inode)!
        if (inode.parent !== 0 || parent.children!.has(record.name)) throw new Error('link of something linked')
        parent.children!.set(record.name, record.inode)
        if (inode.type === 'directory') parent.subdirectories++
        inode.parent = parent.id
        inode.name = record.name
        return
      }
      case 'unlink': {
        const parent = this.inodes.get(record.parent)!
        const inode = this.child(parent, record.name)!
        parent.children!.delete(record.name)
        if (inode.type === 'directory') parent.subdirectories--
        inode.parent = toInodeId(0)
        inode.name = ''
        return
      }
      case 'forget':
        if (this.inodes.get(record.inode)?.parent !== 0) throw new Error('forget of something linked')
        return void this.inodes.delete(record.inode)
      case 'size':
        this.inodes.get(record.inode)!.sizeBytes = record.sizeBytes
        return
      default:
        throw new Error(`not for the tree: ${record.kind}`)
    }
  }
}

export class MemorySession implements TreeSession {
  readonly namespace = new MemoryNamespace()
  /** every unit that was recorded */
  readonly units: ChangeRecord[][] = []
  /** when set, the next units fail with it */
  failure: PosixError | undefined

  record(...records: ChangeRecord[]): void {
    if (this.failure !== undefined) throw this.failure
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
