/**
 * Open files and directories. Handles live in memory only.
 *
 * Invariants: 1. an inode is open exactly while it has a handle; 2. a handle's number is never used twice by one mount,
 * so that a late request can never reach another file; 3. an unlinked inode is forgotten with its last handle (tree.ts).
 */
import { PosixError } from '../base/errors.js'
import type { InodeId } from '../base/units.js'
import type { DirectoryListing } from './directory-listing.js'

export type Handle =
  | { readonly kind: 'file'; readonly inode: InodeId; readonly writable: boolean; readonly direct: boolean }
  | { readonly kind: 'directory'; readonly inode: InodeId; readonly listing: DirectoryListing }

interface Uses {
  all: number
  writable: number
}

export class Handles {
  readonly #handles = new Map<number, Handle>()
  readonly #uses = new Map<InodeId, Uses>()
  #next = 1

  get size(): number {
    return this.#handles.size
  }

  add(handle: Handle): number {
    const number = this.#next++
    this.#handles.set(number, handle)
    const uses = this.#uses.get(handle.inode) ?? { all: 0, writable: 0 }
    uses.all++
    if (isWritable(handle)) uses.writable++
    this.#uses.set(handle.inode, uses)
    return number
  }

  get(number: number): Handle {
    const handle = this.#handles.get(number)
    if (handle === undefined) throw new PosixError('EBADF')
    return handle
  }

  /** Gives the handle back; its inode may have others. */
  remove(number: number): Handle {
    const handle = this.get(number)
    this.#handles.delete(number)
    const uses = this.#uses.get(handle.inode)
    if (uses !== undefined) {
      uses.all--
      if (isWritable(handle)) uses.writable--
      if (uses.all === 0) this.#uses.delete(handle.inode)
    }
    return handle
  }

  numbers(): number[] {
    return [...this.#handles.keys()]
  }

  isOpen(inode: InodeId): boolean {
    return this.#uses.has(inode)
  }

  isWritable(number: number): boolean {
    return isWritable(this.get(number))
  }

  isOpenForWriting(inode: InodeId): boolean {
    return (this.#uses.get(inode)?.writable ?? 0) > 0
  }
}

function isWritable(handle: Handle): boolean {
  return handle.kind === 'file' && handle.writable
}
