/**
 * Requests of the kernel as calls of the tree, by inode and handle, and their answers. Rules live in the tree; here are
 * the kernel's counts (a LOOKUP or CREATE that was answered is remembered until FORGET) and what is not supported.
 *
 * Invariants:
 * 1. Every request but FORGET, BATCH_FORGET, INTERRUPT and NOTIFY_REPLY is answered exactly once, whatever it contains (INIT by
 *    whoever mounts, unless it is too short).
 * 2. The kernel's counts change only by answers that reached it: an answer that nobody waited for is undone.
 *
 * INTERRUPT is left unanswered, which the protocol allows: an operation is carried through, and its own answer comes. Only
 * a READ, LSEEK or WRITE that waits is given up, when who asked is being killed (waiting-requests.ts).
 */
import { PosixError } from '../../base/errors.js'
import { toInodeId } from '../../base/units.js'
import type { Attributes } from '../../tree/attributes.js'
import type { AttributeRequest } from '../../tree/tree.js'
import { fromOwner } from '../binding-types.js'
import { answerOf, errnoNumber } from '../errno.js'
import type { ErrorListener, FileSystem } from '../port.js'
import type { RunningOperations } from '../running-operations.js'
import {
  BODY_BYTES_MAX,
  createMessage,
  encode,
  HEADER_BYTES,
  isSelfOrParent,
  type ListedEntry,
  type Message
} from './answers.js'
import {
  BATCH_FORGET_IN,
  CREATE_IN,
  FALLOCATE_IN,
  FLUSH_IN,
  FOPEN_KEEP_CACHE,
  FORGET_IN,
  FORGET_ONE,
  FSYNC_DATA_ONLY,
  FSYNC_IN,
  LINK_IN,
  LSEEK_IN,
  LSEEK_OUT,
  MKDIR_IN,
  MKNOD_IN,
  OPCODES,
  OPEN_IN,
  READ_IN,
  RELEASE_IN,
  RENAME2_IN,
  RENAME_IN,
  SETATTR_IN,
  SETATTR_PARTS,
  WRITE_CACHE,
  WRITE_IN,
  WRITE_OUT,
  opcodeName,
  type OpcodeName
} from './protocol.js'
import { Request } from './request.js'
import { WaitingRequests } from './waiting-requests.js'

const SEEK_DATA = 3
const SEEK_HOLE = 4
/** READs up to here have buffers of their own: one that waits for a block must not hold a large one */
const SMALL_READ_BYTES_MAX = 128 * 1024
/** unknown opcodes that are told of; a kernel has few, a fuzzer many */
const UNKNOWN_REPORTED_MAX = 8
const ENOENT = errnoNumber('ENOENT')
const EINTR = errnoNumber('EINTR')
const NANOSECONDS = 1_000_000_000n

/** Where answers go. */
export interface Answers {
  answer(unique: bigint, message: Message, bodyBytes: number): boolean
  answerErrno(unique: bigint, errno: number): boolean
}

export interface RequestsOptions {
  readonly tree: FileSystem
  readonly running: RunningOperations
  readonly answers: Answers
  readonly onError: ErrorListener
  /** INIT, answered by whoever mounts */
  readonly onInit: (request: Request) => void
}

/** Answers itself; the promise, when there is one, says when the request's bytes are not needed any more. */
type Handler = (request: Request, mayKeep: boolean) => Promise<unknown> | undefined

export class Requests {
  readonly #tree: FileSystem
  readonly #running: RunningOperations
  readonly #answers: Answers
  readonly #onError: ErrorListener
  readonly #unknown = new Set<number>()
  readonly #handlers: ReadonlyMap<number, Handler>
  /** answers are encoded and written in one step, so all but those of READ share one */
  readonly #message = createMessage(BODY_BYTES_MAX)
  readonly #waiting = new WaitingRequests()
  #smallRead: Message | undefined
  #largeRead: Message | undefined

