/**
 * The binding's operations over the tree. Each translates and calls; rules live in the tree. With nullPathOk the
 * operations on open files get no path, so those that come in both forms prefer the handle.
 */
import { PosixError } from '../base/errors.js'
import type { InodeId } from '../base/units.js'
import type { AttributeRequest } from '../tree/tree.js'
import {
  fromOwner,
  fromTimespec,
  fromWide,
  statsOf,
  type DoneCallback,
  type Stats,
  type Timespec,
  type ValueCallback,
  type WideNumber
} from './binding-types.js'
import { isHiddenName, Paths } from './paths.js'
import type { FileSystem } from './port.js'
import type { RunningOperations } from './running-operations.js'

const SEEK_DATA = 3
const SEEK_HOLE = 4

/** Who asks; known while an operation starts. */
export interface Caller {
  readonly uid: number
  readonly gid: number
}

type OptionalPath = string | null

/** What the binding's `operations` argument needs, but for init and destroy, which belong to the transport. */
export type Operations = ReturnType<typeof createOperations>

export function createOperations(tree: FileSystem, running: RunningOperations, caller: () => Caller) {
  const paths = new Paths(tree)
  /** open handles: which inode an operation with a handle and no path means */
  const inodes = new Map<number, InodeId>()

  const inodeOf = (path: OptionalPath, handle?: WideNumber): InodeId => {
    const open = handle === undefined ? undefined : inodes.get(Number(handle))
    if (open !== undefined) return open
    if (path === null) throw new PosixError('EBADF')
    return paths.inodeAt(path)
  }

  const opened = (inode: InodeId, handle: number): number => {
    inodes.set(handle, inode)
    return handle
  }

  const released = (handle: WideNumber): void => {
    const number = Number(handle)
    const inode = inodes.get(number)
    inodes.delete(number)
    tree.release(number)
    if (inode !== undefined && !tree.isOpen(inode)) paths.reveal(inode)
  }

  const open = (path: string, flags: number): number | Promise<number> => {
    const inode = paths.inodeAt(path)
    const handle = tree.open(inode, flags)
    return handle instanceof Promise ? handle.then((number) => opened(inode, number)) : opened(inode, handle)
  }

  const creation = (mode: number) => {
    const { uid, gid } = caller()
    return { mode, uid, gid }
  }

  const setattr = (
    operation: string,
    path: OptionalPath,
    handle: WideNumber | undefined,
    request: () => AttributeRequest,
    callback: DoneCallback
  ): void =>
    nothing(operation, callback, () => {
      const attributes = tree.setattr(inodeOf(path, handle), request())
      if (attributes instanceof Promise) return attributes.then(() => undefined)
    })

  /** Unlinking an open file arrives as a rename to a hidden name, see paths.ts. */
  const rename = (source: string, target: string, flags: number): void => {
    const from = paths.placeOf(source)
    const to = paths.placeOf(target)
    if (isHiddenName(to.name)) {
      if (flags !== 0) throw new PosixError('EPERM', 'the name is reserved')
      const attributes = tree.lookup(from.parent, from.name)
      if (attributes.type === 'directory') throw new PosixError('EPERM', 'the name is reserved')
      tree.unlink(from.parent, from.name)
      if (tree.isOpen(attributes.inode)) paths.hide(to, attributes.inode)
      return
    }
    tree.rename(from.parent, from.name, to.parent, to.name, flags)
  }

  const unlink = (path: string): void => {
    const place = paths.placeOf(path)
    const hidden = paths.hiddenAt(place)
    if (hidden !== undefined) paths.reveal(hidden)
    else if (isHiddenName(place.name)) ignoringAbsence(() => tree.unlink(place.parent, place.name))
    else tree.unlink(place.parent, place.name)
  }

  const placeForNew = (path: string) => {
    const place = paths.placeOf(path)
    if (isHiddenName(place.name)) throw new PosixError('EPERM', 'the name is reserved')
    return place
  }

  const nothing = (operation: string, callback: DoneCallback, action: () => void | Promise<void>): void =>
    running.run(operation, { done: () => callback(0), failed: (errno) => callback(-errno) }, action)

  const value = <Value>(
    operation: string,
    callback: ValueCallback<Value>,
    action: () => Value | Promise<Value>
  ): void =>
    running.run(operation, { done: (result) => callback(0, result), failed: (errno) => callback(-errno) }, action)

  const count = (operation: string, callback: DoneCallback, action: () => number | Promise<number>): void =>
    running.run(operation, { done: callback, failed: (errno) => callback(-errno) }, action)

  return {
    getattr: (path: OptionalPath, callback: ValueCallback<Stats>) =>
      value('getattr', callback, () => statsOf(tree.getattr(inodeOf(path)))),
    fgetattr: (path: OptionalPath, handle: WideNumber, callback: ValueCallback<Stats>) =>
      value('getattr', callback, () => statsOf(tree.getattr(inodeOf(path, handle)))),
    truncate: (path: OptionalPath, size: WideNumber, callback: DoneCallback) =>
      setattr('truncate', path, undefined, () => ({ sizeBytes: fromWide(size) }), callback),
    ftruncate: (path: OptionalPath, handle: WideNumber, size: WideNumber, callback: DoneCallback) =>
      setattr('truncate', path, handle, () => ({ sizeBytes: fromWide(size) }), callback),
    chmodWithHandle: (path: OptionalPath, handle: WideNumber, mode: number, callback: DoneCallback) =>
      setattr('chmod', path, handle, () => ({ mode }), callback),
    chownWithHandle: (path: OptionalPath, handle: WideNumber, uid: number, gid: number, callback: DoneCallback) =>
      setattr('chown', path, handle, () => ({ uid: fromOwner(uid), gid: fromOwner(gid) }), callback),
    utimensWithHandle: (
      path: OptionalPath,
      handle: WideNumber,
      atime: Timespec,
      mtime: Timespec,
      callback: DoneCallback
    ) =>
      setattr(
        'utimens',
        path,
        handle,
        () => ({ atimeNs: fromTimespec(atime), mtimeNs: fromTimespec(mtime) }),
        callback
      ),

    readlink: (path: string, callback: ValueCallback<string>) =>
      value('readlink', callback, () => tree.readlink(paths.inodeAt(path))),
    mknod: (path: string, mode: number, device: WideNumber, callback: DoneCallback) =>
      nothing('mknod', callback, () => {
        const { parent, name } = placeForNew(path)
        tree.mknod(parent, name, { ...creation(mode), rdev: fromWide(device) })
      }),
    mkdir: (path: string, mode: number, callback: DoneCallback) =>
      nothing('mkdir', callback, () => {
        const { parent, name } = placeForNew(path)
        tree.mkdir(parent, name, creation(mode))
      }),
    symlink: (target: string, path: string, callback: DoneCallback) =>
      nothing('symlink', callback, () => {
        const { parent, name } = placeForNew(path)
        tree.symlink(parent, name, { ...creation(0o777), target })
      }),
    // To the kernel two paths are two files here, each with pages of its own: what is written to one would not be seen in the other.
    link: (_path: string, _newPath: string, callback: DoneCallback) =>
      nothing('link', callback, () => {
        throw new PosixError('EPERM', 'hard links need the direct transport')
      }),
    unlink: (path: string, callback: DoneCallback) => nothing('unlink', callback, () => unlink(path)),
    rmdir: (path: string, callback: DoneCallback) =>
      nothing('rmdir', callback, () => {
        const { parent, name } = paths.placeOf(path)
        tree.rmdir(parent, name)
      }),
    renameWithFlags: (source: string, target: string, flags: number, callback: DoneCallback) =>
      nothing('rename', callback, () => rename(source, target, flags)),

    createWithFlags: (path: string, mode: number, flags: number, callback: ValueCallback<number>) =>
      value('create', callback, () => {
        const { parent, name } = placeForNew(path)
        const { inode } = tree.create(parent, name, creation(mode))
        const handle = tree.open(inode, flags)
        return handle instanceof Promise ? handle.then((number) => opened(inode, number)) : opened(inode, handle)
      }),
    open: (path: string, flags: number, callback: ValueCallback<number>) =>
      value('open', callback, () => open(path, flags)),
    read: (
      _path: OptionalPath,
      handle: WideNumber,
      into: Buffer,
      length: number,
      offset: WideNumber,
      callback: DoneCallback
    ) =>
      count('read', callback, () =>
        tree.read(Number(handle), into.length === length ? into : into.subarray(0, length), fromWide(offset))
      ),
    write: (
      _path: OptionalPath,
      handle: WideNumber,
      bytes: Buffer,
      length: number,
      offset: WideNumber,
      callback: DoneCallback
    ) =>
      count('write', callback, () =>
        tree.write(Number(handle), bytes.length === length ? bytes : bytes.subarray(0, length), fromWide(offset))
      ),
    flush: (_path: OptionalPath, handle: WideNumber, callback: DoneCallback) =>
      nothing('flush', callback, () => tree.flush(Number(handle))),
    fsync: (_path: OptionalPath, dataOnly: boolean, handle: WideNumber, callback: DoneCallback) =>
      nothing('fsync', callback, () => tree.fsync(Number(handle), dataOnly)),
    release: (_path: OptionalPath, handle: WideNumber, callback: DoneCallback) =>
      nothing('release', callback, () => released(handle)),
    fallocate: (
      _path: OptionalPath,
      handle: WideNumber,
      mode: number,
      offset: WideNumber,
      length: WideNumber,
      callback: DoneCallback
    ) => nothing('fallocate', callback, () => tree.fallocate(Number(handle), mode, fromWide(offset), fromWide(length))),
    lseek: (
      _path: OptionalPath,
      handle: WideNumber,
      offset: WideNumber,
      whence: number,
      callback: ValueCallback<number>
    ) =>
      value('lseek', callback, () => {
        if (whence !== SEEK_DATA && whence !== SEEK_HOLE) throw new PosixError('EINVAL')
        return tree.seek(Number(handle), fromWide(offset), whence === SEEK_DATA ? 'data' : 'hole')
      }),

    opendir: (path: string, _flags: number, callback: ValueCallback<number>) =>
      value('opendir', callback, () => {
        const inode = paths.inodeAt(path)
        return opened(inode, tree.opendir(inode))
      }),
    readdirPaged: (
      _path: OptionalPath,
      handle: WideNumber,
      offset: WideNumber,
      callback: (result: number, names?: string[], stats?: Stats[], nextOffsets?: number[]) => void
    ) =>
      running.run(
        'readdir',
        {
          done: ({ names, stats, nextOffsets }) => callback(0, names, stats, nextOffsets),
          failed: (errno) => callback(-errno)
        },
        () => {
          const entries = tree.readdir(Number(handle), fromWide(offset))
          return {
            names: entries.map(({ name }) => name),
            stats: entries.map(({ inode }) => statsOf(tree.getattr(inode))),
            nextOffsets: entries.map(({ nextOffset }) => nextOffset)
          }
        }
      ),
    releasedir: (_path: OptionalPath, handle: WideNumber, callback: DoneCallback) =>
      nothing('releasedir', callback, () => released(handle)),
    fsyncdir: (_path: OptionalPath, _dataOnly: boolean, handle: WideNumber, callback: DoneCallback) =>
      nothing('fsyncdir', callback, () => tree.fsyncdir(Number(handle))),

    statfs: (_path: string, callback: ValueCallback<Record<string, number>>) =>
      value('statfs', callback, () => {
        const space = tree.statfs()
        const freeBlocks = Math.floor(space.freeBytes / space.blockBytes)
        return {
          bsize: space.blockBytes,
          frsize: space.blockBytes,
          blocks: Math.floor(space.totalBytes / space.blockBytes),
          bfree: freeBlocks,
          bavail: freeBlocks,
          files: space.totalInodes,
          ffree: space.freeInodes,
          favail: space.freeInodes,
          namemax: space.nameBytesMax
        }
      })
  }
}

/** A hidden file's unlink has happened long ago; but an import may have brought a real file with such a name. */
function ignoringAbsence(unlink: () => void): void {
  try {
    unlink()
  } catch (error) {
    if (!(error instanceof PosixError && error.errno === 'ENOENT')) throw error
  }
}
