/** The manifest that a session's live state amounts to. */
import type { ManifestEntry } from '../format/manifest.js'
import type { Inode, NamePlace } from '../session/namespace-types.js'
import type { Namespace } from '../session/namespace.js'
import { ROOT_INODE } from '../base/units.js'
import type { FileMap } from './map-rewrite.js'

/** libfuse's names for files that were removed while open; they never reach a generation. */
const HIDDEN_NAME = /^\.fuse_hidden[0-9a-f]+$/

/**
 * Entries of everything that has a name, parents before children, siblings by name; without what `isLeftOut` tells. A file
 * with several names is one entry, where the first of them that is not left out is met.
 */
export function manifestEntries(
  namespace: Namespace,
  maps: ReadonlyMap<number, FileMap>,
  isLeftOut: (name: string, inode: Inode) => boolean = () => false
): ManifestEntry[] {
  const root = namespace.get(ROOT_INODE)
  // A Map goes on to what is added while it is walked.
  const found = new Map<Inode, NamePlace[]>(root === undefined ? [] : [[root, []]])
  for (const inode of found.keys()) {
    for (const [name, id] of [...(inode.children ?? [])].sort(byName)) {
      const child = namespace.get(id)
      if (child === undefined || HIDDEN_NAME.test(name) || isLeftOut(name, child)) continue
      const names = found.get(child)
      if (names === undefined) found.set(child, [{ parent: inode.id, name }])
      else names.push({ parent: inode.id, name })
    }
  }
  return [...found].map(([inode, names]) => entryOf(inode, names, maps))
}

/** Whether two lists of entries describe the same VM, whatever their order, and whichever name of a file comes first. */
export function sameEntries(first: readonly ManifestEntry[], second: readonly ManifestEntry[]): boolean {
  if (first.length !== second.length) return false
  const known = new Map(first.map((entry) => [entry.inode, canonical(entry)]))
  return second.every((entry) => known.get(entry.inode) === canonical(entry))
}

function entryOf(
  inode: Inode,
  [first, ...otherNames]: readonly NamePlace[],
  maps: ReadonlyMap<number, FileMap>
): ManifestEntry {
  const attributes = {
    inode: inode.id,
    parent: first?.parent ?? 0, // only the root has none
    name: first?.name ?? '',
    ...(otherNames.length === 0 ? {} : { otherNames }),
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

function canonical({ parent, name, otherNames = [], ...others }: ManifestEntry): string {
  const names = [{ parent, name }, ...otherNames].map((place) => `${String(place.parent)}/${place.name}`).sort()
  const keys = Object.entries({ ...others, names }).sort(byName)
  return JSON.stringify(keys, (_, value: unknown) =>
    value !== null && typeof value === 'object' && !Array.isArray(value) ? Object.entries(value).sort(byName) : value
  )
}
