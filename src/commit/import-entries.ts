/** The manifest entries of an imported directory. Inode numbers of the previous generation stay with their paths. */
import { ROOT_INODE } from '../base/units.js'
import { type Manifest, type ManifestEntry, manifestPaths } from '../format/manifest.js'
import type { SourceEntry, SourceFile } from './import-scan.js'
import { sameEntries } from './manifest-of.js'
import type { FileMap } from './map-rewrite.js'

export interface PreviousEntries {
  readonly nextInode: number
  readonly byPath: ReadonlyMap<string, ManifestEntry>
}

export const NOTHING_BEFORE: PreviousEntries = { nextInode: ROOT_INODE + 1, byPath: new Map() }

/** Entries of a manifest by their paths from the root, which is ''. */
export function previousEntries(manifest: Manifest): PreviousEntries {
  return { nextInode: manifest.nextInode, byPath: new Map(manifestPaths(manifest.entries)) }
}

/** The map that a file had, when its path was a file before. */
export function previousMap(previous: PreviousEntries, file: SourceFile): FileMap | undefined {
  for (const path of pathsOf(file)) {
    const entry = previous.byPath.get(path)
    if (entry?.type === 'file') return { map: entry.map, dataBlocks: entry.dataBlocks }
  }
  return undefined
}

/**
 * A path that became something else (a file where a directory was) is another inode; of paths that were one file and are
 * several now, the first keeps the inode.
 */
export function importedEntries(
  sources: readonly SourceEntry[],
  maps: ReadonlyMap<SourceFile, FileMap>,
  previous: PreviousEntries
): { readonly entries: ManifestEntry[]; readonly nextInode: number } {
  let { nextInode } = previous
  const inodes = new Map<string, number>()
  const taken = new Set<number>()
  for (const source of sources) {
    const before = pathsOf(source)
      .map((path) => previous.byPath.get(path))
      .find((entry) => entry?.type === source.type && !taken.has(entry.inode))
    const inode = source.relativePath === '' ? ROOT_INODE : (before?.inode ?? nextInode++)
    inodes.set(source.relativePath, inode)
    taken.add(inode)
  }
  const directoryOf = (path: string): number => inodes.get(parentOf(path)) ?? ROOT_INODE
  const entries = sources.map((source): ManifestEntry => {
    const { relativePath, otherPaths } = source
    const parent = relativePath === '' ? 0 : directoryOf(relativePath)
    const otherNames = otherPaths.map((path) => ({ parent: directoryOf(path), name: nameOf(path) }))
    const names = { parent, name: source.name, ...(otherNames.length === 0 ? {} : { otherNames }) }
    return entryOf(source, { inode: inodes.get(relativePath) ?? ROOT_INODE, ...names }, maps)
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
  place: Pick<ManifestEntry, 'inode' | 'parent' | 'name' | 'otherNames'>,
  maps: ReadonlyMap<SourceFile, FileMap>
): ManifestEntry {
  const attributes = {
    ...place,
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

function pathsOf({ relativePath, otherPaths }: SourceEntry): readonly string[] {
  return [relativePath, ...otherPaths]
}

function nameOf(relativePath: string): string {
  return relativePath.slice(relativePath.lastIndexOf('/') + 1)
}

function parentOf(relativePath: string): string {
  const slash = relativePath.lastIndexOf('/')
  return slash === -1 ? '' : relativePath.slice(0, slash)
}
