/**
 * The tree: POSIX rules for names, attributes and handles over the session's namespace and the file images. Requests
 * name inodes and handles; permission bits and the sticky bit are the kernel's business (default_permissions).
 *
 * Invariants:
 * 1. The namespace changes only by session.record(), one call per operation: all of it happens or nothing.
 * 2. What lives only here - handles, orphans, unrecorded write times - may be lost with the process: recovery forgets
 *    inodes without a name, and write times count from the next flush, fsync or release.
 * 3. A failure is a PosixError. Answers that need no waiting are given synchronously.
 * 4. After an await the inode is looked up again: it may have lost its name or its last handle meanwhile.
 *
 * atime changes only when it is set: a record for every read would be a write for every read.
 */
import { constants } from 'node:fs'
import { errnoOf, PosixError } from '../base/errors.js'
import { FILE_BYTES_MAX, LINKS_MAX, PAGE_BYTES, toFileTime, type InodeId } from '../base/units.js'
import type { FileImage, MayGiveUp } from '../image/port.js'
import type { ChangeRecord, FileType, Inode } from '../session/namespace-types.js'
import { attributesOf, PERMISSION_BITS, typeOfMode, type Attributes } from './attributes.js'
import { DirectoryListing, type DirectoryEntry } from './directory-listing.js'
import { Handles } from './handles.js'
import { checkName, checkNewName, checkTarget } from './names.js'
import type { TreeSession } from './port.js'
import { changed, created, linked, removed, touched, type AttributeChanges, type Creation } from './records.js'
import { renameRecords } from './rename.js'

const O_ACCMODE = 3
const O_TRUNC = 0o1000
const ENTRIES_PER_READ = 256

export interface TreeOptions {
  readonly readOnly: boolean
  /** the kernel keeps written pages, and owns size and mtime of open files */
  readonly writeback: boolean
  /** nanoseconds since the epoch */
  readonly now?: () => bigint
  /** whether a process has a file of this name mapped, '' for any file; without it every reader waits for the share */
  readonly isMapped?: (name: string) => Promise<boolean>
}

/** undefined leaves an attribute as it is. */
export interface AttributeRequest {
  readonly mode?: number | undefined
  readonly uid?: number | undefined
  readonly gid?: number | undefined
  readonly sizeBytes?: number | undefined
  readonly atimeNs?: bigint | 'now' | undefined
  readonly mtimeNs?: bigint | 'now' | undefined
}

export interface FileSystemSpace {
  readonly blockBytes: number
  readonly totalBytes: number
  readonly freeBytes: number
  readonly totalInodes: number
  readonly freeInodes: number
  readonly nameBytesMax: number
}

export class Tree {
  readonly #session: TreeSession
  readonly #image: FileImage
  readonly #options: TreeOptions
  readonly #now: () => bigint
  readonly #handles = new Handles()
  /** time of writes that no record tells of yet (only without writeback) */
  readonly #writtenNs = new Map<InodeId, bigint>()
  /** how often the transport was told of an inode and has not forgotten it; only transports that count by inode */
  readonly #remembered = new Map<InodeId, number>()
  /** inodes whose last use went while the journal could not take the record */
  readonly #unforgotten = new Set<InodeId>()

  constructor(session: TreeSession, image: FileImage, options: TreeOptions) {
    this.#session = session
    this.#image = image
    this.#options = options
    // Milliseconds, as fine as the kernel's own file times: finer ones would make a file older than its directory.
    this.#now = options.now ?? (() => BigInt(Date.now()) * 1_000_000n)
  }

  /** number of open files and directories */
  get openHandles(): number {
    return this.#handles.size
  }

  isOpen(inode: InodeId): boolean {
    return this.#handles.isOpen(inode)
  }

  /** The transport's kernel knows this inode once more: it stays, also without a name, until it is forgotten as often. */
  remember(id: InodeId): void {
    this.#remembered.set(id, (this.#remembered.get(id) ?? 0) + 1)
  }

