/**
 * The live state of a VM's files and directories: a base image plus applied records.
 *
 * Invariants:
 * 1. State changes only in `apply`, live and in replay. Records carry resulting values: applying twice is applying once.
 * 2. A page is valid in the session, or a hole (punched), or of its block's uploaded bytes, or the base's: the first of
 *    these that applies.
 * 3. Inode numbers are never used twice.
 * 4. A directory has one name at most; everything else may have several, of which `parent` and `name` are the first: an
 *    inode has no name exactly when its `parent` is 0.
 */
import assert from 'node:assert/strict'
import { bitWords, clearBit, clearBits, countBits, getBit, setBit } from '../base/bits.js'
import {
  BLOCK_BYTES,
  BLOCKS_PER_REGION,
  type InodeId,
  PAGE_BYTES,
  PAGES_PER_BLOCK,
  PAGES_PER_REGION,
  ROOT_INODE,
  toInodeId
} from '../base/units.js'
import type { ChangeRecord, Inode, NamePlace, RegionPages, UploadedBlock } from './namespace-types.js'

/** An inode as a base image describes it. `parent` of the root is the root; 0 is an inode without a name. */
export interface BaseInode extends Readonly<
  Omit<Inode, 'otherNames' | 'children' | 'subdirectories' | 'baseLimitBytes' | 'regions' | 'uploaded'>
> {
  readonly otherNames?: readonly NamePlace[]
  /** given by a snapshot; a manifest's files start with all of their base and no region */
  readonly baseLimitBytes?: number
  readonly regions?: Map<number, RegionPages>
  readonly uploaded?: Map<number, UploadedBlock>
}

export interface BaseImage {
  readonly nextInode: number
  readonly inodes: Iterable<BaseInode>
}

export class Namespace {
  dirtyPages = 0
  changed = false
  #nextInode: number
  readonly #inodes = new Map<InodeId, Inode>()

