/**
 * Pages that were made durable inside the journal: a sync of a few pages costs one sync of the disk (the journal's) instead
 * of two in a row (region files, journal). The bytes are in the region file as well, but only in the page cache, so
 * after a power cut the journal's copy is put there. In the same boot it must not be: the page cache is newer.
 *
 * A copy counts until something later does: a newer copy, a barrier (then the region file's bytes are on the disk), or a
 * record that makes the page invalid or valid anew.
 */
import fs from 'node:fs'
import path from 'node:path'
import { FailedError, IntegrityError, messageOf } from '../base/errors.js'
import { type InodeId, PAGE_BYTES, PAGES_PER_REGION, REGION_BYTES, toInodeId } from '../base/units.js'
import { ByteReader, type ByteWriter } from './bytes.js'
import { syncDirectory } from './durable-file.js'
import { type Frame, FRAME_HEADER_BYTES, FRAME_TRAILER_BYTES } from './frame.js'
import type { Namespace } from './namespace.js'
import type { ChangeRecord, Inode } from './namespace-types.js'
import { isValid } from './pages.js'

/** more pages than this are synced in their region files */
export const JOURNALED_PAGES_MAX = 16

const HEAD_BYTES = 16
const PAGE_RECORD_BYTES = 8 + PAGE_BYTES

export function bytesFrameLength(pages: number): number {
  return FRAME_HEADER_BYTES + HEAD_BYTES + pages * PAGE_RECORD_BYTES + FRAME_TRAILER_BYTES
}

/** Puts the payload of a bytes frame behind the header; `read` fills a buffer with the page at a byte offset. */
export function encodeBytes(
  writer: ByteWriter,
  inode: Inode,
  through: number,
  pages: readonly number[],
  read: (into: Uint8Array, offset: number) => void
): void {
  writer.u64(inode.id)
  writer.u64(through)
  for (const page of pages) {
    writer.u64(page)
    const at = writer.reserve(PAGE_BYTES)
    read(writer.bytes.subarray(at, at + PAGE_BYTES), page * PAGE_BYTES)
  }
}

/** What a barrier or a bytes frame vouches for: an inode (0: every one) and the last frame. */
export function decodeBarrier(bytes: Buffer, frame: Frame): { readonly inode: number; readonly through: number } {
  const reader = new ByteReader(bytes, frame.payloadStart, frame.payloadEnd)
  return { inode: reader.u64(), through: reader.u64() }
}

interface Copy {
  readonly bytes: Buffer
  readonly sequence: number
}

/** The copies that still count, while the journals' frames are gone through in order. */
export class JournaledPages {
  readonly #files = new Map<InodeId, Map<number, Copy>>()

  /** A bytes frame. Throws DamageError. */
  add(journal: Buffer, frame: Frame): void {
    const reader = new ByteReader(journal, frame.payloadStart, frame.payloadEnd)
    const inode = toInodeId(reader.u64())
    reader.u64()
    let copies = this.#files.get(inode)
    if (copies === undefined) this.#files.set(inode, (copies = new Map<number, Copy>()))
    for (let index = 0; index < frame.recordCount; index++)
      copies.set(reader.u64(), { bytes: reader.raw(PAGE_BYTES), sequence: frame.sequence })
  }

  /** A barrier: region files have all bytes that frames up to `through` speak of, and what came in between. */
  supersede(inode: number, through: number): void {
    for (const [id, copies] of this.#files) {
      if (inode !== 0 && inode !== id) continue
      for (const [page, { sequence }] of copies) if (sequence <= through) copies.delete(page)
    }
  }

  /** A change that is later than all copies so far. */
  change(record: ChangeRecord): void {
    if (record.kind === 'forget') this.#files.delete(record.inode)
    else if (record.kind === 'size') this.#cut(record.inode, record.sizeBytes)
    else if (record.kind === 'pages')
      this.#drop(record.inode, record.region * PAGES_PER_REGION + record.firstPage, record.checksums.length)
    else if (record.kind === 'punch') this.#drop(record.inode, record.firstPage, record.pageCount)
  }

