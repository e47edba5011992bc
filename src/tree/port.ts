/** What tree/ asks of the session: the live namespace and the one way to change it. Session fulfils it. */
import type { InodeId } from '../base/units.js'
import type { ChangeRecord, Inode } from '../session/namespace-types.js'

export interface TreeNamespace {
  /** first id that was never used */
  readonly nextInode: number
  get(id: InodeId): Inode | undefined
  child(parent: Inode, name: string): Inode | undefined
  allocateInode(): InodeId
}

export interface TreeSession {
  readonly namespace: TreeNamespace
  /** Journals the records as one atomic unit and applies them; throws PosixError with the state unchanged. */
  record(...records: ChangeRecord[]): void
}
