/** A manifest, seen as the base that a session's live state starts from. */
import { toInodeId } from '../base/units.js'
import type { Manifest, ManifestEntry } from '../format/manifest.js'
import type { BaseImage, BaseInode } from '../session/namespace.js'

export function baseImageOf(manifest: Manifest): BaseImage {
  return { nextInode: manifest.nextInode, inodes: manifest.entries.map(baseInodeOf) }
}

function baseInodeOf(entry: ManifestEntry): BaseInode {
  const isFile = entry.type === 'file'
  return {
    id: toInodeId(entry.inode),
    type: entry.type,
    mode: entry.mode,
    uid: entry.uid,
    gid: entry.gid,
    atimeNs: BigInt(entry.atime),
    mtimeNs: BigInt(entry.mtime),
    ctimeNs: BigInt(entry.ctime),
    rdev: 'rdev' in entry ? entry.rdev : 0,
    target: entry.type === 'symlink' ? entry.target : '',
    parent: toInodeId(entry.parent === 0 ? 1 : entry.parent),
    name: entry.name,
    otherNames: (entry.otherNames ?? []).map(({ parent, name }) => ({ parent: toInodeId(parent), name })),
    sizeBytes: isFile ? entry.size : 0,
    base: isFile ? { sizeBytes: entry.size, map: entry.map, dataBlocks: entry.dataBlocks } : undefined
  }
}