  constructor(base: BaseImage) {
    this.#nextInode = base.nextInode
    for (const inode of base.inodes) {
      this.#inodes.set(inode.id, {
        ...inode,
        // names come below, when all directories are known
        parent: inode.id === ROOT_INODE ? inode.parent : toInodeId(0),
        name: '',
        otherNames: [],
        children: inode.type === 'directory' ? new Map() : undefined,
        subdirectories: 0,
        baseLimitBytes: inode.baseLimitBytes ?? inode.base?.sizeBytes ?? 0,
        regions: inode.regions ?? new Map<number, RegionPages>(),
        uploaded: inode.uploaded ?? new Map<number, UploadedBlock>()
      })
      for (const pages of inode.regions?.values() ?? []) this.dirtyPages += countBits(pages.valid)
    }
    for (const inode of base.inodes) {
      if (inode.id === ROOT_INODE || inode.parent === 0) continue
      this.#link(inode.parent, inode.name, inode.id)
      for (const { parent, name } of inode.otherNames ?? []) this.#link(parent, name, inode.id)
    }
  }

  get nextInode(): number {
    return this.#nextInode
  }

  get(id: InodeId): Inode | undefined {
    return this.#inodes.get(id)
  }

  child(parent: Inode, name: string): Inode | undefined {
    const id = parent.children?.get(name)
    return id === undefined ? undefined : this.#inodes.get(id)
  }

  inodes(): IterableIterator<Inode> {
    return this.#inodes.values()
  }

  hasHardLinks(): boolean {
    for (const { otherNames } of this.#inodes.values()) if (otherNames.length > 0) return true
    return false
  }

  allocateInode(): InodeId {
    return toInodeId(this.#nextInode++)
  }

  apply(record: ChangeRecord): void {
    this.changed = true
    switch (record.kind) {
      case 'inode': {
        const known = this.#inodes.get(record.inode)
        const { mode, uid, gid, atimeNs, mtimeNs, ctimeNs } = record
        if (known !== undefined) Object.assign(known, { mode, uid, gid, atimeNs, mtimeNs, ctimeNs })
        else {
          this.#nextInode = Math.max(this.#nextInode, record.inode + 1)
          this.#inodes.set(record.inode, {
            id: record.inode,
            type: record.type,
            mode,
            uid,
            gid,
            atimeNs,
            mtimeNs,
            ctimeNs,
            rdev: record.rdev,
            target: record.target,
            parent: toInodeId(0),
            name: '',
            otherNames: [],
            children: record.type === 'directory' ? new Map() : undefined,
            subdirectories: 0,
            sizeBytes: 0,
            base: undefined,
            baseLimitBytes: 0,
            regions: new Map(),
            uploaded: new Map()
          })
        }
        return
      }
      case 'link':
        this.#link(record.parent, record.name, record.inode)
        return
      case 'unlink': {
        const parent = this.#must(record.parent)
        const inode = this.#must(parent.children?.get(record.name) ?? toInodeId(0))
        parent.children?.delete(record.name)
        if (inode.type === 'directory') parent.subdirectories--
        takeName(inode, record.parent, record.name)
        return
      }
      case 'forget': {
        const inode = this.#must(record.inode)
        for (const pages of inode.regions.values()) this.dirtyPages -= countBits(pages.valid)
        this.#inodes.delete(record.inode)
        return
      }
      case 'size': {
        const inode = this.#must(record.inode)
        if (record.sizeBytes < inode.sizeBytes) {
          const first = Math.ceil(record.sizeBytes / PAGE_BYTES)
          this.#invalidate(inode, first, Math.ceil(inode.sizeBytes / PAGE_BYTES) - first, false)
          cutUploaded(inode, record.sizeBytes)
        }
        inode.sizeBytes = record.sizeBytes
        inode.baseLimitBytes = record.baseLimitBytes
        return
      }
      case 'punch':
        this.#invalidate(this.#must(record.inode), record.firstPage, record.pageCount, true)
        return
      case 'pages': {
        const pages = this.#pages(this.#must(record.inode), record.region)
        for (let index = 0; index < record.checksums.length; index++) {
          this.#validate(pages, record.firstPage + index)
        }
        return
      }
      case 'uploaded': {
        const inode = this.#must(record.inode)
        const pages = this.#pages(inode, record.region)
        for (const [block, uploaded] of record.blocks) {
          const firstPage = block * PAGES_PER_BLOCK
          this.dirtyPages -= countBits(pages.valid.subarray(block, block + 1)) // a block is one word
          clearBits(pages.valid, firstPage, PAGES_PER_BLOCK)
          if (pages.punched !== undefined) clearBits(pages.punched, firstPage, PAGES_PER_BLOCK)
          inode.uploaded.set(record.region * BLOCKS_PER_REGION + block, uploaded)
        }
        return
      }
    }
  }

  /** What 'pages' records for all pages of [start, end) do, without the records: for the write path. */
  markPages(inode: Inode, start: number, end: number): void {
    this.changed = true
    for (let page = Math.floor(start / PAGE_BYTES); page * PAGE_BYTES < end; page++) {
      this.#validate(this.#pages(inode, Math.floor(page / PAGES_PER_REGION)), page % PAGES_PER_REGION)
    }
  }

  #validate(pages: RegionPages, page: number): void {
    if (pages.punched !== undefined) clearBit(pages.punched, page)
    if (getBit(pages.valid, page)) return
    setBit(pages.valid, page)
    this.dirtyPages++
  }

  #pages(inode: Inode, region: number): RegionPages {
    let pages = inode.regions.get(region)
    if (pages === undefined) {
      pages = { valid: new Uint32Array(bitWords(PAGES_PER_REGION)), punched: undefined }
      inode.regions.set(region, pages)
    }
    return pages
  }

  #invalidate(inode: Inode, firstPage: number, count: number, punch: boolean): void {
    const end = firstPage + count
    for (let region = Math.floor(firstPage / PAGES_PER_REGION); region * PAGES_PER_REGION < end; region++) {
      const from = Math.max(firstPage - region * PAGES_PER_REGION, 0)
      const to = Math.min(end - region * PAGES_PER_REGION, PAGES_PER_REGION)
      const isAboveBytes =
        region * PAGES_PER_REGION * PAGE_BYTES < inode.baseLimitBytes || hasUploaded(inode, region, from, to)
      const known = inode.regions.get(region)
      if (known !== undefined) {
        const before = countBits(known.valid)
        clearBits(known.valid, from, to - from)
        this.dirtyPages -= before - countBits(known.valid)
        if (!punch && known.punched !== undefined) clearBits(known.punched, from, to - from)
      }
      if (punch && isAboveBytes) {
        const pages = this.#pages(inode, region)
        pages.punched ??= new Uint32Array(bitWords(PAGES_PER_REGION))
        for (let page = from; page < to; page++) setBit(pages.punched, page)
      }
    }
  }

  #link(parentId: InodeId, name: string, id: InodeId): void {
    const parent = this.#must(parentId)
    const inode = this.#must(id)
    const present = parent.children?.get(name)
    if (present === id) return // applied twice
    assert(parent.children !== undefined, 'a name in something that is no directory')
    assert(present === undefined, 'a name that is taken')
    assert(inode.parent === 0 || inode.type !== 'directory', 'a directory with two names')
    parent.children.set(name, id)
    if (inode.type === 'directory') parent.subdirectories++
    if (inode.parent !== 0) {
      inode.otherNames.push({ parent: parentId, name })
      return
    }
    inode.parent = parentId
    inode.name = name
  }

  #must(id: InodeId): Inode {
    const inode = this.#inodes.get(id)
    assert(inode !== undefined, 'no such inode')
    return inode
  }
}

/** Invariant 4. */
function takeName(inode: Inode, parent: InodeId, name: string): void {
  if (inode.parent !== parent || inode.name !== name) {
    const index = inode.otherNames.findIndex((other) => other.parent === parent && other.name === name)
    assert(index !== -1, 'a name that the inode does not know')
    inode.otherNames.splice(index, 1)
    return
  }
  const next = inode.otherNames.shift()
  inode.parent = next?.parent ?? toInodeId(0)
  inode.name = next?.name ?? ''
}

/** Bytes of uploaded blocks past the end of their file do not count any more, also when it grows again. */
function cutUploaded(inode: Inode, sizeBytes: number): void {
  for (const [block, { place, limitBytes }] of inode.uploaded) {
    const left = sizeBytes - block * BLOCK_BYTES
    if (left <= 0) inode.uploaded.delete(block)
    else if (left < limitBytes) inode.uploaded.set(block, { place, limitBytes: left })
  }
}

function hasUploaded(inode: Inode, region: number, fromPage: number, toPage: number): boolean {
  if (inode.uploaded.size === 0) return false
  for (let block = Math.floor(fromPage / PAGES_PER_BLOCK); block * PAGES_PER_BLOCK < toPage; block++) {
    if (inode.uploaded.has(region * BLOCKS_PER_REGION + block)) return true
  }
  return false
}
