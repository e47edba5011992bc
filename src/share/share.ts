/**
 * One VM's directory on the share, as bytes: bounded reads of regular files, objects written once, and the exclusive
 * creation of a name. Knows nothing of what the bytes mean.
 *
 * Invariants:
 * 1. A final name never shows unfinished bytes: temporary name, write, fsync, close (each checked, NFS reports
 *    late), rename, fsync of the directory.
 * 2. The result of rename is never believed: a retransmitted request reports failure after success, so the target
 *    is looked at afterwards.
 * 3. Nothing is followed out of the directory: O_NOFOLLOW, and only regular files are read.
 */
import { randomBytes } from 'node:crypto'
import { constants } from 'node:fs'
import path from 'node:path'
import { errnoOf, IntegrityError, messageOf, ShareError } from '../base/errors.js'
import { nodeFileSystem, type ShareFileSystem } from './file-system.js'

export class Share {
  /** absolute path of the VM's directory */
  readonly root: string
  readonly #fs: ShareFileSystem

  constructor(root: string, fileSystem: ShareFileSystem = nodeFileSystem) {
    this.root = root
    this.#fs = fileSystem
  }

  pathOf(name: string): string {
    return path.join(this.root, name)
  }

  /** Whole content of a regular file of at most `bytesMax` bytes. ENOENT is a ShareError with that errno. */
  read(name: string, bytesMax: number): Buffer {
    const file = this.pathOf(name)
    return this.#withFile(file, constants.O_RDONLY, (fd) => {
      const { size } = this.#fs.fstatSync(fd)
      if (size > bytesMax) {
        throw new IntegrityError(`${file} has ${String(size)} bytes, more than the ${String(bytesMax)} it may have`)
      }
      return this.#readExactly(fd, file, 0, size)
    })
  }

  /** Exactly `length` bytes at `offset`; a file that is too short for them is damaged. */
  readRange(name: string, offset: number, length: number): Buffer {
    const file = this.pathOf(name)
    return this.#withFile(file, constants.O_RDONLY, (fd) => this.#readExactly(fd, file, offset, length))
  }

  /** Size in bytes as a fresh open sees it, or undefined when there is no such file. */
  size(name: string): number | undefined {
    try {
      return this.#withFile(this.pathOf(name), constants.O_RDONLY, (fd) => this.#fs.fstatSync(fd).size)
    } catch (error) {
      if (errnoOf(error) === 'ENOENT') return undefined
      throw error
    }
  }

  /** Names in a directory, from a fresh listing; [] when the directory does not exist. */
  list(name: string): string[] {
    const directory = this.pathOf(name)
    try {
      return this.#fs.readdirSync(directory)
    } catch (error) {
      if (errnoOf(error) === 'ENOENT') return []
      throw shareError(error, directory, 'list')
    }
  }

  exists(name: string): boolean {
    const file = this.pathOf(name)
    try {
      this.#fs.lstatSync(file)
      return true
    } catch (error) {
      if (errnoOf(error) === 'ENOENT' || errnoOf(error) === 'ENOTDIR') return false
      throw shareError(error, file, 'look at')
    }
  }

  makeDirectory(name: string): void {
    const directory = this.pathOf(name)
    try {
      this.#fs.mkdirSync(directory, { recursive: true })
    } catch (error) {
      throw shareError(error, directory, 'create the directory')
    }
  }

  /** Writes a file under its final name, replacing what was there. */
  write(name: string, bytes: Uint8Array): void {
    const temporary = `tmp/${randomBytes(12).toString('hex')}`
    this.makeDirectory('tmp')
    try {
      this.#writeNew(this.pathOf(temporary), bytes)
      this.#rename(temporary, name, () => this.size(name) === bytes.length && !this.exists(temporary))
    } catch (error) {
      this.removeQuietly(temporary)
      throw error
    }
    this.syncDirectory(path.dirname(name))
  }

  /**
   * Writes an object whose name is made of its content. One that is there already with the right size was finished
   * by somebody: it is re-dated (so that prune's grace period starts anew) and kept. Returns true when bytes were sent.
   */
  writeContentNamed(name: string, bytes: Uint8Array): boolean {
    if (this.size(name) === bytes.length) {
      this.touch(name)
      return false
    }
    this.makeDirectory(path.dirname(name))
    this.write(name, bytes)
    const seen = this.size(name)
    if (seen !== bytes.length) {
      throw new ShareError(
        'EIO',
        this.pathOf(name),
        `${this.pathOf(name)} was written with ${String(bytes.length)} bytes, but a fresh open sees ${String(seen ?? 0)}`
      )
    }
    return true
  }

  touch(name: string): void {
    const now = new Date()
    try {
      this.#fs.utimesSync(this.pathOf(name), now, now)
    } catch (error) {
      throw shareError(error, this.pathOf(name), 'set the time of')
    }
  }

  /**
   * Creates the directory `name` with these files, all or nothing, unless it exists: rename(2) of a finished
   * directory fails when the target exists and is not empty. Who won is decided by the caller, who reads the
   * target and looks for its own token (invariant 2). An error that leaves no target is thrown.
   */
  createDirectory(name: string, files: ReadonlyMap<string, Uint8Array>): void {
    const temporary = `tmp/${randomBytes(12).toString('hex')}`
    this.makeDirectory('tmp')
    this.makeDirectory(path.dirname(name))
    try {
      this.makeDirectory(temporary)
      for (const [file, bytes] of files) this.#writeNew(this.pathOf(`${temporary}/${file}`), bytes)
      this.syncDirectory(temporary)
      this.#rename(temporary, name, () => this.exists(name))
    } catch (error) {
      this.removeQuietly(temporary)
      throw error
    }
    if (this.exists(temporary)) this.removeQuietly(temporary) // somebody else has the name
    this.syncDirectory(path.dirname(name))
  }

  syncDirectory(name: string): void {
    const directory = this.pathOf(name)
    this.#withFile(directory, constants.O_RDONLY | constants.O_DIRECTORY, (fd) => {
      this.#fs.fsyncSync(fd)
    })
  }

  remove(name: string): void {
    const target = this.pathOf(name)
    try {
      this.#fs.rmSync(target, { recursive: true, force: true })
    } catch (error) {
      throw shareError(error, target, 'remove')
    }
  }

  /** Removes what nobody will read; a failure leaves garbage in tmp/ and harms nothing. */
  removeQuietly(name: string): void {
    try {
      this.remove(name)
    } catch {
      // left for prune
    }
  }

  freeBytes(): number {
    try {
      const { bavail, bsize } = this.#fs.statfsSync(this.root)
      return bavail * bsize
    } catch (error) {
      throw shareError(error, this.root, 'read the free space of')
    }
  }

  #writeNew(file: string, bytes: Uint8Array): void {
    let fd: number
    try {
      fd = this.#fs.openSync(
        file,
        constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL | constants.O_NOFOLLOW,
        0o666
      )
    } catch (error) {
      throw shareError(error, file, 'create')
    }
    let failure: unknown
    try {
      let written = 0
      while (written < bytes.length) written += this.#fs.writeSync(fd, bytes, written, bytes.length - written)
      this.#fs.fsyncSync(fd)
    } catch (error) {
      failure = error
    }
    try {
      this.#fs.closeSync(fd) // NFS reports write errors here too
    } catch (error) {
      failure ??= error
    }
    if (failure !== undefined) throw shareError(failure, file, 'write')
  }

  #rename(from: string, to: string, happened: () => boolean): void {
    try {
      this.#fs.renameSync(this.pathOf(from), this.pathOf(to))
    } catch (error) {
      if (!happened()) throw shareError(error, this.pathOf(to), 'rename to')
    }
  }

  #withFile<Result>(file: string, flags: number, use: (fd: number) => Result): Result {
    let fd: number
    try {
      fd = this.#fs.openSync(file, flags | constants.O_NOFOLLOW | constants.O_NONBLOCK)
    } catch (error) {
      throw shareError(error, file, 'open')
    }
    try {
      const wantsDirectory = (flags & constants.O_DIRECTORY) !== 0
      if (!wantsDirectory && !this.#fs.fstatSync(fd).isFile()) {
        throw new IntegrityError(`${file} is not a regular file`)
      }
      return use(fd)
    } catch (error) {
      throw shareError(error, file, 'read')
    } finally {
      this.#fs.closeSync(fd)
    }
  }

  #readExactly(fd: number, file: string, offset: number, length: number): Buffer {
    const bytes = Buffer.allocUnsafeSlow(length)
    let done = 0
    while (done < length) {
      const count = this.#fs.readSync(fd, bytes, done, length - done, offset + done)
      if (count === 0) {
        throw new IntegrityError(
          `${file} ends at byte ${String(offset + done)}, but ${String(offset + length)} were expected`
        )
      }
      done += count
    }
    return bytes
  }
}

function shareError(error: unknown, file: string, action: string): Error {
  if (error instanceof ShareError || error instanceof IntegrityError) return error
  const errno = errnoOf(error) ?? 'EIO'
  return new ShareError(errno, file, `cannot ${action} ${file}: ${explain(errno) ?? messageOf(error)}`, {
    cause: error
  })
}

function explain(errno: string): string | undefined {
  switch (errno) {
    case 'ENOENT':
      return 'it does not exist'
    case 'EACCES':
    case 'EPERM':
      return 'permission denied'
    case 'ENOSPC':
      return 'the share is full'
    case 'EDQUOT':
      return 'the quota on the share is used up'
    case 'EROFS':
      return 'the share is read-only'
    case 'ESTALE':
      return 'the server has replaced it (stale file handle)'
    case 'ELOOP':
      return 'it is a symbolic link'
    default:
      return undefined
  }
}
