/**
 * Generations on the share: `generations/00000007/` holds manifest.json and its digest. A number is taken by
 * exclusive creation and never used again; the newest one is the highest number in a fresh listing.
 */
import { errnoOf, FailedError, IntegrityError, NotPublishedError } from '../base/errors.js'
import { sha256Hex } from '../base/digest.js'
import { type Generation, toGeneration } from '../base/units.js'
import type { Share } from '../share/share.js'
import { encodeManifest, type Manifest, MANIFEST_BYTES_MAX, parseManifest } from './manifest.js'

const NUMBER_PATTERN = /^\d{8}$/
const MANIFEST_FILE = 'manifest.json'
const DIGEST_FILE = 'manifest.sha256'

/** A generation as it was read: its digest is what the chain and the next generation's parent refer to. */
export interface PublishedGeneration {
  readonly number: Generation
  readonly digest: string
  readonly manifest: Manifest
}

export function generationName(number: number): string {
  return `generations/${String(number).padStart(8, '0')}`
}

/** Numbers of all generations, ascending, from a fresh listing. */
export function listGenerations(share: Share): Generation[] {
  return share
    .list('generations')
    .filter((name) => NUMBER_PATTERN.test(name))
    .map((name) => toGeneration(Number(name)))
    .sort((first, second) => first - second)
}

/** Reads and verifies one generation. */
export function readGeneration(share: Share, number: Generation): PublishedGeneration {
  const name = generationName(number)
  const what = `generation ${String(number)} of ${share.root}`
  let bytes: Buffer
  try {
    bytes = share.read(`${name}/${MANIFEST_FILE}`, MANIFEST_BYTES_MAX)
  } catch (error) {
    if (errnoOf(error) !== 'ENOENT') throw error
    throw new FailedError(`there is no ${what}`, {
      hint: `isrfs log ${share.root} lists its generations`,
      cause: error
    })
  }
  const digest = sha256Hex(bytes)
  const expected = readDigest(share, name, what)
  if (digest !== expected) {
    throw new IntegrityError(
      `${what} is damaged: ${share.pathOf(`${name}/${MANIFEST_FILE}`)} does not have its digest`,
      {
        hint: `mount an older generation read-only (isrfs log ${share.root}, then isrfs mount --generation N), and restore this one from a backup`
      }
    )
  }
  const manifest = parseManifest(bytes, what)
  if (manifest.generation !== number)
    throw new IntegrityError(`${what} says that it is generation ${String(manifest.generation)}`)
  return { number, digest, manifest }
}

/** The newest generation, from a fresh listing. */
export function readNewestGeneration(share: Share): PublishedGeneration {
  const newest = listGenerations(share).at(-1)
  if (newest === undefined) throw new IntegrityError(`${share.root} has no generation, although it is a VM`)
  return readGeneration(share, newest)
}

/**
 * Publishes a manifest under its number. Returns it as read back from the share when this session won the number;
 * throws NotPublishedError when another one has it.
 */
export function publishGeneration(share: Share, manifest: Manifest): PublishedGeneration {
  const bytes = encodeManifest(manifest)
  const digest = sha256Hex(bytes)
  const name = generationName(manifest.generation)
  if (bytes.length > MANIFEST_BYTES_MAX)
    throw new FailedError(`the VM has too many files: its manifest would have ${String(bytes.length)} bytes`)
  parseManifest(bytes, 'the new generation') // what would be refused at the next mount is refused before it is published
  share.createDirectory(
    name,
    new Map([
      [MANIFEST_FILE, bytes],
      [DIGEST_FILE, Buffer.from(`${digest}  ${MANIFEST_FILE}\n`)]
    ])
  )
  const number = toGeneration(manifest.generation)
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
    const generation = readGeneration(share, number)
    if (generation.manifest.session === sessionId) return generation
  }
  return undefined
}

function readDigest(share: Share, name: string, what: string): string {
  const line = share.read(`${name}/${DIGEST_FILE}`, 1024).toString('latin1')
  const digest = /^([0-9a-f]{64}) {2}manifest\.json\n$/.exec(line)?.[1]
  if (digest === undefined)
    throw new IntegrityError(`${what} is damaged: ${share.pathOf(`${name}/${DIGEST_FILE}`)} is not a digest`)
  return digest
}
