/** The manifest entries of an imported directory. Inode numbers of the previous generation stay with their paths. */
import { ROOT_INODE } from '../base/units.js'
import type { Manifest, ManifestEntry } from '../format/manifest.js'
import type { SourceEntry, SourceFile } from './import-scan.js'
import { sameEntries } from './manifest-of.js'
import type { FileMap } from './map-rewrite.js'

export interface PreviousEntries {
  readonly nextInode: number
  readonly byPath: ReadonlyMap<string, ManifestEntry>
}

export const NOTHING_BEFORE: PreviousEntries = { nextInode: ROOT_INODE + 1, byPath: new Map() }

/** Entries of a manifest by their path from the root, which is ''. */
export function previousEntries(manifest: Manifest): PreviousEntries {
  const paths = new Map<number, string>()
  const byPath = new Map<string, ManifestEntry>()
  for (const entry of manifest.entries) {
    const parent = paths.get(entry.parent) ?? ''
    const path = parent === '' ? entry.name : `${parent}/${entry.name}`
    paths.set(entry.inode, path)
    byPath.set(path, entry)
  }
  return { nextInode: manifest.nextInode, byPath }
}

/** The map that a file had, when its path was a file before. */
export function previousMap(previous: PreviousEntries, file: SourceFile): FileMap | undefined {
  const entry = previous.byPath.get(file.relativePath)
  return entry?.type === 'file' ? { map: entry.map, dataBlocks: entry.dataBlocks } : undefined
}

/** A path that became something else (a file where a directory was) is another inode. */
export function importedEntries(
  sources: readonly SourceEntry[],
  maps: ReadonlyMap<SourceFile, FileMap>,
  previous: PreviousEntries
): { readonly entries: ManifestEntry[]; readonly nextInode: number } {
  let { nextInode } = previous
  const inodes = new Map<string, number>()
  const entries = sources.map((source): ManifestEntry => {
    const before = previous.byPath.get(source.relativePath)
    const isRoot = source.relativePath === ''
    const inode = isRoot ? ROOT_INODE : before?.type === source.type ? before.inode : nextInode++
    inodes.set(source.relativePath, inode)
    const parent = isRoot ? 0 : (inodes.get(parentOf(source.relativePath)) ?? ROOT_INODE)
    return entryOf(source, { inode, parent }, maps)
  })
  return { entries, nextInode }
}

/**
 * Whether two generations hold the same. Reading a directory changes its times of access, and ctime says only that
 * something was touched; neither is worth a generation.
 */
export function sameContent(first: readonly ManifestEntry[], second: readonly ManifestEntry[]): boolean {
  const withoutReadings = (entry: ManifestEntry): ManifestEntry => ({ ...entry, atime: '0', ctime: '0' })
  return sameEntries(first.map(withoutReadings), second.map(withoutReadings))
}

function entryOf(
  source: SourceEntry,
  place: { readonly inode: number; readonly parent: number },
  maps: ReadonlyMap<SourceFile, FileMap>
): ManifestEntry {
  const attributes = {
    ...place,
    name: source.name,
    mode: source.mode,
    uid: source.uid,
    gid: source.gid,
    atime: String(source.atimeNs),
    mtime: String(source.mtimeNs),
    ctime: String(source.ctimeNs)
  }
  switch (source.type) {
    case 'file': {
      const { map, dataBlocks } = maps.get(source) ?? { map: null, dataBlocks: 0 }
      return { ...attributes, type: 'file', size: source.sizeBytes, dataBlocks, map }
    }
    case 'symlink':
      return { ...attributes, type: 'symlink', target: source.target }
    case 'character-device':
    case 'block-device':
      return { ...attributes, type: source.type, rdev: source.rdev }
    case 'directory':
    case 'fifo':
      return { ...attributes, type: source.type }
  }
}

function parentOf(relativePath: string): string {
  const slash = relativePath.lastIndexOf('/')
  return slash === -1 ? '' : relativePath.slice(0, slash)
}
