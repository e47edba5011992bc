/**
 * Generations on the share: `generations/00000007/` holds manifest.json and its digest. A number is taken by
 * exclusive creation and never used again; the newest one is the highest number in a fresh listing.
 *
 *     absent --publish (one winner)--> published --prune--> tombstone
 *
 * A session that lost its number to another one is published beside it as a branch, `generations/00000007-<session>/`:
 * the same files, a name of its own, and never the newest of anything.
 */
import { errnoOf, FailedError, IntegrityError, NotPublishedError } from '../base/errors.js'
import { sha256Hex } from '../base/digest.js'
import { type Generation, toGeneration } from '../base/units.js'
import { damageIn } from '../share/broken.js'
import { listNumbers, numberedName } from '../share/numbered.js'
import type { Share } from '../share/share.js'
import { encodeManifest, type Manifest, MANIFEST_BYTES_MAX, parseManifest } from './manifest.js'
import { readTombstone, type Tombstone, tombstoneFiles, writeTombstone } from './tombstone.js'
import { readVmDescriptor } from './vm.js'

export const MANIFEST_FILE = 'manifest.json'
export const DIGEST_FILE = 'manifest.sha256'
const DIGEST_FILE_BYTES_MAX = 1024
const BRANCH_PATTERN = /^(\d{8})-([0-9a-f]{16})$/
const BRANCH_SESSION_DIGITS = 16
/** in tombstones of what nobody knows any more: nothing has this digest, no session this id */
export const UNKNOWN_DIGEST = '0'.repeat(64)
const UNKNOWN_SESSION = '0'.repeat(32)

/** A generation as it was read: its digest is what the chain and the next generation's parent refer to. */
export interface PublishedGeneration {
  readonly number: Generation
  readonly digest: string
  readonly manifest: Manifest
}

/** A branch has a name for people, such as "7-3f2a91c0deadbeef"; its number is the one that it would have had. */
export interface PublishedBranch extends PublishedGeneration {
  readonly name: string
}

/** What is known of a generation or branch whether it was pruned or not. */
export type GenerationRecord = Pick<Tombstone, 'generation' | 'digest' | 'session' | 'parent'>

export function generationName(number: number): string {
  return numberedName('generations', number)
}

/** Numbers of all generations, ascending, from a fresh listing; pruned ones are among them. */
export function listGenerations(share: Share): Generation[] {
  return listNumbers(share, 'generations').map(toGeneration)
}

/** Names of all branches, pruned ones among them, by number. */
export function listBranches(share: Share): string[] {
  return share
    .list('generations')
    .sort()
    .flatMap((name) => {
      const match = BRANCH_PATTERN.exec(name)
      return match === null ? [] : [`${String(Number(match[1]))}-${match[2] ?? ''}`]
    })
}

/** Reads and verifies one generation. */
export function readGeneration(share: Share, number: Generation): PublishedGeneration {
  if (!listGenerations(share).includes(number)) throw noSuch(share, String(number))
  const tombstone = readTombstone(share, generationName(number))
  if (tombstone !== undefined) throw wasPruned(share, String(number), tombstone)
  return readListed(share, number)
}

/** Reads and verifies a branch; any part of its name that no other branch begins with is enough. */
export function readBranch(share: Share, given: string): PublishedBranch {
  const names = listBranches(share).filter((name) => name.startsWith(given))
  const [name] = names
  if (name === undefined) throw noSuch(share, given)
  if (names.length > 1) {
    throw new FailedError(`"${given}" is the beginning of several branches of ${share.root}: ${names.join(', ')}`, {
      hint: 'write more of the name'
    })
  }
  const directory = branchDirectory(name)
  const tombstone = readTombstone(share, directory)
  if (tombstone !== undefined) throw wasPruned(share, name, tombstone)
  return {
    name,
    ...readDirectory(share, directory, toGeneration(Number.parseInt(name, 10)), `branch ${name} of ${share.root}`)
  }
}

/** The newest generation, from a fresh listing. */
export function readNewestGeneration(share: Share): PublishedGeneration {
  const newest = listGenerations(share).at(-1)
  if (newest === undefined) {
    readVmDescriptor(share) // a share that is not mounted any more is no damage
    throw new IntegrityError(`${share.root} has no generation, although it is a VM`, {
      hint: `restore its generations/ from a backup of the share; ${repairHint(share)}`
    })
  }
  return readListed(share, newest)
}

