/**
 * One VM's directory on the share, as bytes: bounded reads of regular files, objects written once, and the exclusive
 * creation of a name. Knows nothing of what the bytes mean.
 *
 * Invariants:
 * 1. A final name never shows unfinished bytes: temporary name, write, fsync, close (each checked, NFS reports
 *    late), rename, fsync of the directory.
 * 2. The result of rename is never believed: a retransmitted request reports failure after success, so the target
 *    is looked at afterwards.
 * 3. Nothing is followed out of the directory: no part of a name below the root may be a symbolic link, and only
 *    regular files are read.
 * 4. While the VM that this share belongs to is not there (presence.ts), nothing of it is called absent, nothing is made in
 *    its place, and no new object counts as written. Absent is what was not there when the VM was, before and after the look.
 */
import assert from 'node:assert'
import { randomBytes } from 'node:crypto'
import { constants } from 'node:fs'
import path from 'node:path'
import { errnoOf, IntegrityError, ShareError } from '../base/errors.js'
import { nodeFileSystem, type ShareFileSystem } from './file-system.js'
import { VM_BYTES_MAX, VM_FILE, vmIdOf, vmIsAway } from './presence.js'
import { shareError } from './share-error.js'

/** What the clocks of this machine (the second one cannot be set) said when the server's was looked at. */
interface ServerClock {
  readonly serverMs: number
  readonly hereMs: number
  readonly runningMs: number
}

const CLOCK_SET_MS = 1000

export class Share {
  /** absolute path of the VM's directory */
  readonly root: string
  readonly #fs: ShareFileSystem
  #serverClock: ServerClock | undefined
  #vmId: string | undefined

  constructor(root: string, fileSystem: ShareFileSystem = nodeFileSystem) {
    this.root = root
    this.#fs = fileSystem
  }

  pathOf(name: string): string {
    return path.join(this.root, name)
  }

  /** id of the VM that has to be here; undefined: nobody has said, and nothing is asked (a VM that is being made) */
  get vmId(): string | undefined {
    return this.#vmId
  }

  /** Invariant 4 holds from now on. */
  belongTo(vmId: string): void {
    this.#vmId = vmId
  }

  /** Throws ShareError when the VM that this share belongs to is not there. */
  requireVm(): void {
    if (this.#vmId === undefined) return
    let found: string
    try {
      found = vmIdOf(this.read(VM_FILE, VM_BYTES_MAX), this.pathOf(VM_FILE))
    } catch (error) {
      const isAbsent = errnoOf(error) === 'ENOENT' || errnoOf(error) === 'ENOTDIR'
      throw isAbsent ? vmIsAway(this.root, undefined, error) : error
    }
    if (found !== this.#vmId) throw vmIsAway(this.root, found)
  }

  /**
   * Makes the directory itself, for a VM that is being made. Nothing else does: where a share is not mounted, it would be made
   * on the local disk, and what is written there would be hidden by the share when that is back.
   */
  createRoot(): void {
    try {
      this.#fs.mkdirSync(this.root)
    } catch (error) {
      if (errnoOf(error) !== 'EEXIST') throw shareError(error, this.root, 'create the directory')
    }
  }

  /** Whole content of a regular file of at most `bytesMax` bytes. ENOENT is a ShareError with that errno. */
  read(name: string, bytesMax: number): Buffer {
    const file = this.pathOf(name)
    return this.#withFile(name, constants.O_RDONLY, (fd) => {
      const { size } = this.#fs.fstatSync(fd)
      if (size > bytesMax) {
        throw new IntegrityError(`${file} has ${String(size)} bytes, more than the ${String(bytesMax)} it may have`)
      }
      return this.#readExactly(fd, file, 0, size)
    })
  }

  /**
   * Like read, of a file that somebody else may have made or replaced a moment ago; undefined when it is not there. Its
   * directory is listed first, which asks the server: opened by its name alone, an NFS client may go on believing for up
   * to a minute that it is missing, or what it was.
   */
  readListed(name: string, bytesMax: number): Buffer | undefined {
    if (!this.#isListed(name)) return undefined
    try {
      return this.read(name, bytesMax)
    } catch (error) {
      if (errnoOf(error) === 'ENOENT') return undefined
      throw error
    }
  }

  /**
   * Exactly `length` bytes at `offset`; a file that is too short for them is damaged. They come in a new buffer, or at
   * the start of `into`.
   */
  readRange(name: string, offset: number, length: number, into?: Buffer): Buffer {
    return this.#withFile(name, constants.O_RDONLY, (fd) =>
      this.#readExactly(fd, this.pathOf(name), offset, length, into)
    )
  }

