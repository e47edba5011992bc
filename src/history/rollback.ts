/**
 * `rollback`: the content of an older generation, or of a branch, becomes the newest generation. Nothing is copied and
 * nothing is lost: what was the newest stays in the history. Done under the lease, like every generation.
 */
import { randomBytes } from 'node:crypto'
import { LeaseHeldError } from '../base/errors.js'
import { acquireImportLease, checkPromised, type ImportClient, referenceTo } from '../commit/import-lease.js'
import { publishGeneration, type PublishedGeneration, readNewestGeneration } from '../format/generations.js'
import { leaseStillHeld, releaseLease } from '../share/lease.js'
import type { Share } from '../share/share.js'

export interface RollbackOptions {
  readonly share: Share
  /** as people name it: a number, or a branch */
  readonly name: string
  readonly source: PublishedGeneration
  readonly client: ImportClient
}

/** undefined: it is the newest generation already. */
export function rollBack({ share, name, source, client }: RollbackOptions): PublishedGeneration | undefined {
  const held = acquireImportLease(share, client)
  let newest: PublishedGeneration | undefined
  try {
    const base = readNewestGeneration(share)
    checkPromised(share, held, base)
    newest = base
    if (base.digest === source.digest) return undefined
    if (!leaseStillHeld(share, held)) {
      throw new LeaseHeldError(`the lease of ${share.root} was taken by somebody else`, {
        hint: `nothing was published; see who has it: isrfs lease ${share.root}`
      })
    }
    newest = publishGeneration(share, {
      ...source.manifest,
      generation: base.number + 1,
      parent: { generation: base.number, digest: base.digest },
      session: randomBytes(16).toString('hex'),
      created: new Date().toISOString(),
      client: { id: client.id, host: client.host },
      changedBytes: 0,
      sentBytes: 0,
      restores: name,
      checkpoint: undefined,
      nextInode: Math.max(base.manifest.nextInode, source.manifest.nextInode) // inode numbers are never used twice
    })
    return newest
  } finally {
    releaseLease(share, held, newest === undefined ? held.generation : referenceTo(newest))
  }
}
