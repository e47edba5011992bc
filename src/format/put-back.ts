/**
 * A generation or branch whose manifest was lost or damaged: what is left of it, and how its manifest gets back into place.
 *
 * Invariants:
 * 1. Nothing that can be read is changed, and nothing where a tombstone is, whatever it says.
 * 2. What comes back has the digest that it had; a directory that is gone is made by exclusive creation.
 */
import { FailedError, IntegrityError } from '../base/errors.js'
import { sha256Hex } from '../base/digest.js'
import { toGeneration } from '../base/units.js'
import { damageIn } from '../share/broken.js'
import type { Share } from '../share/share.js'
import {
  DIGEST_FILE,
  digestLine,
  directoryOf,
  MANIFEST_FILE,
  parseManifestOf,
  type PublishedGeneration,
  readBranch,
  readDigest,
  readGeneration
} from './generations.js'
import { MANIFEST_BYTES_MAX } from './manifest.js'
import { TOMBSTONE_FILE } from './tombstone.js'

export interface Remains {
  readonly hasTombstone: boolean
  /** neither of its two files is there */
  readonly isGone: boolean
  /** what manifest.sha256 says, when it says anything */
  readonly digest: string | undefined
  /** of the bytes that manifest.json has */
  readonly manifest: { readonly digest: string; readonly bytes: Buffer } | undefined
}

export function remainsOf(share: Share, name: string): Remains {
  const directory = directoryOf(name)
  const files = share.list(directory)
  const bytes = orDamaged(share, () => share.readListed(`${directory}/${MANIFEST_FILE}`, MANIFEST_BYTES_MAX))
  return {
    hasTombstone: files.includes(TOMBSTONE_FILE),
    isGone: !files.includes(MANIFEST_FILE) && !files.includes(DIGEST_FILE),
    digest: orDamaged(share, () => readDigest(share, directory, directory)),
    manifest: bytes === undefined ? undefined : { digest: sha256Hex(bytes), bytes }
  }
}

/** Puts a manifest of the VM with this id back. Throws IntegrityError when these bytes cannot be what was there. */
export function putBack(share: Share, name: string, vmId: string, bytes: Buffer): void {
  const directory = directoryOf(name)
  const digest = sha256Hex(bytes)
  const manifest = parseManifestOf(toGeneration(Number.parseInt(name, 10)), bytes, `the copy ${digest}`)
  const branch = name.split('-', 2)[1]
  if (manifest.vm !== vmId || (branch !== undefined && !manifest.session.startsWith(branch))) {
    throw new IntegrityError(`the copy ${digest} belongs to ${manifest.vm}, session ${manifest.session}`)
  }
  const remains = remainsOf(share, name)
  if (remains.hasTombstone) throw new FailedError(`${name} was pruned meanwhile`)
  if (remains.digest !== undefined && remains.digest === remains.manifest?.digest && remains.digest !== digest) {
    throw new FailedError(`${share.pathOf(directory)} has a manifest that is not damaged`)
  }
  if (remains.isGone) {
    share.createDirectory(
      directory,
      new Map([
        [MANIFEST_FILE, bytes],
        [DIGEST_FILE, digestLine(digest)]
      ])
    )
  } else {
    if (remains.manifest?.digest !== digest) share.write(`${directory}/${MANIFEST_FILE}`, bytes)
    if (remains.digest !== digest) share.write(`${directory}/${DIGEST_FILE}`, digestLine(digest))
  }
  if (readNamed(share, name).digest !== digest) {
    throw new IntegrityError(`another one was published there meanwhile: ${share.pathOf(directory)}`)
  }
}

function readNamed(share: Share, name: string): PublishedGeneration {
  return name.includes('-') ? readBranch(share, name) : readGeneration(share, toGeneration(Number(name)))
}

/** undefined for what is damaged, or on a broken disk; trouble of the share is thrown, because it is not damage. */
function orDamaged<Result>(share: Share, read: () => Result): Result | undefined {
  try {
    return read()
  } catch (error) {
    if (damageIn(share, error) !== undefined) return undefined
    throw error
  }
}