  forget(id: InodeId, count: number): void {
    const remembered = this.#remembered.get(id)
    if (remembered === undefined) return
    if (remembered > count) {
      this.#remembered.set(id, remembered - count)
      return
    }
    this.#remembered.delete(id)
    if (!this.#isUsed(id)) this.#forgetIfNameless(id)
  }

  // Names

  lookup(parent: InodeId, name: string): Attributes {
    return this.#attributes(this.#child(this.#directory(parent), name))
  }

  readlink(id: InodeId): string {
    const inode = this.#inode(id)
    if (inode.type !== 'symlink') throw new PosixError('EINVAL')
    return inode.target
  }

  /** A regular file; EEXIST when the name is taken. Opening it is another request. */
  create(parent: InodeId, name: string, creation: Creation): Attributes {
    return this.#create('file', parent, name, creation)
  }

  mkdir(parent: InodeId, name: string, creation: Creation): Attributes {
    return this.#create('directory', parent, name, creation)
  }

  /** `mode` has the type bits: regular file, fifo, socket or device. */
  mknod(parent: InodeId, name: string, creation: Creation & { readonly rdev: number }): Attributes {
    const type = typeOfMode(creation.mode)
    if (type === 'directory') throw new PosixError('EPERM')
    if (type === undefined || type === 'symlink') throw new PosixError('EINVAL')
    const isDevice = type === 'character-device' || type === 'block-device'
    return this.#create(type, parent, name, creation, { rdev: isDevice ? creation.rdev : 0 })
  }

  symlink(parent: InodeId, name: string, creation: Creation & { readonly target: string }): Attributes {
    checkTarget(creation.target)
    return this.#create('symlink', parent, name, { ...creation, mode: 0o777 }, { target: creation.target })
  }

  /** One more name for a file that has one. */
  link(id: InodeId, newParentId: InodeId, newName: string): Attributes {
    this.#requireWritable()
    const inode = this.#inode(id)
    const newParent = this.#directory(newParentId)
    checkNewName(newName)
    if (inode.type === 'directory') throw new PosixError('EPERM')
    if (inode.parent === 0) throw new PosixError('ENOENT')
    if (this.#session.namespace.child(newParent, newName) !== undefined) throw new PosixError('EEXIST')
    if (inode.otherNames.length >= LINKS_MAX - 1) throw new PosixError('EMLINK')
    this.#image.requireSpace(PAGE_BYTES)
    this.#record(...linked(inode, newParent, newName, this.#now()))
    return this.#attributes(inode)
  }

  unlink(parent: InodeId, name: string): void {
    this.#requireWritable()
    const directory = this.#directory(parent)
    const inode = this.#child(directory, name)
    if (inode.type === 'directory') throw new PosixError('EISDIR')
    this.#remove(directory, inode, name)
  }

  rmdir(parent: InodeId, name: string): void {
    this.#requireWritable()
    const directory = this.#directory(parent)
    if (name === '.') throw new PosixError('EINVAL')
    if (name === '..') throw new PosixError('ENOTEMPTY')
    const inode = this.#child(directory, name)
    if (inode.children === undefined) throw new PosixError('ENOTDIR')
    if (inode.children.size > 0) throw new PosixError('ENOTEMPTY')
    this.#remove(directory, inode, name)
  }

  rename(parentId: InodeId, name: string, newParentId: InodeId, newName: string, flags: number): void {
    this.#requireWritable()
    const parent = this.#directory(parentId)
    const newParent = this.#directory(newParentId)
    const source = this.#child(parent, name)
    checkNewName(newName)
    const target = this.#session.namespace.child(newParent, newName)
    const targetIsUsed = target !== undefined && this.#isUsed(target.id)
    const rename = { source, parent, name, newParent, newName, target, flags, targetIsUsed, nowNs: this.#now() }
    const records = renameRecords(rename, (id) => this.#session.namespace.get(id))
    if (records.length > 0) this.#record(...records)
    if (target !== undefined && this.#session.namespace.get(target.id) === undefined) this.#writtenNs.delete(target.id)
  }

  // Attributes

  getattr(id: InodeId): Attributes {
    return this.#attributes(this.#inode(id))
  }

  /** A change of size goes to the image first, which records it; the other attributes are one record. */
  setattr(id: InodeId, request: AttributeRequest): Attributes | Promise<Attributes> {
    this.#requireWritable()
    const { sizeBytes } = request
    if (sizeBytes === undefined) return this.#setAttributes(id, request)
    const inode = this.#inode(id)
    if (inode.type === 'directory') throw new PosixError('EISDIR')
    if (inode.type !== 'file' || sizeBytes < 0) throw new PosixError('EINVAL')
    if (sizeBytes > FILE_BYTES_MAX) throw new PosixError('EFBIG')
    const sizeChanges = sizeBytes !== inode.sizeBytes
    if (sizeBytes > inode.sizeBytes) this.#image.requireSpace(PAGE_BYTES)
    const truncated = sizeChanges ? this.#image.truncate(inode, sizeBytes) : undefined
    // ftruncate(2) to the same size marks both times as well.
    const finish = () => this.#setAttributes(id, { ...request, mtimeNs: request.mtimeNs ?? 'now' })
    return truncated instanceof Promise ? truncated.then(finish) : finish()
  }

  statfs(): FileSystemSpace {
    const { totalBytes, freeBytes } = this.#image.space()
    const totalInodes = 2 ** 31
    return {
      blockBytes: PAGE_BYTES,
      totalBytes,
      freeBytes: this.#options.readOnly ? 0 : freeBytes,
      totalInodes,
      freeInodes: this.#options.readOnly ? 0 : Math.max(0, totalInodes - this.#session.namespace.nextInode),
      nameBytesMax: 255
    }
  }

  // Files

  /** `flags` as in open(2); O_APPEND and O_EXCL are the kernel's. Answers a handle. */
  open(id: InodeId, flags: number): number | Promise<number> {
    const inode = this.#file(id)
    const writable = (flags & O_ACCMODE) !== 0
    const direct = (flags & constants.O_DIRECT) !== 0
    if (writable) {
      this.#requireWritable()
      this.#image.requireSpace(0)
    }
    if (!writable || (flags & O_TRUNC) === 0) return this.#handles.add({ kind: 'file', inode: id, writable, direct })
    // The handle comes first: it keeps the inode while the truncation waits.
    const handle = this.#handles.add({ kind: 'file', inode: id, writable, direct })
    return this.#orRelease(handle, () => {
      const truncated =
        inode.sizeBytes === 0 ? this.#setAttributes(id, { mtimeNs: 'now' }) : this.setattr(id, { sizeBytes: 0 })
      return truncated instanceof Promise ? truncated.then(() => handle) : handle
    })
  }

  /** Short only at the end of the file. Any handle reads: with writeback the kernel reads through write-only ones. */
  read(handle: number, into: Buffer, offset: number): number | Promise<number> {
    const inode = this.#openFile(handle)
    if (offset >= inode.sizeBytes || into.length === 0) return 0
    const mayBeForWrite = into.length <= PAGE_BYTES && this.#handles.isWritable(handle)
    const count = this.#image.read(inode, into, offset, this.#mayGiveUp(handle, inode), mayBeForWrite)
    if (typeof count === 'number') return wholeRead(inode, count, into.length, offset)
    return count.then((bytes) => wholeRead(inode, bytes, into.length, offset))
  }

  /**
   * Readers that only read may be told that the share is away. With O_DIRECT the error would reach the program at once,
   * where the kernel otherwise asks again for what is there.
   */
  #mayGiveUp(number: number, inode: Inode): MayGiveUp | undefined {
    const handle = this.#handles.get(number)
    const { isMapped } = this.#options
    if (isMapped === undefined || handle.kind !== 'file' || handle.direct) return undefined
    // One of several names does not tell: then whatever is mapped of the mount counts.
    const name = (): string => (inode.otherNames.length === 0 ? inode.name : '')
    return async () => !this.#handles.isOpenForWriting(inode.id) && !(await isMapped(name()))
  }

  /** `isGivenUp`: whoever writes is being killed, and waits no longer. */
  write(handle: number, bytes: Buffer, offset: number, isGivenUp?: () => boolean): number | Promise<number> {
    this.#requireWritable()
    const inode = this.#openFile(handle)
    if (offset + bytes.length > FILE_BYTES_MAX) throw new PosixError('EFBIG')
    const written = this.#image.write(inode, bytes, offset, isGivenUp)
    if (this.#options.writeback) return written
    if (!(written instanceof Promise)) return this.#wrote(inode.id, written)
    return written.then((count) => this.#wrote(inode.id, count))
  }

  /** close(2) of one descriptor; the handle may have others. */
  flush(handle: number): void {
    this.#recordWriteTime(this.#handles.get(handle).inode)
  }

  fsync(handle: number, _dataOnly: boolean): Promise<void> {
    const inode = this.#openFile(handle)
    this.#recordWriteTime(inode.id)
    return this.#image.sync(inode)
  }

  /** `mode` is Linux's FALLOC_FL_* bits. */
  fallocate(handle: number, mode: number, offset: number, lengthBytes: number): void | Promise<void> {
    this.#requireWritable()
    const inode = this.#openFile(handle)
    if (offset < 0 || lengthBytes <= 0) throw new PosixError('EINVAL')
    if (offset + lengthBytes > FILE_BYTES_MAX) throw new PosixError('EFBIG')
    const done = this.#image.fallocate(inode, mode, offset, lengthBytes)
    const finish = () => void this.#setAttributes(inode.id, { mtimeNs: 'now' })
    if (done instanceof Promise) return done.then(finish)
    finish()
  }

  /**
   * SEEK_DATA and SEEK_HOLE. While somebody has the file open for writing the kernel may hold pages, and a size, that
   * nobody has told us: everything up to our size counts as data, and past it only the kernel can answer. ENOSYS makes
   * it do so (and, from then on, for every file of this mount: no holes are found any more, no byte is lost).
   */
  seek(handle: number, offset: number, whence: 'data' | 'hole'): number | Promise<number> {
    const inode = this.#openFile(handle)
    const mayHaveUnflushedPages = this.#handles.isOpenForWriting(inode.id)
    if (mayHaveUnflushedPages && offset >= inode.sizeBytes) throw new PosixError('ENOSYS')
    if (offset < 0 || offset >= inode.sizeBytes) throw new PosixError('ENXIO')
    return this.#image.seek(inode, offset, whence, mayHaveUnflushedPages)
  }

  /** Never fails for a known handle: nobody would hear of it. */
  release(handle: number): void {
    const { inode: id } = this.#handles.remove(handle)
    if (this.#handles.isOpen(id)) return
    try {
      this.#recordWriteTime(id)
    } catch (error) {
      if (errnoOf(error) === undefined) throw error
    }
    if (!this.#isUsed(id)) this.#forgetIfNameless(id)
  }

  /** The mount has ended: the kernel does not send every RELEASE and FORGET that it owes. */
  releaseAll(): void {
    for (const handle of this.#handles.numbers()) this.release(handle)
    for (const id of this.#remembered.keys()) this.forget(id, Infinity)
  }

  // Directories

  opendir(id: InodeId): number {
    this.#directory(id, { evenUnlinked: true })
    return this.#handles.add({ kind: 'directory', inode: id, listing: new DirectoryListing() })
  }

  readdir(handle: number, offset: number): DirectoryEntry[] {
    const open = this.#handles.get(handle)
    if (open.kind !== 'directory') throw new PosixError('ENOTDIR')
    return open.listing.read(this.#inode(open.inode), this.#session.namespace, offset, ENTRIES_PER_READ)
  }

  releasedir(handle: number): void {
    this.release(handle)
  }

  fsyncdir(handle: number): Promise<void> {
    return this.#image.sync(this.#inode(this.#handles.get(handle).inode))
  }

  #create(
    type: FileType,
    parentId: InodeId,
    name: string,
    creation: Creation,
    special: { readonly rdev?: number; readonly target?: string } = {}
  ): Attributes {
    this.#requireWritable()
    const parent = this.#directory(parentId)
    checkNewName(name)
    if (this.#session.namespace.child(parent, name) !== undefined) throw new PosixError('EEXIST')
    this.#image.requireSpace(PAGE_BYTES)
    const id = this.#session.namespace.allocateInode()
    const permissions = { ...creation, mode: creation.mode & PERMISSION_BITS }
    this.#record(...created(id, type, parent, name, permissions, this.#now(), special))
    return this.#attributes(this.#inode(id))
  }

  #remove(directory: Inode, inode: Inode, name: string): void {
    const nowNs = this.#now()
    const place = { parent: directory.id, name }
    this.#record(...removed(inode, place, this.#isUsed(inode.id), nowNs), touched(directory, nowNs))
    if (this.#session.namespace.get(inode.id) === undefined) this.#writtenNs.delete(inode.id)
  }

  #setAttributes(id: InodeId, request: AttributeRequest): Attributes {
    const inode = this.#inode(id)
    const nowNs = this.#now()
    const written = this.#writtenNs.get(id)
    const time = (value: bigint | 'now' | undefined, old: bigint) =>
      value === 'now' ? nowNs : value === undefined ? old : toFileTime(value)
    const changes: AttributeChanges = {
      mode: request.mode === undefined ? inode.mode : request.mode & PERMISSION_BITS,
      uid: request.uid ?? inode.uid,
      gid: request.gid ?? inode.gid,
      atimeNs: time(request.atimeNs, inode.atimeNs),
      mtimeNs: time(request.mtimeNs, written ?? inode.mtimeNs),
      ctimeNs: nowNs
    }
    this.#record(changed(inode, changes))
    this.#writtenNs.delete(id)
    return this.#attributes(this.#inode(id))
  }

  #wrote(id: InodeId, count: number): number {
    this.#writtenNs.set(id, this.#now())
    return count
  }

  #recordWriteTime(id: InodeId): void {
    const writtenNs = this.#writtenNs.get(id)
    const inode = this.#session.namespace.get(id)
    if (writtenNs === undefined || inode === undefined) return
    this.#record(changed(inode, { mtimeNs: writtenNs, ctimeNs: writtenNs }))
    this.#writtenNs.delete(id)
  }

  #isUsed(id: InodeId): boolean {
    return this.#handles.isOpen(id) || this.#remembered.has(id)
  }

  /** Also those of earlier times, when the journal had no room for their record. */
  #forgetIfNameless(id: InodeId): void {
    if (this.#session.namespace.get(id)?.parent === 0) this.#unforgotten.add(id)
    for (const orphan of this.#unforgotten) {
      try {
        if (this.#session.namespace.get(orphan)?.parent === 0) this.#record({ kind: 'forget', inode: orphan })
      } catch (error) {
        if (errnoOf(error) === undefined) throw error
        return
      }
      this.#unforgotten.delete(orphan)
      this.#writtenNs.delete(orphan)
    }
  }

  #orRelease<Result>(handle: number, action: () => Result | Promise<Result>): Result | Promise<Result> {
    const undo = (error: unknown): never => {
      this.release(handle)
      throw error
    }
    try {
      const result = action()
      return result instanceof Promise ? result.catch(undo) : result
    } catch (error) {
      return undo(error)
    }
  }

  #record(...records: ChangeRecord[]): void {
    this.#session.record(...records)
  }

  #attributes(inode: Inode): Attributes {
    const allocatedBytes = inode.type === 'file' ? this.#image.allocatedBytes(inode) : 0
    return attributesOf(inode, allocatedBytes, this.#writtenNs.get(inode.id))
  }

  #inode(id: InodeId): Inode {
    const inode = this.#session.namespace.get(id)
    if (inode === undefined) throw new PosixError('ESTALE')
    return inode
  }

  #child(directory: Inode, name: string): Inode {
    checkName(name)
    const inode = this.#session.namespace.child(directory, name)
    if (inode === undefined) throw new PosixError('ENOENT')
    return inode
  }

  /** A directory that has a name: nothing is found or made in a removed one. */
  #directory(id: InodeId, { evenUnlinked = false } = {}): Inode {
    const inode = this.#inode(id)
    if (inode.type !== 'directory') throw new PosixError('ENOTDIR')
    if (inode.parent === 0 && !evenUnlinked) throw new PosixError('ENOENT')
    return inode
  }

  #file(id: InodeId): Inode {
    const inode = this.#inode(id)
    if (inode.type === 'directory') throw new PosixError('EISDIR')
    if (inode.type !== 'file') throw new PosixError(inode.type === 'symlink' ? 'ELOOP' : 'ENXIO')
    return inode
  }

  #openFile(handle: number): Inode {
    const open = this.#handles.get(handle)
    if (open.kind !== 'file') throw new PosixError('EISDIR')
    return this.#inode(open.inode)
  }

  #requireWritable(): void {
    if (this.#options.readOnly) throw new PosixError('EROFS')
  }
}

/** The kernel fills what is missing with zeros and serves them as data: short is right at the end of the file only. */
function wholeRead(inode: Inode, count: number, wanted: number, offset: number): number {
  if (count < wanted && offset + count < inode.sizeBytes) throw new PosixError('EIO', 'a read was short before the end')
  return count
}