/** Number, digest, session and parent of a generation that a listing has shown, pruned or not. */
export function readRecord(share: Share, number: Generation): GenerationRecord {
  return readTombstone(share, generationName(number)) ?? recordOf(readListed(share, number))
}

/** The digest that a generation has or had; cheap. undefined when there is no such number. */
export function digestOfGeneration(share: Share, number: Generation): string | undefined {
  if (!listGenerations(share).includes(number)) return undefined
  const what = `generation ${String(number)} of ${share.root}`
  return readTombstone(share, generationName(number))?.digest ?? readDigest(share, generationName(number), what)
}

/**
 * Publishes a manifest under its number. Returns it as read back from the share when this session won the number;
 * throws NotPublishedError when another one has it.
 */
export function publishGeneration(share: Share, manifest: Manifest): PublishedGeneration {
  const { files, digest } = encode(manifest)
  const number = toGeneration(manifest.generation)
  share.createDirectory(generationName(number), files)
  const published = readGeneration(share, number)
  if (published.digest === digest) return published
  throw new NotPublishedError(
    `generation ${String(number)} of ${share.root} was published by ${published.manifest.client.host} at ${published.manifest.created}, before this session`
  )
}

/** Publishes a manifest as a branch. A second try with the same content finds the first one's work and is done. */
export function publishBranch(share: Share, manifest: Manifest): PublishedBranch {
  const { files, digest } = encode(manifest)
  const name = `${String(manifest.generation)}-${manifest.session.slice(0, BRANCH_SESSION_DIGITS)}`
  if (!listBranches(share).includes(name)) share.createDirectory(branchDirectory(name), files)
  const published = readBranch(share, name)
  if (published.digest === digest || published.manifest.session === manifest.session) return published
  throw new NotPublishedError(`branch ${name} of ${share.root} belongs to another session`)
}

/** Where a session was published. */
export interface FoundSession {
  readonly kind: 'generation' | 'branch'
  /** number, or the branch's name */
  readonly name: string
  readonly number: Generation
  readonly digest: string
}

/**
 * Where this session's work is already, if anywhere: among generations above `above` from the newest down, then among
 * the branches; what was pruned counts too.
 */
export function findSession(share: Share, sessionId: string, above: number): FoundSession | undefined {
  for (const number of listGenerations(share).reverse()) {
    if (number <= above) break
    const { session, digest } = readRecord(share, number)
    if (session === sessionId) return { kind: 'generation', name: String(number), number, digest }
  }
  for (const name of listBranches(share)) {
    if (!name.endsWith(`-${sessionId.slice(0, BRANCH_SESSION_DIGITS)}`)) continue
    const { session, digest, generation } =
      readTombstone(share, branchDirectory(name)) ?? recordOf(readBranch(share, name))
    if (session === sessionId) return { kind: 'branch', name, number: toGeneration(generation), digest }
  }
  return undefined
}

/** Leaves a tombstone in place of a generation or branch: after a crash in between, a second call ends the work. */
export function bury(share: Share, directory: string, record: GenerationRecord): void {
  const { generation, digest, session, parent } = record
  if (readTombstone(share, directory) === undefined) {
    writeTombstone(share, directory, { generation, digest, session, parent })
  }
  removeManifest(share, directory)
}

/** Where a tombstone is, nothing else counts. */
export function removeManifest(share: Share, directory: string): void {
  for (const file of [MANIFEST_FILE, DIGEST_FILE]) share.remove(`${directory}/${file}`)
}

/** Leaves a tombstone in place of what cannot be read any more: with its digest, when that can still be told. */
export function buryDamaged(share: Share, directory: string, generation: number): void {
  let digest = UNKNOWN_DIGEST
  try {
    digest = readDigest(share, directory, directory)
  } catch (error) {
    if (damageIn(share, error) === undefined) throw error
  }
  writeTombstone(share, directory, { generation, digest, session: UNKNOWN_SESSION, parent: null })
  removeManifest(share, directory)
}

/**
 * Takes a number that is known to have been used, and that the share does not show any more, with a tombstone. Fails, and
 * changes nothing, when something is there after all.
 */
export function buryMissing(share: Share, number: number, digest: string): void {
  const directory = generationName(number)
  const record = { generation: number, digest, session: UNKNOWN_SESSION, parent: null }
  share.createDirectory(directory, tombstoneFiles(record))
  if (readTombstone(share, directory)?.digest === digest) return
  throw new FailedError(`generation ${String(number)} of ${share.root} is there after all`, {
    hint: `nothing was changed; look again: isrfs log ${share.root}`
  })
}

