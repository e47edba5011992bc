/** What tree/ asks of a file's bytes. Implemented by FileImages; tree/ knows nothing of blocks, chunks or caches. */
import type { Inode } from '../session/namespace-types.js'

/** Whether an error may be given to this reader: nobody writes to the file, and no process has it mapped. */
export type MayGiveUp = () => Promise<boolean>

export interface FileImage {
  /**
   * Fills `into` from `offset`; the count is short only at the end of the file. Rejects with PosixError EIO on damage.
   * `mayBeForWrite`: the kernel may want the page because part of it is to be written.
   */
  read(
    inode: Inode,
    into: Buffer,
    offset: number,
    mayGiveUp?: MayGiveUp,
    mayBeForWrite?: boolean
  ): number | Promise<number>
  /**
   * Accepts all bytes or throws. A write of whole pages never waits for the share. One that waits, and that nobody waits for
   * any more (`isGivenUp`), changes nothing and rejects with EINTR.
   */
  write(inode: Inode, bytes: Buffer, offset: number, isGivenUp?: () => boolean): number | Promise<number>
  truncate(inode: Inode, sizeBytes: number): void | Promise<void>
  /** `mode` is Linux's FALLOC_FL_* bits; EOPNOTSUPP for those that are not supported. */
  fallocate(inode: Inode, mode: number, offset: number, lengthBytes: number): void | Promise<void>
  /** SEEK_DATA and SEEK_HOLE; ENXIO at and past the end. With unflushed pages everything counts as data. */
  seek(inode: Inode, offset: number, whence: 'data' | 'hole', mayHaveUnflushedPages: boolean): number | Promise<number>
  /** for st_blocks */
  allocatedBytes(inode: Inode): number
  /** Durable when it resolves: what was written to this file before the call. */
  sync(inode: Inode): Promise<void>
  /** Throws PosixError ENOSPC while refusing is still safe: at create, open for writing, extend. */
  requireSpace(bytes: number): void
  space(): { readonly totalBytes: number; readonly freeBytes: number }
}
