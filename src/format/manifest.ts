/**
 * Manifests: the immutable description of one generation, every file with its attributes and the root of its block
 * map (docs/format.md, "Manifests"). Parsing checks all that a hostile share could have put in.
 */
import * as z from 'zod'
import { FailedError, IntegrityError } from '../base/errors.js'
import {
  BLOCK_BYTES,
  FILE_BYTES_MAX,
  LINKS_MAX,
  NAME_BYTES_MAX,
  PATH_CHARACTERS_MAX,
  SYMLINK_BYTES_MAX
} from '../base/units.js'
import {
  count,
  digestHex,
  identifier,
  label,
  objectPlaceSchema,
  parseVersioned,
  positive,
  timestamp,
  toJson
} from './validation.js'

export const MANIFEST_FORMAT = 'isrfs-manifest'
const VERSION_WITH_OTHER_NAMES = 2
const VERSION = 1
/** about 200,000 files: a VM has dozens, and all of a manifest is in memory at once */
export const MANIFEST_BYTES_MAX = 64 * 1024 * 1024
/** inode numbers are smaller, so that a region of a file has one safe integer for a name */
const NEXT_INODE_MAX = 2 ** 33 - 1
/** the largest user and group id: the one above means "unchanged" to chown(2) */
const OWNER_ID_MAX = 0xfffffffe

/** nanoseconds since the epoch, a 64-bit number with its sign, in decimal because JSON numbers are too small */
const nanoseconds = z.string().refine(isNanoseconds, 'is not a 64-bit number')

const attributes = {
  inode: positive,
  /** inode of the directory; 0 for the root directory only */
  parent: count,
  name: z.string(),
  /** hard links; in no particular order */
  otherNames: z
    .array(z.object({ parent: positive, name: z.string() }))
    .min(1)
    .max(LINKS_MAX - 1)
    .optional(),
  mode: count.max(0o7777),
  uid: count.max(OWNER_ID_MAX),
  gid: count.max(OWNER_ID_MAX),
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
  version: z.union([z.literal(VERSION), z.literal(VERSION_WITH_OTHER_NAMES)]),
  vm: identifier,
  generation: positive,
  /** what this generation was made from; null for an import */
  parent: z.object({ generation: positive, digest: digestHex }).nullable(),
  /** random id of the session (or import) whose work this is */
  session: identifier,
  created: timestamp,
  client: z.object({ id: identifier, host: label(256) }),
  /** bytes of blocks that differ from the parent, before compression */
  changedBytes: count,
  /** bytes that were sent to the share for it */
  sentBytes: count,
  /** generation or branch whose content this is, when a rollback has made it */
  restores: label(64).optional(),
  /** made by prune: the content of its parent, in other chunks */
  compaction: z.literal(true).optional(),
  /** of a checkpoint: the session that went on after it, and how many it had published before */
  checkpoint: z.object({ session: identifier, sequence: positive }).optional(),
  /** first inode number that was never used */
  nextInode: positive.max(NEXT_INODE_MAX),
  entries: z.array(entrySchema).min(1)
})

export type Manifest = z.infer<typeof manifestSchema>
export type ManifestEntry = z.infer<typeof entrySchema>

/** The lowest version that can tell of these entries: an isrfs that knows no hard links reads what has none. */
export function manifestVersion(entries: readonly ManifestEntry[]): Manifest['version'] {
  return entries.some(({ otherNames }) => otherNames !== undefined) ? VERSION_WITH_OTHER_NAMES : VERSION
}

export function encodeManifest(manifest: Manifest): Buffer {
  return toJson(manifest)
}

/** Parses and validates a manifest; `what` names it in messages. Throws IntegrityError. */
export function parseManifest(bytes: Buffer, what: string): Manifest {
  const version = [VERSION, VERSION_WITH_OTHER_NAMES]
  const expected = { format: MANIFEST_FORMAT, version, schema: manifestSchema }
  const manifest = parseVersioned(bytes, expected, what)
  if (manifest.parent !== null && manifest.parent.generation >= manifest.generation) {
    throw new IntegrityError(`${what} is damaged: it names a parent that is not older than itself`)
  }
  if (manifest.version < manifestVersion(manifest.entries)) {
    throw new IntegrityError(`${what} is damaged: it has hard links, which its version does not know`)
  }
  checkTree(manifest, what)
  return manifest
}

/**
 * Every name of every entry as a path from the root, which is ''; an entry's first name before its others. Throws FailedError
 * where a path is longer than programs can use: those of a hostile manifest may be gigabytes.
 */
