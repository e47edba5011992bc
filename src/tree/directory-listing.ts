/**
 * One open directory's entries, with offsets that stay valid while the directory changes: the names are taken when
 * reading starts (and again after a rewind), an offset is a position in them. Entries that are gone meanwhile are left
 * out, entries that came meanwhile appear after the next rewind; POSIX leaves both open.
 */
import type { InodeId } from '../base/units.js'
import type { FileType, Inode } from '../session/namespace-types.js'
import type { TreeNamespace } from './port.js'

export interface DirectoryEntry {
  readonly name: string
  readonly inode: InodeId
  readonly type: FileType
  /** where reading goes on after this entry; never 0 */
  readonly nextOffset: number
}

export class DirectoryListing {
  #names: readonly string[] | undefined

  /** At most `countMax` entries from `offset`; an empty answer is the end. */
  read(directory: Inode, namespace: TreeNamespace, offset: number, countMax: number): DirectoryEntry[] {
    if (directory.parent === 0) return []
    if (offset === 0 || this.#names === undefined) {
      this.#names = ['.', '..', ...(directory.children?.keys() ?? [])]
    }
    const names = this.#names
    const entries: DirectoryEntry[] = []
    for (let position = offset; position < names.length && entries.length < countMax; position++) {
      const name = names[position] ?? ''
      const inode = find(directory, namespace, name)
      if (inode !== undefined) entries.push({ name, inode: inode.id, type: inode.type, nextOffset: position + 1 })
    }
    return entries
  }
}

function find(directory: Inode, namespace: TreeNamespace, name: string): Inode | undefined {
  if (name === '.') return directory
  return name === '..' ? namespace.get(directory.parent) : namespace.child(directory, name)
}
