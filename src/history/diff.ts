/** `diff`: what differs between two generations, file by file; changed bytes are counted from block maps, not from data. */
import { FailedError } from '../base/errors.js'
import { BLOCK_BYTES, BLOCKS_PER_MAP_PAGE } from '../base/units.js'
import type { PublishedGeneration } from '../format/generations.js'
import type { ManifestEntry } from '../format/manifest.js'
import type { ObjectPlace } from '../format/place.js'
import type { Share } from '../share/share.js'
import { pathsOf, readPage, readRoot } from './references.js'

export interface Difference {
  readonly path: string
  readonly change: 'added' | 'removed' | 'changed' | 'attributes'
  /** bytes of blocks that differ, in whole blocks of 128 KiB */
  readonly changedBytes: number
}

export function diffGenerations(share: Share, from: PublishedGeneration, to: PublishedGeneration): Difference[] {
  const before = entriesByPath(from)
  const after = entriesByPath(to)
  const differences: Difference[] = []
  for (const path of [...new Set([...before.keys(), ...after.keys()])].sort()) {
    const old = before.get(path)
    const now = after.get(path)
    const changedBytes = changedBlocks(share, mapOf(old), mapOf(now)) * BLOCK_BYTES
    if (old === undefined) differences.push({ path, change: 'added', changedBytes })
    else if (now === undefined) differences.push({ path, change: 'removed', changedBytes })
    else if (
      changedBytes > 0 ||
      sizeOf(old) !== sizeOf(now) ||
      old.type !== now.type ||
      targetOf(old) !== targetOf(now)
    )
      differences.push({ path, change: 'changed', changedBytes })
    else if (!sameAttributes(old, now)) differences.push({ path, change: 'attributes', changedBytes: 0 })
  }
  return differences
}

function entriesByPath(generation: PublishedGeneration): Map<string, ManifestEntry> {
  const paths = pathsOf(generation, (name) => {
    throw new FailedError(
      `generation ${String(generation.number)} has directories that lie too deep in each other: a path that ends in ${JSON.stringify(name.slice(0, 80))} is longer than programs can use`,
      { hint: 'mount the two generations with --read-only, and compare what you need' }
    )
  })
  return new Map(generation.manifest.entries.map((entry) => [`/${paths.get(entry.inode) ?? ''}`, entry]))
}

function changedBlocks(share: Share, old: ObjectPlace | null, now: ObjectPlace | null): number {
  if (old?.digest === now?.digest) return 0
  const oldPages = old === null ? new Map<number, ObjectPlace>() : readRoot(share, old)
  const nowPages = now === null ? new Map<number, ObjectPlace>() : readRoot(share, now)
  let changed = 0
  for (const index of new Set([...oldPages.keys(), ...nowPages.keys()])) {
    const [first, second] = [oldPages.get(index), nowPages.get(index)]
    if (first?.digest === second?.digest) continue
    const [oldPage, nowPage] = [first, second].map((place) =>
      place === undefined ? undefined : readPage(share, place)
    )
    for (let block = 0; block < BLOCKS_PER_MAP_PAGE; block++) {
      const was = oldPage?.digest(block)
      const is = nowPage?.digest(block)
      if (was === undefined ? is !== undefined : is === undefined || !was.equals(is)) changed++
    }
  }
  return changed
}

function mapOf(entry: ManifestEntry | undefined): ObjectPlace | null {
  return entry?.type === 'file' ? entry.map : null
}

function sizeOf(entry: ManifestEntry): number {
  return entry.type === 'file' ? entry.size : 0
}

function targetOf(entry: ManifestEntry): string {
  return entry.type === 'symlink' ? entry.target : ''
}

/** Access times do not count: looking is no change. */
function sameAttributes(old: ManifestEntry, now: ManifestEntry): boolean {
  return old.mode === now.mode && old.uid === now.uid && old.gid === now.gid && old.mtime === now.mtime
}
