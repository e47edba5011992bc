/**
 * From paths to inodes, for the binding (libfuse's high-level interface speaks paths only). There is no cache of paths:
 * a component is one lookup in a Map, and operations on open files carry no path at all.
 *
 * libfuse does not unlink or replace an open file: it first renames it to `.fuse_hidden` and 16 hex digits in the same
 * directory, and unlinks that name after the last release. Here the rename IS the unlink; what is left is a private map
 * from the hidden name to the inode, because a request without a handle (fstat, fchmod) still names it by path. So hidden
 * files reach neither the tree nor a listing nor a generation, and their directory can be removed.
 * The map is keyed by directory inode, so that it survives a rename of the directory.
 */
import { PosixError } from '../base/errors.js'
import { ROOT_INODE, type InodeId } from '../base/units.js'
import type { FileSystem } from './port.js'

const HIDDEN_NAME = /^\.fuse_hidden[0-9a-f]{16}$/

export interface Place {
  readonly parent: InodeId
  readonly name: string
}

export function isHiddenName(name: string): boolean {
  return HIDDEN_NAME.test(name)
}

export class Paths {
  readonly #tree: Pick<FileSystem, 'lookup'>
  readonly #hidden = new Map<string, InodeId>()
  readonly #hiddenKeys = new Map<InodeId, string>()

  constructor(tree: Pick<FileSystem, 'lookup'>) {
    this.#tree = tree
  }

  inodeAt(path: string): InodeId {
    let inode = ROOT_INODE
    let start = 1
    while (start < path.length) {
      const slash = path.indexOf('/', start)
      const end = slash === -1 ? path.length : slash
      inode = this.#child(inode, path.slice(start, end))
      start = end + 1
    }
    return inode
  }

  /** The directory and the last component; the component need not exist. */
  placeOf(path: string): Place {
    const slash = path.lastIndexOf('/')
    if (slash < 0 || path.length === 1) throw new PosixError('EBUSY', 'the root has no name')
    return { parent: this.inodeAt(path.slice(0, slash)), name: path.slice(slash + 1) }
  }

  hide(place: Place, inode: InodeId): void {
    const key = keyOf(place)
    this.#hidden.set(key, inode)
    this.#hiddenKeys.set(inode, key)
  }

  hiddenAt(place: Place): InodeId | undefined {
    return this.#hidden.get(keyOf(place))
  }

  /** The inode's last handle is gone. */
  reveal(inode: InodeId): void {
    const key = this.#hiddenKeys.get(inode)
    if (key === undefined) return
    this.#hiddenKeys.delete(inode)
    this.#hidden.delete(key)
  }

  #child(parent: InodeId, name: string): InodeId {
    const hidden = this.#hidden.size > 0 ? this.#hidden.get(keyOf({ parent, name })) : undefined
    return hidden ?? this.#tree.lookup(parent, name).inode
  }
}

function keyOf(place: Place): string {
  return `${place.parent}/${place.name}`
}
