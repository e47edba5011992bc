/**
 * Generations on the share: `generations/00000007/` holds manifest.json and its digest. A number is taken by
 * exclusive creation and never used again; the newest one is the highest number in a fresh listing.
 */
import { errnoOf, FailedError, IntegrityError, NotPublishedError } from '../base/errors.js'
import { sha256Hex } from '../base/digest.js'
import { type Generation, toGeneration } from '../base/units.js'
import { listNumbers, numberedName } from '../share/numbered.js'
import type { Share } from '../share/share.js'
import { encodeManifest, type Manifest, MANIFEST_BYTES_MAX, parseManifest } from './manifest.js'

const MANIFEST_FILE = 'manifest.json'
const DIGEST_FILE = 'manifest.sha256'
const DIGEST_FILE_BYTES_MAX = 1024

/** A generation as it was read: its digest is what the chain and the next generation's parent refer to. */
export interface PublishedGeneration {
  readonly number: Generation
  readonly digest: string
  readonly manifest: Manifest
}

export function generationName(number: number): string {
  return numberedName('generations', number)
}

/** Numbers of all generations, ascending, from a fresh listing. */
export function listGenerations(share: Share): Generation[] {
  return listNumbers(share, 'generations').map(toGeneration)
}

/** Reads and verifies one generation. */
export function readGeneration(share: Share, number: Generation): PublishedGeneration {
  if (!listGenerations(share).includes(number)) {
    throw new FailedError(`there is no generation ${String(number)} of ${share.root}`, {
      hint: `isrfs log ${share.root} lists its generations`
    })
  }
  return readListed(share, number)
}

/** The newest generation, from a fresh listing. */
export function readNewestGeneration(share: Share): PublishedGeneration {
  const newest = listGenerations(share).at(-1)
  if (newest === undefined) throw new IntegrityError(`${share.root} has no generation, although it is a VM`)
  return readListed(share, newest)
}

/**
 * Publishes a manifest under its number. Returns it as read back from the share when this session won the number;
 * throws NotPublishedError when another one has it.
 */
export function publishGeneration(share: Share, manifest: Manifest): PublishedGeneration {
  const bytes = encodeManifest(manifest)
  const digest = sha256Hex(bytes)
  if (bytes.length > MANIFEST_BYTES_MAX) {
    throw new FailedError(`the VM has too many files: its manifest would have ${String(bytes.length)} bytes`)
  }
  parseManifest(bytes, 'the new generation') // what would be refused at the next mount is refused before it is published
  const number = toGeneration(manifest.generation)
  share.createDirectory(
    generationName(number),
    new Map([
      [MANIFEST_FILE, bytes],
      [DIGEST_FILE, Buffer.from(`${digest}  ${MANIFEST_FILE}\n`)]
    ])
  )
  const published = readGeneration(share, number)
  if (published.digest === digest) return published
  throw new NotPublishedError(
    `generation ${String(number)} of ${share.root} was published by ${published.manifest.client.host} at ${published.manifest.created}, before this session`
  )
}

/** The generation that this session has already published, if any: searched from the newest down to `above`. */
export function findSession(share: Share, sessionId: string, above: number): PublishedGeneration | undefined {
  for (const number of listGenerations(share).reverse()) {
    if (number <= above) return undefined
    const generation = readListed(share, number)
    if (generation.manifest.session === sessionId) return generation
  }
  return undefined
}

/** A generation that a listing has shown: what is missing in it is damage. */
function readListed(share: Share, number: Generation): PublishedGeneration {
  const what = `generation ${String(number)} of ${share.root}`
  const manifestFile = `${generationName(number)}/${MANIFEST_FILE}`
  const bytes = readPart(share, manifestFile, MANIFEST_BYTES_MAX, what)
  const digest = sha256Hex(bytes)
  if (digest !== readDigest(share, number, what)) {
    throw damaged(share, what, `${share.pathOf(manifestFile)} does not have its digest`)
  }
  const manifest = parseManifest(bytes, what)
  if (manifest.generation !== number) {
    throw new IntegrityError(`${what} says that it is generation ${String(manifest.generation)}`)
  }
  return { number, digest, manifest }
}

function readDigest(share: Share, number: Generation, what: string): string {
  const name = `${generationName(number)}/${DIGEST_FILE}`
  const line = readPart(share, name, DIGEST_FILE_BYTES_MAX, what).toString('latin1')
  const digest = /^([0-9a-f]{64}) {2}manifest\.json\n$/.exec(line)?.[1]
  if (digest === undefined) throw damaged(share, what, `${share.pathOf(name)} is not a digest`)
  return digest
}

function readPart(share: Share, name: string, bytesMax: number, what: string): Buffer {
  try {
    return share.read(name, bytesMax)
  } catch (error) {
    if (errnoOf(error) !== 'ENOENT') throw error
    throw damaged(share, what, `${share.pathOf(name)} is missing`)
  }
}

function damaged(share: Share, what: string, why: string): IntegrityError {
  return new IntegrityError(`${what} is damaged: ${why}`, {
    hint: `mount an older generation read-only (isrfs log ${share.root}, then isrfs mount --generation N), and restore this one from a backup`
  })
}