  constructor(options: RequestsOptions) {
    this.#tree = options.tree
    this.#running = options.running
    this.#answers = options.answers
    this.#onError = options.onError
    this.#handlers = this.#createHandlers(options.onInit)
  }

  /** See Serve of readers.ts. */
  serve({ bytes, view }: Message, lengthBytes: number, mayKeep: boolean): Promise<unknown> | undefined {
    const request = new Request(bytes, view, lengthBytes)
    const handler = this.#handlers.get(request.opcode)
    if (handler !== undefined) return handler(request, mayKeep)
    this.#refuse(request)
    return undefined
  }

  /** Arguments are taken inside the actions, so that a malformed request is answered like any failure. */
  #createHandlers(onInit: (request: Request) => void): ReadonlyMap<number, Handler> {
    const tree = this.#tree
    const handlers = new Map<number, Handler>()
    const on = (name: OpcodeName, handle: (request: Request) => void): void => {
      handlers.set(OPCODES[name], (request) => {
        handle(request)
        return undefined
      })
    }
    /** answered with success and nothing more */
    const plain = (name: OpcodeName, action: (request: Request) => void | Promise<void>): void =>
      on(name, (request) =>
        this.#run(
          name,
          request,
          () => action(request),
          () => this.#answers.answerErrno(request.unique, 0)
        )
      )
    const entry = (name: OpcodeName, action: (request: Request) => Attributes): void =>
      on(name, (request) =>
        this.#run(
          name,
          request,
          () => action(request),
          (attributes) => this.#answerEntry(request, attributes)
        )
      )
    const attributes = (name: OpcodeName, action: (request: Request) => Attributes | Promise<Attributes>): void =>
      on(name, (request) =>
        this.#run(
          name,
          request,
          () => action(request),
          (value) => this.#answer(request, encode.attributes(this.#message.view, value))
        )
      )
    const opened = (name: OpcodeName, flags: number, action: (request: Request) => number | Promise<number>): void =>
      on(name, (request) =>
        this.#run(
          name,
          request,
          () => action(request),
          (handle) => {
            if (!this.#answer(request, encode.open(this.#message.view, handle, flags))) tree.release(handle)
          }
        )
      )

    on('INIT', (request) => this.#init(request, onInit))
    plain('DESTROY', () => undefined)
    on('INTERRUPT', () => undefined)
    on('NOTIFY_REPLY', () => undefined) // to a notification that is never sent
    on('FORGET', (request) => this.#forget(request, () => [{ nodeid: request.inode, ...request.take(FORGET_IN) }]))
    on('BATCH_FORGET', (request) =>
      this.#forget(request, () => Array.from({ length: takeCount(request) }, () => request.take(FORGET_ONE)))
    )

    on('LOOKUP', (request) => this.#lookup(request))
    attributes('GETATTR', ({ inode }) => tree.getattr(inode))
    attributes('SETATTR', (request) => tree.setattr(request.inode, attributeRequest(request.take(SETATTR_IN))))
    on('READLINK', (request) =>
      this.#run(
        'READLINK',
        request,
        () => tree.readlink(request.inode),
        (target) => this.#answer(request, this.#message.bytes.write(target, HEADER_BYTES))
      )
    )
    entry('MKNOD', (request) => {
      const { mode, rdev } = request.take(MKNOD_IN)
      return tree.mknod(request.inode, request.takeName(), { ...creator(request), mode, rdev })
    })
    entry('MKDIR', (request) => {
      const { mode } = request.take(MKDIR_IN)
      return tree.mkdir(request.inode, request.takeName(), { ...creator(request), mode })
    })
    entry('SYMLINK', (request) => {
      const name = request.takeName()
      return tree.symlink(request.inode, name, { ...creator(request), mode: 0o777, target: request.takeName() })
    })
    entry('LINK', (request) => {
      const { oldnodeid } = request.take(LINK_IN)
      return tree.link(toInodeId(oldnodeid), request.inode, request.takeName())
    })
    plain('UNLINK', (request) => tree.unlink(request.inode, request.takeName()))
    plain('RMDIR', (request) => tree.rmdir(request.inode, request.takeName()))
    plain('RENAME', (request) => this.#rename(request, request.take(RENAME_IN).newdir, 0))
    plain('RENAME2', (request) => {
      const { newdir, flags } = request.take(RENAME2_IN)
      this.#rename(request, newdir, flags)
    })

    on('CREATE', (request) => this.#create(request))
    opened('OPEN', FOPEN_KEEP_CACHE, (request) => tree.open(request.inode, request.take(OPEN_IN).flags))
    on('READ', (request) => this.#read(request))
    handlers.set(OPCODES.WRITE, (request, mayKeep) => this.#write(request, mayKeep))
    plain('FLUSH', (request) => tree.flush(request.take(FLUSH_IN).fh))
    plain('RELEASE', (request) => tree.release(request.take(RELEASE_IN).fh))
    plain('FSYNC', (request) => {
      const { fh, fsyncFlags } = request.take(FSYNC_IN)
      return tree.fsync(fh, (fsyncFlags & FSYNC_DATA_ONLY) !== 0)
    })
    plain('FALLOCATE', (request) => {
      const { fh, mode, offset, length } = request.take(FALLOCATE_IN)
      return tree.fallocate(fh, mode, offset, length)
    })
    on('LSEEK', (request) =>
      this.#runOrGiveUp(
        'LSEEK',
        request,
        () => this.#seek(request),
        (offset) => {
          LSEEK_OUT.write(this.#message.view, HEADER_BYTES, { offset })
          this.#answer(request, LSEEK_OUT.bytes)
        }
      )
    )

    opened('OPENDIR', 0, ({ inode }) => tree.opendir(inode))
    on('READDIR', (request) => this.#list('READDIR', request))
    on('READDIRPLUS', (request) => this.#list('READDIRPLUS', request))
    plain('RELEASEDIR', (request) => tree.releasedir(request.take(RELEASE_IN).fh))
    plain('FSYNCDIR', (request) => tree.fsyncdir(request.take(FSYNC_IN).fh))
    on('STATFS', (request) =>
      this.#run(
        'STATFS',
        request,
        () => tree.statfs(),
        (space) => this.#answer(request, encode.space(this.#message.view, space))
      )
    )
    return handlers
  }

  /** Whoever mounts answers it; one that cannot be read is answered here. */
  #init(request: Request, onInit: (request: Request) => void): void {
    try {
      onInit(request)
    } catch (error) {
      if (!(error instanceof PosixError)) throw error
      this.#answers.answerErrno(request.unique, answerOf(error).errno)
    }
  }

  #lookup(request: Request): void {
    this.#running.run<Attributes>(
      'LOOKUP',
      {
        done: (attributes) => this.#answerEntry(request, attributes),
        failed: (errno) => {
          // Only we make names: the kernel may remember that there is none.
          if (errno === ENOENT) this.#answer(request, encode.noEntry(this.#message.view))
          else this.#answers.answerErrno(request.unique, errno)
        }
      },
      () => this.#tree.lookup(request.inode, request.takeName())
    )
  }

  #create(request: Request): void {
    const create = (): Created | Promise<Created> => {
      const { flags, mode } = request.take(CREATE_IN)
      const attributes = this.#tree.create(request.inode, request.takeName(), { ...creator(request), mode })
      const handle = this.#tree.open(attributes.inode, flags)
      return handle instanceof Promise
        ? handle.then((number) => ({ attributes, handle: number }))
        : { attributes, handle }
    }
    this.#run('CREATE', request, create, ({ attributes, handle }) => {
      if (this.#answer(request, encode.created(this.#message.view, attributes, handle, FOPEN_KEEP_CACHE))) {
        this.#tree.remember(attributes.inode)
      } else {
        this.#tree.release(handle)
      }
    })
  }

  #rename(request: Request, newDirectory: number, flags: number): void {
    const name = request.takeName()
    this.#tree.rename(request.inode, name, toInodeId(newDirectory), request.takeName(), flags)
  }

  #seek(request: Request): number | Promise<number> {
    const { fh, offset, whence } = request.take(LSEEK_IN)
    if (whence !== SEEK_DATA && whence !== SEEK_HOLE) throw new PosixError('EINVAL')
    return this.#tree.seek(fh, offset, whence === SEEK_DATA ? 'data' : 'hole')
  }

  #read(request: Request): void {
    let message: Message | undefined
    const read = (): number | Promise<number> => {
      const { fh, offset, size } = request.take(READ_IN)
      if (size > BODY_BYTES_MAX) throw new PosixError('EINVAL')
      const isSmall = size <= SMALL_READ_BYTES_MAX
      if (isSmall) message = this.#smallRead ??= createMessage(SMALL_READ_BYTES_MAX)
      else message = this.#largeRead ??= createMessage(BODY_BYTES_MAX)
      const count = this.#tree.read(fh, message.bytes.subarray(HEADER_BYTES, HEADER_BYTES + size), offset)
      if (!(count instanceof Promise)) return count
      // A read that waits keeps its buffer.
      if (isSmall) this.#smallRead = undefined
      else this.#largeRead = undefined
      return count
    }
    this.#runOrGiveUp('READ', request, read, (count) => {
      if (message !== undefined) this.#answers.answer(request.unique, message, count)
    })
  }

  #write(request: Request, mayKeep: boolean): Promise<unknown> | undefined {
    let waiting: Promise<unknown> | undefined
    let mayGiveUp = false
    const write = (): number | Promise<number> => {
      const { fh, offset, size, writeFlags } = request.take(WRITE_IN)
      const bytes = request.takeBytes(size)
      // What comes from the page cache was accepted long ago, whoever dies now.
      mayGiveUp = (writeFlags & WRITE_CACHE) === 0
      let isWaiting = false
      const isGivenUp = (): boolean => isWaiting && mayGiveUp && !this.#waiting.has(request.unique)
      const count = this.#tree.write(fh, mayKeep ? bytes : Buffer.from(bytes), offset, isGivenUp)
      isWaiting = count instanceof Promise
      if (count instanceof Promise && mayKeep) waiting = count
      return count
    }
    const done = (size: number): void => {
      WRITE_OUT.write(this.#message.view, HEADER_BYTES, { size })
      this.#answer(request, WRITE_OUT.bytes)
    }
    this.#runOrGiveUp('WRITE', request, write, done, () => mayGiveUp)
    return waiting
  }

  /** Fills the answer with entries; those that it brings attributes of are remembered. */
  #list(name: 'READDIR' | 'READDIRPLUS', request: Request): void {
    const isPlus = name === 'READDIRPLUS'
    const listed: ListedEntry[] = []
    const list = (): number => {
      const { fh, offset, size } = request.take(READ_IN)
      const end = HEADER_BYTES + Math.min(size, BODY_BYTES_MAX)
      let at = HEADER_BYTES
      for (let from = offset; ;) {
        const entries = this.#tree.readdir(fh, from)
        if (entries.length === 0) return at - HEADER_BYTES
        for (const { name, inode, nextOffset } of entries) {
          const entry = { name, attributes: this.#tree.getattr(inode), nextOffset }
          const next = encode.listed(this.#message, entry, isPlus, at, end)
          if (next === undefined) return at - HEADER_BYTES
          listed.push(entry)
          at = next
          from = nextOffset
        }
      }
    }
    this.#run(name, request, list, (bodyBytes) => {
      if (!this.#answer(request, bodyBytes) || !isPlus) return
      for (const entry of listed) if (!isSelfOrParent(entry.name)) this.#tree.remember(entry.attributes.inode)
    })
  }

  #forget(request: Request, take: () => { readonly nodeid: number; readonly nlookup: number }[]): void {
    try {
      for (const { nodeid, nlookup } of take()) this.#tree.forget(toInodeId(nodeid), nlookup)
    } catch (error) {
      this.#onError(error, opcodeName(request.opcode) ?? '')
    }
  }

  #answerEntry(request: Request, attributes: Attributes): void {
    if (this.#answer(request, encode.entry(this.#message.view, attributes))) this.#tree.remember(attributes.inode)
  }

  #answer(request: Request, bodyBytes: number): boolean {
    return this.#answers.answer(request.unique, this.#message, bodyBytes)
  }

  #run<Value>(
    name: OpcodeName,
    request: Request,
    action: () => Value | Promise<Value>,
    done: (value: Value) => unknown
  ): void {
    const failed = (errno: number): void => void this.#answers.answerErrno(request.unique, errno)
    this.#running.run(name, { done: (value) => void done(value), failed }, action)
  }

  /** As #run; while the action waits, who asked may be killed: it is answered then, and the action's result is not. */
  #runOrGiveUp<Value>(
    name: OpcodeName,
    request: Request,
    action: () => Value | Promise<Value>,
    done: (value: Value) => unknown,
    mayGiveUp: () => boolean = () => true
  ): void {
    let isWaiting = false
    const isWanted = (): boolean => !isWaiting || this.#waiting.remove(request.unique)
    this.#running.run<Value>(
      name,
      {
        done: (value) => {
          if (isWanted()) done(value)
        },
        failed: (errno) => {
          if (isWanted()) this.#answers.answerErrno(request.unique, errno)
        }
      },
      () => {
        const result = action()
        isWaiting = result instanceof Promise && mayGiveUp()
        if (isWaiting) {
          this.#waiting.add(request.unique, request.pid, () => this.#answers.answerErrno(request.unique, EINTR))
        }
        return result
      }
    )
  }

  /** The kernel does without from then on. What nobody has heard of is said once. */
  #refuse({ opcode, unique }: Request): void {
    if (opcodeName(opcode) === undefined && !this.#unknown.has(opcode) && this.#unknown.size < UNKNOWN_REPORTED_MAX) {
      this.#unknown.add(opcode)
      this.#onError(new PosixError('ENOSYS', `the kernel asks for an unknown operation, number ${opcode}`), 'unknown')
    }
    this.#answers.answerErrno(unique, errnoNumber('ENOSYS'))
  }
}

