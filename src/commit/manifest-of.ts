/** The manifest that a session's live state amounts to. */
import type { ManifestEntry } from '../format/manifest.js'
import type { Inode } from '../session/namespace-types.js'
import type { Namespace } from '../session/namespace.js'
import { ROOT_INODE } from '../base/units.js'
import type { FileMap } from './map-rewrite.js'

/** libfuse's names for files that were removed while open; they never reach a generation. */
const HIDDEN_NAME = /^\.fuse_hidden[0-9a-f]+$/

/** Entries of everything that has a name, parents before children, siblings by name; without what `isLeftOut` tells. */
export function manifestEntries(
  namespace: Namespace,
  maps: ReadonlyMap<number, FileMap>,
  isLeftOut: (name: string, inode: Inode) => boolean = () => false
): ManifestEntry[] {
  const entries: ManifestEntry[] = []
  const root = namespace.get(ROOT_INODE)
  const queue = root === undefined ? [] : [root]
  for (let inode = queue.shift(); inode !== undefined; inode = queue.shift()) {
    entries.push(entryOf(inode, maps))
    for (const [name, id] of [...(inode.children ?? [])].sort(byName)) {
      const child = namespace.get(id)
      if (child !== undefined && !HIDDEN_NAME.test(name) && !isLeftOut(name, child)) queue.push(child)
    }
  }
  return entries
}

/** Whether two lists of entries describe the same VM, whatever their order. */
export function sameEntries(first: readonly ManifestEntry[], second: readonly ManifestEntry[]): boolean {
  if (first.length !== second.length) return false
  const known = new Map(first.map((entry) => [entry.inode, canonical(entry)]))
  return second.every((entry) => known.get(entry.inode) === canonical(entry))
}

function entryOf(inode: Inode, maps: ReadonlyMap<number, FileMap>): ManifestEntry {
  const isRoot = inode.id === ROOT_INODE
  const attributes = {
    inode: inode.id,
    parent: isRoot ? 0 : inode.parent,
    name: isRoot ? '' : inode.name,
    mode: inode.mode,
    uid: inode.uid,
    gid: inode.gid,
    atime: String(inode.atimeNs),
    mtime: String(inode.mtimeNs),
    ctime: String(inode.ctimeNs)
  }
  switch (inode.type) {
    case 'file': {
      const { map, dataBlocks } = maps.get(inode.id) ?? {
        map: inode.base?.map ?? null,
        dataBlocks: inode.base?.dataBlocks ?? 0
      }
      return { ...attributes, type: 'file', size: inode.sizeBytes, dataBlocks, map }
    }
    case 'symlink':
      return { ...attributes, type: 'symlink', target: inode.target }
    case 'character-device':
    case 'block-device':
      return { ...attributes, type: inode.type, rdev: inode.rdev }
    case 'directory':
    case 'fifo':
    case 'socket':
      return { ...attributes, type: inode.type }
  }
}

function byName([first]: readonly [string, unknown], [second]: readonly [string, unknown]): number {
  return first < second ? -1 : first > second ? 1 : 0
}

function canonical(entry: ManifestEntry): string {
  const keys = Object.entries(entry).sort(byName)
  return JSON.stringify(keys, (_, value: unknown) =>
    value !== null && typeof value === 'object' && !Array.isArray(value) ? Object.entries(value).sort(byName) : value
  )
}
