/**
 * Manifests: the immutable description of one generation, every file with its attributes and the root of its block
 * map (docs/format.md, "Manifests"). Parsing checks all that a hostile share could have put in.
 */
import { z } from 'zod'
import { IntegrityError } from '../base/errors.js'
import { BLOCK_BYTES, FILE_BYTES_MAX, NAME_BYTES_MAX, SYMLINK_BYTES_MAX } from '../base/units.js'
import {
  count,
  digestHex,
  identifier,
  label,
  objectPlaceSchema,
  parseJson,
  positive,
  timestamp,
  toJson
} from './validation.js'

export const MANIFEST_FORMAT = 'isrfs-manifest'
export const MANIFEST_VERSION = 1
export const MANIFEST_BYTES_MAX = 256 * 1024 * 1024

/** nanoseconds since the epoch, in decimal because JSON numbers are too small */
const nanoseconds = z.string().regex(/^-?\d{1,19}$/)

const attributes = {
  inode: positive,
  /** inode of the directory; 0 for the root directory only */
  parent: count,
  name: z.string(),
  mode: z.number().int().min(0).max(0o7777),
  uid: z.number().int().min(0).max(0xffffffff),
  gid: z.number().int().min(0).max(0xffffffff),
  atime: nanoseconds,
  mtime: nanoseconds,
  ctime: nanoseconds
}

const entrySchema = z.discriminatedUnion('type', [
  z.object({
    ...attributes,
    type: z.literal('file'),
    size: count.max(FILE_BYTES_MAX),
    dataBlocks: count.max(FILE_BYTES_MAX / BLOCK_BYTES),
    map: objectPlaceSchema.nullable()
  }),
  z.object({ ...attributes, type: z.literal('directory') }),
  z.object({ ...attributes, type: z.literal('symlink'), target: z.string() }),
  z.object({ ...attributes, type: z.literal('fifo') }),
  z.object({ ...attributes, type: z.literal('socket') }),
  z.object({ ...attributes, type: z.literal('character-device'), rdev: count }),
  z.object({ ...attributes, type: z.literal('block-device'), rdev: count })
])

const manifestSchema = z.object({
  format: z.literal(MANIFEST_FORMAT),
  version: z.number(),
  vm: identifier,
  generation: positive,
  /** what this generation was made from; null for an import */
  parent: z.object({ generation: positive, digest: digestHex }).nullable(),
  /** random id of the session (or import) whose work this is */
  session: identifier,
  created: timestamp,
  client: z.object({ id: identifier, host: label }),
  /** bytes of blocks that differ from the parent, before compression */
  changedBytes: count,
  /** bytes that were sent to the share for it */
  sentBytes: count,
  /** first inode number that was never used */
  nextInode: positive,
  entries: z.array(entrySchema).min(1)
})

const versionSchema = z.object({ format: z.literal(MANIFEST_FORMAT), version: z.number().int() })

export type Manifest = z.infer<typeof manifestSchema>
export type ManifestEntry = z.infer<typeof entrySchema>

export function encodeManifest(manifest: Manifest): Buffer {
  return toJson(manifest)
}

/** Parses and validates a manifest; `what` names it in messages. Throws IntegrityError. */
export function parseManifest(bytes: Buffer, what: string): Manifest {
  const { version } = parseJson(bytes, versionSchema, what)
  if (version !== MANIFEST_VERSION) {
    throw new IntegrityError(
      `${what} has format version ${String(version)}; this isrfs reads version ${String(MANIFEST_VERSION)}`,
      {
        hint: 'use a newer isrfs'
      }
    )
  }
  const manifest = parseJson(bytes, manifestSchema, what)
  checkTree(manifest, what)
  return manifest
}

/** Parents come before their children, names are unique and harmless, nothing lies outside of the root. */
function checkTree(manifest: Manifest, what: string): void {
  const refuse = (entry: ManifestEntry, why: string): never => {
    throw new IntegrityError(
      `${what} is damaged or hostile: the entry ${JSON.stringify(entry.name.slice(0, 80))} (inode ${String(entry.inode)}) ${why}`
    )
  }
  const [root] = manifest.entries
  if (root?.type !== 'directory' || root.inode !== 1 || root.parent !== 0 || root.name !== '') {
    throw new IntegrityError(`${what} is damaged: its first entry is not the root directory`)
  }
  const inodes = new Set<number>()
  const names = new Map<number, Set<string>>()
  for (const entry of manifest.entries) {
    if (inodes.has(entry.inode) || entry.inode >= manifest.nextInode)
      refuse(entry, 'has an inode number that it cannot have')
    inodes.add(entry.inode)
    if (entry.type === 'directory') names.set(entry.inode, new Set())
    if (entry !== root) {
      const why = whyNameIsRefused(entry.name)
      if (why !== undefined) refuse(entry, why)
      const siblings = names.get(entry.parent)
      if (siblings === undefined || entry.parent === entry.inode)
        refuse(entry, 'is in no directory that was named before it')
      else if (siblings.has(entry.name)) refuse(entry, 'has the name of another one in its directory')
      else siblings.add(entry.name)
    }
    if (
      entry.type === 'symlink' &&
      (entry.target === '' || entry.target.includes('\0') || Buffer.byteLength(entry.target) > SYMLINK_BYTES_MAX)
    ) {
      refuse(entry, 'is a symbolic link with an impossible target')
    }
    if (entry.type === 'file' && entry.dataBlocks > Math.ceil(entry.size / BLOCK_BYTES)) {
      refuse(entry, 'has more blocks than its size allows')
    }
    if (entry.type === 'file' && (entry.map === null) !== (entry.dataBlocks === 0))
      refuse(entry, 'has a block map that does not fit its blocks')
  }
}

/** Why a file name cannot be shown in a directory, or undefined when it can. */
export function whyNameIsRefused(name: string): string | undefined {
  if (name === '' || name === '.' || name === '..') return 'has a name that means a directory'
  if (name.includes('/')) return 'has a name with "/"'
  if (name.includes('\0')) return 'has a name with a zero byte'
  if (Buffer.byteLength(name) > NAME_BYTES_MAX) return `has a name of more than ${String(NAME_BYTES_MAX)} bytes`
  if (name.includes('\uFFFD')) return 'has a name that is not valid UTF-8'
  return undefined
}