interface Created {
  readonly attributes: Attributes
  readonly handle: number
}

function creator({ uid, gid }: Request): { readonly uid: number; readonly gid: number } {
  return { uid, gid }
}

/** Only as many as can follow, so that a wrong count costs nothing. */
function takeCount(request: Request): number {
  return Math.min(request.take(BATCH_FORGET_IN).count, Math.floor(request.remainingBytes / FORGET_ONE.bytes))
}

function attributeRequest(set: ReturnType<typeof SETATTR_IN.read>): AttributeRequest {
  const part = <Value>(bit: number, value: Value): Value | undefined => ((set.valid & bit) === 0 ? undefined : value)
  const time = (bit: number, nowBit: number, seconds: number, nanoseconds: number): bigint | 'now' | undefined =>
    part(nowBit, 'now') ?? part(bit, BigInt(seconds) * NANOSECONDS + BigInt(nanoseconds))
  return {
    mode: part(SETATTR_PARTS.MODE, set.mode),
    uid: part(SETATTR_PARTS.UID, fromOwner(set.uid)),
    gid: part(SETATTR_PARTS.GID, fromOwner(set.gid)),
    sizeBytes: part(SETATTR_PARTS.SIZE, set.size),
    atimeNs: time(SETATTR_PARTS.ATIME, SETATTR_PARTS.ATIME_NOW, set.atime, set.atimensec),
    mtimeNs: time(SETATTR_PARTS.MTIME, SETATTR_PARTS.MTIME_NOW, set.mtime, set.mtimensec)
  }
}
