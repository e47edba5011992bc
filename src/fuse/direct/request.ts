/** One request as it came from the kernel: its header, and its body read in order with every length checked. */
import { PosixError } from '../../base/errors.js'
import { toInodeId, type InodeId } from '../../base/units.js'
import { IN_HEADER } from './protocol.js'
import type { Fields, Structure, Values } from './structure.js'

export class Request {
  readonly opcode: number
  readonly unique: bigint
  readonly inode: InodeId
  readonly uid: number
  readonly gid: number
  /** of the thread that asked; 0 when it is in another pid namespace */
  readonly pid: number
  readonly #bytes: Buffer
  readonly #view: DataView
  readonly #end: number
  #at = IN_HEADER.bytes

  /** `lengthBytes` were read into the buffer; at least a header. */
  constructor(bytes: Buffer, view: DataView, lengthBytes: number) {
    const header = IN_HEADER.read(view, 0)
    this.opcode = header.opcode
    this.unique = header.unique
    this.inode = toInodeId(header.nodeid)
    this.uid = header.uid
    this.gid = header.gid
    this.pid = header.pid
    this.#bytes = bytes
    this.#view = view
    this.#end = header.len === lengthBytes ? lengthBytes - header.totalExtlen * 8 : 0
  }

  get remainingBytes(): number {
    return Math.max(0, this.#end - this.#at)
  }

  /** The next part of the body. */
  take<F extends Fields>(structure: Structure<F>): Values<F> {
    const at = this.#at
    if (at + structure.bytes > this.#end) throw new PosixError('EINVAL', 'a request is too short')
    this.#at += structure.bytes
    return structure.read(this.#view, at)
  }

  /** The next name, up to its NUL; bytes that are not UTF-8 become U+FFFD, which the tree refuses. */
  takeName(): string {
    const nul = this.#bytes.indexOf(0, this.#at)
    if (nul < 0 || nul >= this.#end) throw new PosixError('EINVAL', 'a name has no end')
    const name = this.#bytes.toString('utf8', this.#at, nul)
    this.#at = nul + 1
    return name
  }

  /** The next bytes, in the request's own buffer. */
  takeBytes(count: number): Buffer {
    if (this.#at + count > this.#end) throw new PosixError('EINVAL', 'a request is too short')
    const bytes = this.#bytes.subarray(this.#at, this.#at + count)
    this.#at += count
    return bytes
  }
}
