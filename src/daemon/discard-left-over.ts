/** Drops a session that was left behind, after saying what is in it. */
import { IntegrityError, IsrfsError, messageOf } from '../base/errors.js'
import { contentMayDiffer } from '../commit/dirty.js'
import type { SharePool } from '../fetch/share-pool.js'
import type { PublishedGeneration } from '../format/generations.js'
import { pathOfInode } from '../session/inode-path.js'
import { changedBytes } from '../session/left-over.js'
import { Session, type SessionIdentity } from '../session/session.js'
import { openLeftOver } from './claim.js'
import { findBase } from './lost-base.js'

/** What goes with a session. */
export interface Dropped {
  /** 'unknown' when not even that can be read */
  readonly created: string
  /** that it is based on; null: unknown */
  readonly generation: number | null
  /** disk space of the changes; null: unknown */
  readonly changedBytes: number | null
  /** paths of files that are new or have other content; undefined: unknown */
  readonly changedFiles: readonly string[] | undefined
  /** the generation or branch that has all of it already; null: none that this client has noted */
  readonly published: string | null
  /** why something is unknown */
  readonly damage: string | undefined
}

interface OfVm {
  readonly pool: SharePool
  readonly vmPath: string
  readonly vmId: string
  readonly clientDirectory: string
}

/** undefined: there is none. One that is damaged can be dropped too. Its lock is held by the caller. */
export async function describeSession(vm: OfVm, directory: string): Promise<Dropped | undefined> {
  const unknown = { generation: null, changedBytes: null, changedFiles: undefined, published: null }
  let identity: SessionIdentity | undefined
  try {
    identity = Session.inspect(directory)
  } catch (error) {
    if (error instanceof IntegrityError) return { created: 'unknown', ...unknown, damage: messageOf(error) }
    throw error
  }
  if (identity === undefined) return undefined
  const published = Session.publishedAs(directory)
  const known = {
    created: identity.createdIso,
    generation: identity.baseGeneration,
    changedBytes: changedBytes(directory),
    published: published === undefined ? null : (published.branch ?? String(published.generation))
  }
  try {
    const { base } = await findBase(vm, directory, identity)
    return { ...known, changedFiles: await changedFilesOf(directory, base), damage: undefined }
  } catch (error) {
    if (!(error instanceof IsrfsError)) throw error
    return { ...known, changedFiles: undefined, damage: messageOf(error) }
  }
}

async function changedFilesOf(directory: string, base: PublishedGeneration): Promise<string[]> {
  const session = openLeftOver(directory, base)
  try {
    const { namespace } = session
    const before = new Set<number>(base.manifest.entries.map(({ inode }) => inode))
    return [...namespace.inodes()]
      .filter((inode) => inode.type === 'file' && inode.parent !== 0)
      .filter((inode) => !before.has(inode.id) || contentMayDiffer(inode))
      .map((inode) => pathOfInode(namespace, inode))
      .sort()
  } finally {
    await session.close().catch(() => undefined) // it is going to be dropped
  }
}