  /** Size in bytes as a fresh open sees it, or undefined when there is no such file. */
  size(name: string): number | undefined {
    try {
      return this.#withFile(name, constants.O_RDONLY, (fd) => this.#fs.fstatSync(fd).size)
    } catch (error) {
      if (errnoOf(error) === 'ENOENT') return undefined
      throw error
    }
  }

  /**
   * Names in a directory, from a fresh listing; [] when the directory does not exist. Left out is what NFS clients keep
   * there for processes that still have a removed file open.
   */
  list(name: string): string[] {
    return this.#surely(() => this.#entries(name)) ?? []
  }

  /** undefined: none */
  #entries(name: string): string[] | undefined {
    const directory = this.pathOf(name)
    this.#refuseLinks(`${name}/entry`)
    try {
      const entries = this.#fs.readdirSync(directory).filter((entry) => !entry.startsWith('.nfs'))
      return entries.length === 0 ? undefined : entries
    } catch (error) {
      if (errnoOf(error) === 'ENOENT') return undefined
      if (errnoOf(error) === 'ENOTDIR') throw new IntegrityError(`${directory} is not a directory, as it has to be`)
      throw shareError(error, directory, 'list')
    }
  }

  exists(name: string): boolean {
    return this.#isThere(this.pathOf(name))
  }

  #isThere(file: string): boolean {
    try {
      this.#fs.lstatSync(file)
      return true
    } catch (error) {
      if (errnoOf(error) === 'ENOENT' || errnoOf(error) === 'ENOTDIR') return false
      throw shareError(error, file, 'look at')
    }
  }

  /** Makes a directory and what is missing above it, each durable in the one that holds it. */
  makeDirectory(name: string): void {
    const directory = this.pathOf(name)
    this.#refuseLinks(`${name}/entry`)
    if (this.#isThere(directory)) return
    this.requireVm()
    const firstMade = this.#makeMissing(directory)
    if (firstMade === undefined) return
    for (let made = directory; made.length >= firstMade.length; made = path.dirname(made)) {
      if (made === this.root) break // what holds the VM is the business of whoever makes the VM
      this.syncDirectory(path.relative(this.root, path.dirname(made)) || '.')
    }
  }

  /** Writes a file under its final name, replacing what was there. */
  write(name: string, bytes: Uint8Array): void {
    const temporary = this.#temporaryName()
    this.#refuseLinks(name)
    try {
      this.#writeNew(temporary, bytes)
      this.#moveInto(temporary, name, bytes.length)
    } catch (error) {
      this.removeQuietly(temporary)
      throw error
    }
    this.syncDirectory(path.dirname(name))
  }

  /**
   * Writes an object whose name is made of its content. One that is there already and whole is re-dated (so that
   * prune's grace period starts anew) and kept; one of the same size with other bytes is damaged, and replaced.
   * Returns true when bytes were sent.
   */
  writeContentNamed(name: string, bytes: Uint8Array): boolean {
    const isThere = this.#isWhole(name, bytes) && this.#touched(name)
    if (!isThere) {
      this.makeDirectory(path.dirname(name))
      this.write(name, bytes)
    }
    this.requireVm() // looked for after that, it is in the VM
    const seen = this.size(name)
    if (seen !== bytes.length) {
      const file = this.pathOf(name)
      throw new ShareError(
        'EIO',
        file,
        `${file} was written with ${String(bytes.length)} bytes, but a fresh open sees ${String(seen ?? 0)}`
      )
    }
    return !isThere
  }

  /** Now, by the server's clock, in milliseconds since the epoch: the clock that a grace period is measured with. */
  serverNowMs(): number {
    const since = (clock: ServerClock): number => performance.now() - clock.runningMs
    const isSet = (clock: ServerClock): boolean => Math.abs(Date.now() - clock.hereMs - since(clock)) > CLOCK_SET_MS
    // A clock that was set, or a machine that slept, makes the two clocks of this machine disagree: it is asked again.
    if (this.#serverClock === undefined || isSet(this.#serverClock)) this.#serverClock = this.#measureServerClock()
    return this.#serverClock.serverMs + since(this.#serverClock)
  }

  /** When a name was last modified, by the server's clock; undefined when there is no such name. */
  modifiedMs(name: string): number | undefined {
    this.#refuseLinks(name)
    return this.#surely(() => {
      try {
        return this.#fs.lstatSync(this.pathOf(name)).mtimeMs
      } catch (error) {
        if (errnoOf(error) === 'ENOENT') return undefined
        throw shareError(error, this.pathOf(name), 'look at')
      }
    })
  }

  /** Gives a file another name, durably in both directories. */
  move(name: string, newName: string): void {
    const size = this.size(name)
    if (size === undefined) throw new ShareError('ENOENT', this.pathOf(name), `${this.pathOf(name)} does not exist`)
    this.makeDirectory(path.dirname(newName))
    this.#moveInto(name, newName, size)
    this.syncDirectory(path.dirname(newName))
    this.syncDirectory(path.dirname(name))
  }

  /** Dates a file anew, by the server's clock. */
  touch(name: string): void {
    this.#refuseLinks(name)
    const now = new Date(this.serverNowMs())
    try {
      this.#fs.utimesSync(this.pathOf(name), now, now)
    } catch (error) {
      throw shareError(error, this.pathOf(name), 'set the time of')
    }
  }

  /**
   * Creates the directory `name` with these files, all or nothing, unless it exists: rename(2) of a finished
   * directory fails when the target exists and is not empty. Who won is decided by the caller, who reads the
   * target after that and looks for its own token (invariant 2). An error that leaves no target is thrown.
   */
  createDirectory(name: string, files: ReadonlyMap<string, Uint8Array>): void {
    const temporary = this.#temporaryName()
    this.makeDirectory(path.dirname(name))
    try {
      this.makeDirectory(temporary)
      for (const [file, bytes] of files) this.#writeNew(`${temporary}/${file}`, bytes)
      this.syncDirectory(temporary)
    } catch (error) {
      this.removeQuietly(temporary)
      throw error
    }
    try {
      this.#fs.renameSync(this.pathOf(temporary), this.pathOf(name))
    } catch (error) {
      if (!this.#isListed(name)) throw shareError(error, this.pathOf(name), 'rename to')
      const isLost = errnoOf(error) === 'ENOTEMPTY' || errnoOf(error) === 'EEXIST'
      if (isLost) this.removeQuietly(temporary)
      // After any other error the temporary directory stays: the rename may have happened, or, on a soft mount, happen
      // yet. NFS clients act on directories by handle, so removing files below the old name, when it is still believed
      // to be there, would remove them from the final one.
    }
    this.syncDirectory(path.dirname(name))
    this.requireVm()
  }

  syncDirectory(name: string): void {
    // once: a second fsync after a failed one proves nothing
    this.#withFileOnce(name, constants.O_RDONLY | constants.O_DIRECTORY, (fd) => {
      this.#fs.fsyncSync(fd)
    })
  }

  remove(name: string): void {
    const target = this.pathOf(name)
    this.#refuseLinks(name)
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

  #temporaryName(): string {
    this.makeDirectory('tmp')
    return `tmp/${randomBytes(12).toString('hex')}`
  }

  /**
   * Makes a directory and what is missing above it; the highest one that was made. Not mkdir's `recursive`: for a reason
   * that Node does not expect (a read-only share, a used-up quota) that says "does not exist". Never the root (createRoot).
   */
  #makeMissing(directory: string): string | undefined {
    if (this.#isThere(directory)) return undefined
    if (directory === this.root) {
      throw new ShareError('ENOENT', this.root, `${this.root} does not exist`, { hint: 'is the share mounted?' })
    }
    const above = this.#makeMissing(path.dirname(directory))
    try {
      this.#fs.mkdirSync(directory)
    } catch (error) {
      if (errnoOf(error) !== 'EEXIST') throw shareError(error, directory, 'create the directory')
    }
    return above ?? directory
  }

  /** Invariant 3 for the directories above `name`. One that is missing is reported by the call that needs it. */
  #refuseLinks(name: string): void {
    let directory = this.root
    for (const part of name.split('/').slice(0, -1)) {
      assert(part !== '..', 'a name on the share leads upwards')
      directory = path.join(directory, part)
      if (part === '.') continue
      try {
        if (!this.#fs.lstatSync(directory).isSymbolicLink()) continue
      } catch (error) {
        if (errnoOf(error) === 'ENOENT' || errnoOf(error) === 'ENOTDIR') return
        throw shareError(error, directory, 'look at')
      }
      throw new IntegrityError(`${directory} is a symbolic link, where a directory has to be`)
    }
  }

  /** A listing asks the server; a lookup may be answered from what this client believes to be absent. */
  #isListed(name: string): boolean {
    return this.list(path.dirname(name)).includes(path.basename(name))
  }

  #isWhole(name: string, bytes: Uint8Array): boolean {
    return this.size(name) === bytes.length && this.read(name, bytes.length).equals(bytes)
  }

  /** Only the owner of a file may set its time; for others it is written anew. */
  #touched(name: string): boolean {
    try {
      this.touch(name)
      return true
    } catch {
      return false
    }
  }

  #measureServerClock(): ServerClock {
    const temporary = this.#temporaryName()
    this.#writeNew(temporary, Buffer.alloc(0))
    try {
      const serverMs = this.#withFile(temporary, constants.O_RDONLY, (fd) => this.#fs.fstatSync(fd).mtimeMs)
      return { serverMs, hereMs: Date.now(), runningMs: performance.now() }
    } finally {
      this.removeQuietly(temporary)
    }
  }

  #writeNew(name: string, bytes: Uint8Array): void {
    const file = this.pathOf(name)
    const flags = constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL | constants.O_NOFOLLOW
    let fd: number
    try {
      fd = this.#fs.openSync(file, flags, 0o666)
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

  #moveInto(temporary: string, name: string, length: number): void {
    try {
      this.#fs.renameSync(this.pathOf(temporary), this.pathOf(name))
    } catch (error) {
      const happened = this.size(name) === length && !this.#isListed(temporary)
      if (!happened) throw shareError(error, this.pathOf(name), 'rename to')
    }
  }

  /**
   * A file that was replaced between lookup and read is stale on NFS; a second open finds its successor. One that is missing
   * counts as absent when it is so again while the VM is there (invariant 4).
   */
  #withFile<Result>(name: string, flags: number, use: (fd: number) => Result): Result {
    if (name === VM_FILE) return this.#withFileAgain(name, flags, use) // requireVm asks for it
    let absent: unknown
    const found = this.#surely(() => {
      try {
        return { result: this.#withFileAgain(name, flags, use) }
      } catch (error) {
        if (errnoOf(error) !== 'ENOENT') throw error
        absent = error
        return undefined
      }
    })
    if (found === undefined) throw absent
    return found.result
  }

  #withFileAgain<Result>(name: string, flags: number, use: (fd: number) => Result): Result {
    try {
      return this.#withFileOnce(name, flags, use)
    } catch (error) {
      if (errnoOf(error) === 'ESTALE') return this.#withFileOnce(name, flags, use)
      throw error
    }
  }

  /** Invariant 4: what `look` finds, undefined only for what is absent. */
  #surely<Found>(look: () => Found | undefined): Found | undefined {
    const found = look()
    if (found !== undefined || this.#vmId === undefined) return found
    this.requireVm()
    const again = look()
    if (again === undefined) this.requireVm()
    return again
  }

  #withFileOnce<Result>(name: string, flags: number, use: (fd: number) => Result): Result {
    const file = this.pathOf(name)
    this.#refuseLinks(name)
    let fd: number
    try {
      fd = this.#fs.openSync(file, flags | constants.O_NOFOLLOW | constants.O_NONBLOCK)
    } catch (error) {
      throw shareError(error, file, 'open')
    }
    const wantsDirectory = (flags & constants.O_DIRECTORY) !== 0
    try {
      if (!wantsDirectory && !this.#fs.fstatSync(fd).isFile()) {
        throw new IntegrityError(`${file} is not a regular file`)
      }
      return use(fd)
    } catch (error) {
      throw shareError(error, file, wantsDirectory ? 'make durable' : 'read')
    } finally {
      this.#closeQuietly(fd)
    }
  }

  /** Of a descriptor that nothing was written through: its close has nothing to report. */
  #closeQuietly(fd: number): void {
    try {
      this.#fs.closeSync(fd)
    } catch {
      // read-only
    }
  }

  #readExactly(fd: number, file: string, offset: number, length: number, into?: Buffer): Buffer {
    const bytes = into === undefined || into.length < length ? Buffer.allocUnsafeSlow(length) : into.subarray(0, length)
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