export function branchDirectory(name: string): string {
  const [number, session] = name.split('-', 2)
  return `${generationName(Number(number))}-${session ?? ''}`
}

/** `name` is a number, or the name of a branch. */
export function directoryOf(name: string): string {
  return name.includes('-') ? branchDirectory(name) : generationName(Number(name))
}

export function recordOf({ number, digest, manifest }: PublishedGeneration): GenerationRecord {
  return { generation: number, digest, session: manifest.session, parent: manifest.parent }
}

/** The bytes of a manifest that was read a moment ago; undefined when they are not the same any more. */
export function readManifestBytes(share: Share, directory: string, digest: string): Buffer | undefined {
  const bytes = share.readListed(`${directory}/${MANIFEST_FILE}`, MANIFEST_BYTES_MAX)
  return bytes !== undefined && sha256Hex(bytes) === digest ? bytes : undefined
}

/** manifest.sha256 of a manifest with this digest. */
export function digestLine(digest: string): Buffer {
  return Buffer.from(`${digest}  ${MANIFEST_FILE}\n`)
}

function encode(manifest: Manifest): { readonly files: Map<string, Buffer>; readonly digest: string } {
  const bytes = encodeManifest(manifest)
  const digest = sha256Hex(bytes)
  if (bytes.length > MANIFEST_BYTES_MAX) {
    throw new FailedError(`the VM has too many files: its manifest would have ${String(bytes.length)} bytes`)
  }
  parseManifest(bytes, 'the new generation') // what would be refused at the next mount is refused before it is published
  const files = new Map([
    [MANIFEST_FILE, bytes],
    [DIGEST_FILE, digestLine(digest)]
  ])
  return { files, digest }
}

/** A generation that a listing has shown: what is missing in it is damage. */
function readListed(share: Share, number: Generation): PublishedGeneration {
  return readDirectory(share, generationName(number), number, `generation ${String(number)} of ${share.root}`)
}

function readDirectory(share: Share, directory: string, number: Generation, what: string): PublishedGeneration {
  const manifestFile = `${directory}/${MANIFEST_FILE}`
  const bytes = readPart(share, manifestFile, MANIFEST_BYTES_MAX, what)
  const digest = sha256Hex(bytes)
  if (digest !== readDigest(share, directory, what)) {
    throw damaged(share, what, `${share.pathOf(manifestFile)} does not have its digest`)
  }
  return { number, digest, manifest: parseManifestOf(number, bytes, what) }
}

/** Throws IntegrityError when the manifest is of another number. */
export function parseManifestOf(number: Generation, bytes: Buffer, what: string): Manifest {
  const manifest = parseManifest(bytes, what)
  if (manifest.generation === number) return manifest
  throw new IntegrityError(`${what} says that it is generation ${String(manifest.generation)}`)
}

export function readDigest(share: Share, directory: string, what: string): string {
  const name = `${directory}/${DIGEST_FILE}`
  const line = readPart(share, name, DIGEST_FILE_BYTES_MAX, what).toString('latin1')
  const digest = /^([0-9a-f]{64}) {2}manifest\.json\n$/.exec(line)?.[1]
  if (digest === undefined) throw damaged(share, what, `${share.pathOf(name)} is not a digest`)
  return digest
}

function readPart(share: Share, name: string, bytesMax: number, what: string): Buffer {
  try {
    return share.read(name, bytesMax)
  } catch (error) {
    if (errnoOf(error) !== 'ENOENT' && errnoOf(error) !== 'ENOTDIR') throw error
    throw damaged(share, what, `${share.pathOf(name)} is missing`)
  }
}

function repairHint(share: Share): string {
  return `a client that has mounted it may have a copy of its manifest: there, isrfs check ${share.root} --repair puts it back`
}

function noSuch(share: Share, name: string): FailedError {
  return new FailedError(`there is no generation ${name} of ${share.root}`, {
    hint: `isrfs log ${share.root} lists its generations`
  })
}

function wasPruned(share: Share, name: string, { pruned }: Tombstone): FailedError {
  return new FailedError(`generation ${name} of ${share.root} was pruned at ${pruned}`, {
    hint: `isrfs log ${share.root} lists what is left`
  })
}

function damaged(share: Share, what: string, why: string): IntegrityError {
  return new IntegrityError(`${what} is damaged: ${why}`, {
    hint: `${repairHint(share)}; else an older generation can be mounted (isrfs log ${share.root}, then isrfs mount --generation N), and isrfs rollback makes it the newest`
  })
}