  /** Files with copies that count, and the sequence of the newest of each. */
  newest(): Map<InodeId, number> {
    const found = new Map<InodeId, number>()
    for (const [inode, copies] of this.#files) {
      for (const { sequence } of copies.values()) found.set(inode, Math.max(found.get(inode) ?? 0, sequence))
    }
    return found
  }

  /**
   * After a power cut: puts the copies of pages that are valid into their region files, durably. May be done again.
   * Throws FailedError, or IntegrityError, with the session as
   * it was.
   */
  restore(
    namespace: Namespace,
    regionPath: (inode: InodeId, region: number) => string,
    regionsDirectory: string
  ): void {
    let restored = 0
    for (const [id, copies] of this.#files) {
      const inode = namespace.get(id)
      if (inode === undefined) continue
      const byRegion = new Map<number, [number, Buffer][]>()
      for (const [page, { bytes }] of copies) {
        if (!isValid(inode, page * PAGE_BYTES)) continue // it went to the share, or was cut off
        const region = Math.floor(page / PAGES_PER_REGION)
        byRegion.set(region, [...(byRegion.get(region) ?? []), [page % PAGES_PER_REGION, bytes]])
      }
      for (const [region, pages] of byRegion) {
        const copied = new Set(pages.map(([page]) => page))
        writeDurably(regionPath(id, region), pages, endOfOthers(inode, region, copied))
      }
      restored += byRegion.size
    }
    if (restored > 0) syncDirectory(regionsDirectory)
  }

  /** Pages past a size lose their bytes, and what the page at the end has past it is zeros (the session's invariant 5). */
  #cut(inode: InodeId, sizeBytes: number): void {
    for (const [page, copy] of this.#files.get(inode) ?? []) {
      if (page * PAGE_BYTES >= sizeBytes) this.#files.get(inode)?.delete(page)
      else if ((page + 1) * PAGE_BYTES > sizeBytes) copy.bytes.fill(0, sizeBytes - page * PAGE_BYTES)
    }
  }

  #drop(inode: InodeId, firstPage: number, count: number): void {
    const copies = this.#files.get(inode)
    for (const page of copies?.keys() ?? []) {
      if (page >= firstPage && page < firstPage + count) copies?.delete(page)
    }
  }
}

/** Where the last valid page of a region ends that has no copy: the region file has it, or nobody. */
function endOfOthers(inode: Inode, region: number, copied: ReadonlySet<number>): number {
  let page = PAGES_PER_REGION - 1
  while (page >= 0 && (copied.has(page) || !isValid(inode, region * REGION_BYTES + page * PAGE_BYTES))) page--
  return (page + 1) * PAGE_BYTES
}

/** `neededBytes` of the file must be there already: zeros must not take their place. */
function writeDurably(file: string, pages: readonly [page: number, bytes: Buffer][], neededBytes: number): void {
  const size = fs.statSync(file, { throwIfNoEntry: false })?.size ?? 0
  if (size < neededBytes) {
    throw new IntegrityError(`the session's ${file} is damaged: it has lost pages that were synced`, {
      hint: `nothing was changed. Keep a copy of ${path.dirname(path.dirname(file))}; isrfs recover <vm> --discard gives these changes up`
    })
  }
  try {
    const { O_RDWR, O_CREAT, O_NOFOLLOW } = fs.constants
    const descriptor = fs.openSync(file, O_RDWR | O_CREAT | O_NOFOLLOW, 0o600)
    try {
      if (size < REGION_BYTES) fs.ftruncateSync(descriptor, REGION_BYTES)
      for (const [page, bytes] of pages) fs.writeSync(descriptor, bytes, 0, PAGE_BYTES, page * PAGE_BYTES)
      fs.fdatasyncSync(descriptor)
    } finally {
      fs.closeSync(descriptor)
    }
  } catch (error) {
    throw new FailedError(`cannot write the session's ${file}: ${messageOf(error)}`, {
      hint: 'nothing is lost; mend the cause (a full or broken disk?), then try again',
      cause: error
    })
  }
}
