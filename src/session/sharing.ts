/**
 * Others that serve bytes straight from region files (request threads, image/shared-regions.ts), as the session sees
 * them: it tells them before something that they may use changes. Each call returns when nobody uses it any more.
 *
 * They may also write to pages that are valid, in a region that the session allows it for (Session.maySharedWrite): one with
 * bytes that the next sync of the file has to make durable in its region file anyway. So a sync need not know what they
 * have written: it ends their writes before it takes the list of regions. Whoever wants to know whether a region has
 * changed (changeTick) or when (beginEpoch) ends them as well; they begin again only with a write of the session's own.
 */
import type { InodeId } from '../base/units.js'
import type { Inode } from './namespace-types.js'

export interface RegionSharing {
  /** Until resume(): regions from..to (exclusive) of the file are used by nobody but the session. */
  pause(inode: InodeId, from: number, to: number): void
  /** Bytes start..end of the file may have changed, and where they are; the regions of them may be used again. */
  resume(inode: Inode, start: number, end: number): void
  /** Nothing that was known of regions from..to (exclusive) of the file counts any more. */
  withdraw(inode: InodeId, from: number, to: number): void
  withdrawAll(): void
  /** Nobody but the session writes to the region (to all of the file; to any) until it has written there itself again. */
  endWrites(inode?: InodeId, region?: number): void
  /** Written by others since their writes ended last, about. */
  readonly writtenBytes: number
}