export function* manifestPaths(
  entries: readonly ManifestEntry[]
): Generator<readonly [path: string, entry: ManifestEntry]> {
  const directories = new Map<number, string>()
  const pathOf = ({ parent, name }: { readonly parent: number; readonly name: string }): string => {
    const above = directories.get(parent) ?? ''
    const path = above === '' ? name : `${above}/${name}`
    if (path.length > PATH_CHARACTERS_MAX) throw tooDeep(name)
    return path
  }
  for (const entry of entries) if (entry.type === 'directory') directories.set(entry.inode, pathOf(entry))
  for (const entry of entries) {
    yield [pathOf(entry), entry]
    for (const other of entry.otherNames ?? []) yield [pathOf(other), entry]
  }
}

/**
 * Parents come before their children, names are unique and harmless, nothing lies outside of the root. The other names of
 * a file may be in any directory.
 */
function checkTree(manifest: Manifest, what: string): void {
  const [root, ...others] = manifest.entries
  if (root?.type !== 'directory' || root.inode !== 1 || root.parent !== 0 || root.name !== '') {
    throw new IntegrityError(`${what} is damaged: its first entry is not the root directory`)
  }
  const inodes = new Set([root.inode])
  const directories = new Map([[root.inode, new Set<string>()]])
  for (const entry of others) {
    const siblings = directories.get(entry.parent)
    const why =
      whyInodeIsRefused(entry.inode, inodes, manifest.nextInode) ??
      whyNameIsRefused(entry.name) ??
      whyPlaceIsRefused(entry.name, siblings) ??
      whyContentIsRefused(entry)
    if (why !== undefined) throw refused(what, entry, entry.name, why)
    inodes.add(entry.inode)
    siblings?.add(entry.name)
    if (entry.type === 'directory') directories.set(entry.inode, new Set())
  }
  for (const entry of manifest.entries) {
    if (entry.otherNames === undefined) continue
    if (entry.type === 'directory') throw refused(what, entry, entry.name, 'is a directory with several names')
    for (const { parent, name } of entry.otherNames) {
      const siblings = directories.get(parent)
      const why = whyNameIsRefused(name) ?? whyPlaceIsRefused(name, siblings)
      if (why !== undefined) throw refused(what, entry, name, why)
      siblings?.add(name)
    }
  }
}

function refused(what: string, entry: ManifestEntry, name: string, why: string): IntegrityError {
  const shown = JSON.stringify(name.slice(0, 80))
  return new IntegrityError(`${what} is damaged or hostile: the entry ${shown} (inode ${String(entry.inode)}) ${why}`)
}

function whyInodeIsRefused(inode: number, used: ReadonlySet<number>, nextInode: number): string | undefined {
  if (used.has(inode)) return 'has the inode number of another one'
  if (inode >= nextInode) return 'has an inode number that was never given out'
  return undefined
}

function whyPlaceIsRefused(name: string, siblings: ReadonlySet<string> | undefined): string | undefined {
  if (siblings === undefined) return 'is in no directory that was named before it'
  if (siblings.has(name)) return 'has the name of another one in its directory'
  return undefined
}

function whyContentIsRefused(entry: ManifestEntry): string | undefined {
  if (entry.type === 'symlink') {
    if (entry.target === '') return 'is a symbolic link without a target'
    if (entry.target.includes('\0')) return 'is a symbolic link whose target has a zero byte'
    if (Buffer.byteLength(entry.target) > SYMLINK_BYTES_MAX) {
      return `is a symbolic link with a target of more than ${String(SYMLINK_BYTES_MAX)} bytes`
    }
  }
  if (entry.type === 'file') {
    if (entry.dataBlocks > Math.ceil(entry.size / BLOCK_BYTES)) return 'has more blocks than its size allows'
    if ((entry.map === null) !== (entry.dataBlocks === 0)) return 'has a block map that does not fit its blocks'
  }
  return undefined
}

function isNanoseconds(text: string): boolean {
  return /^(0|-?[1-9]\d{0,18})$/.test(text) && BigInt.asIntN(64, BigInt(text)) === BigInt(text)
}

/** Why a file name cannot be shown in a directory, or undefined when it can. */
export function whyNameIsRefused(name: string): string | undefined {
  if (name === '' || name === '.' || name === '..') return 'has a name that means a directory'
  if (name.includes('/')) return 'has a name with "/"'
  if (name.includes('\0')) return 'has a name with a zero byte'
  if (Buffer.byteLength(name) > NAME_BYTES_MAX) return `has a name of more than ${String(NAME_BYTES_MAX)} bytes`
  // U+FFFD stands for bytes that were no UTF-8, a lone surrogate would become it: neither can be found again
  if (/[\uFFFD\p{Surrogate}]/u.test(name)) return 'has a name that is not valid UTF-8'
  return undefined
}

function tooDeep(name: string): FailedError {
  const end = JSON.stringify(name.slice(0, 80))
  return new FailedError(
    `a generation has directories that lie too deep in each other: a path that ends in ${end} is longer than programs can use`,
    { hint: 'mount it with --read-only, and look at what you need' }
  )
}
