/**
 * Tombstones: what stays of a generation or branch that prune has removed, so that its number is never used again and
 * a session that it held is still recognised (docs/format.md, "Tombstones"). The tombstone is written first and the
 * manifest removed afterwards: where there is a tombstone, nothing else in the directory counts.
 */
import * as z from 'zod'
import type { Share } from '../share/share.js'
import { digestHex, identifier, parseVersioned, positive, timestamp, toJson } from './validation.js'

const TOMBSTONE_FORMAT = 'isrfs-tombstone'
const TOMBSTONE_VERSION = 1
export const TOMBSTONE_FILE = 'tombstone.json'
const TOMBSTONE_BYTES_MAX = 64 * 1024

const tombstoneSchema = z.object({
  format: z.literal(TOMBSTONE_FORMAT),
  version: z.literal(TOMBSTONE_VERSION),
  generation: positive,
  /** of the manifest that was here */
  digest: digestHex,
  session: identifier,
  parent: z.object({ generation: positive, digest: digestHex }).nullable(),
  pruned: timestamp
})

export type Tombstone = z.infer<typeof tombstoneSchema>

/** The tombstone in a generation's or branch's directory, or undefined while that is alive. */
export function readTombstone(share: Share, directory: string): Tombstone | undefined {
  const name = `${directory}/${TOMBSTONE_FILE}`
  const bytes = share.readListed(name, TOMBSTONE_BYTES_MAX)
  if (bytes === undefined) return undefined
  const format = { format: TOMBSTONE_FORMAT, version: TOMBSTONE_VERSION, schema: tombstoneSchema }
  return parseVersioned(bytes, format, share.pathOf(name))
}

type NewTombstone = Omit<Tombstone, 'format' | 'version' | 'pruned'>

/** Durable when it returns; the manifest may go then. */
export function writeTombstone(share: Share, directory: string, tombstone: NewTombstone): void {
  for (const [name, bytes] of tombstoneFiles(tombstone)) share.write(`${directory}/${name}`, bytes)
}

/** What the directory of a generation has in it that is nothing but a tombstone. */
export function tombstoneFiles(tombstone: NewTombstone): ReadonlyMap<string, Buffer> {
  const content = { format: TOMBSTONE_FORMAT, version: TOMBSTONE_VERSION, ...tombstone }
  return new Map([[TOMBSTONE_FILE, toJson({ ...content, pruned: new Date().toISOString() })]])
}
