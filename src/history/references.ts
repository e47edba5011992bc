/**
 * What a VM's generations refer to: each map object and block once, however many generations share it, and who suffers
 * when one is damaged. Pages are read one at a time, so memory grows with the number of map pages (one for 128 MiB of a
 * file), not with blocks.
 */
import { messageOf, ShareError } from '../base/errors.js'
import { PATH_CHARACTERS_MAX, toGeneration } from '../base/units.js'
import { readMapObject } from '../cache/map-object.js'
import { decodeMapRoot, MapPage, type MapRoot } from '../format/block-map.js'
import {
  branchDirectory,
  generationName,
  listBranches,
  listGenerations,
  type PublishedGeneration,
  readBranch,
  readGeneration
} from '../format/generations.js'
import type { ObjectPlace } from '../format/place.js'
import { readTombstone } from '../format/tombstone.js'
import { damageIn, isDamaged } from '../share/broken.js'
import type { Share } from '../share/share.js'

/** A file of one generation (or branch), as messages name it. */
export interface FileUse {
  readonly generation: string
  readonly path: string
  readonly sizeBytes: number
}

export interface PageUse extends FileUse {
  readonly pageIndex: number
}

export interface ObjectUses<Use> {
  readonly place: ObjectPlace
  readonly uses: Use[]
}

export interface LiveGeneration {
  /** number, or the name of a branch */
  readonly name: string
  readonly published: PublishedGeneration
}

export interface Unreadable {
  readonly name: string
  readonly path: string
  readonly why: string
  /** false: it was made by a newer isrfs */
  readonly isDamaged: boolean
}

/** All generations and branches that are not pruned; those that are damaged, or on a broken disk, come apart. Throws ShareError. */
export function readLive(share: Share): { readonly live: LiveGeneration[]; readonly unreadable: Unreadable[] } {
  const live: LiveGeneration[] = []
  const unreadable: Unreadable[] = []
  const add = (name: string, directory: string, read: () => PublishedGeneration): void => {
    try {
      if (readTombstone(share, directory) === undefined) live.push({ name, published: read() })
    } catch (error) {
      const why = damageIn(share, error)
      if (error instanceof ShareError && why === undefined) throw error // of one generation or of all: nothing is known of it
      unreadable.push({
        name,
        path: share.pathOf(directory),
        why: why ?? messageOf(error),
        isDamaged: isDamaged(share, error)
      })
    }
  }
  for (const number of listGenerations(share)) {
    add(String(number), generationName(number), () => readGeneration(share, toGeneration(number)))
  }
  for (const name of listBranches(share)) add(name, branchDirectory(name), () => readBranch(share, name))
  return { live, unreadable }
}

/** The map roots of these generations, by digest and place. */
export function rootsOf(generations: readonly LiveGeneration[]): Map<string, ObjectUses<FileUse>> {
  const roots = new Map<string, ObjectUses<FileUse>>()
  for (const { name, published } of generations) {
    const paths = pathsOf(published)
    for (const entry of published.manifest.entries) {
      if (entry.type !== 'file' || entry.map === null) continue
      const use = { generation: name, path: paths.get(entry.inode) ?? entry.name, sizeBytes: entry.size }
      addUse(roots, entry.map, use)
    }
  }
  return roots
}

/** The pages that a root lists. Throws IntegrityError when the root is damaged. */
export function addPages(share: Share, root: ObjectUses<FileUse>, pages: Map<string, ObjectUses<PageUse>>): void {
  for (const [pageIndex, place] of readRoot(share, root.place)) {
    for (const use of root.uses) addUse(pages, place, { ...use, pageIndex })
  }
}

export function readRoot(share: Share, place: ObjectPlace): MapRoot {
  return decodeMapRoot(readObject(share, place))
}

export function readPage(share: Share, place: ObjectPlace): MapPage {
  return new MapPage(readObject(share, place))
}

function readObject(share: Share, place: ObjectPlace): Buffer {
  const { bytes } = readMapObject(share, place, undefined)
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)
}

function addUse<Use>(all: Map<string, ObjectUses<Use>>, place: ObjectPlace, use: Use): void {
  const key = `${place.chunk}:${String(place.offset)}:${place.digest}`
  const known = all.get(key)
  if (known === undefined) all.set(key, { place, uses: [use] })
  else known.uses.push(use)
}

/**
 * Path of each inode below the root of the VM. Parents come before their children. Directories of a hostile manifest lie in
 * each other 200,000 deep: all of their paths are tens of gigabytes. So what is longer than a path can be for a program
 * begins anew.
 */
function pathsOf({ manifest }: PublishedGeneration): Map<number, string> {
  const paths = new Map<number, string>()
  for (const entry of manifest.entries) {
    const parent = paths.get(entry.parent)
    const path = parent === undefined || parent === '' ? entry.name : `${parent}/${entry.name}`
    paths.set(entry.inode, path.length > PATH_CHARACTERS_MAX ? `.../${entry.name}` : path)
  }
  return paths
}
