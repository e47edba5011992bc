/**
 * Copies of manifests that this client has read from a share or published: `manifests/<vm id>/<digest>`, written durably.
 * `check --repair` puts a manifest back from them that the share has lost. A session without its base's manifest is whole and
 * of no use: so what the session of the VM needs is never among those that are dropped.
 *
 * Nothing believes a copy: whoever reads one compares it with its name.
 */
import fs from 'node:fs'
import path from 'node:path'
import { sha256Hex } from '../base/digest.js'
import { namesIn, readIfThere, replaceFileDurably } from './durable-file.js'
import { readSessionFile, referencesOf, type SessionReference } from './identity.js'

/** of one VM, the least recently used ones are dropped; what its session needs comes on top */
export const KEPT_MANIFESTS_MAX = 16
export const KEPT_BYTES_MAX = 64 * 1024 * 1024

/** Throws what the disk refuses. `bytes` are those that were verified. */
export function keepManifest(clientDirectory: string, vmId: string, bytes: Uint8Array): void {
  const directory = directoryOf(clientDirectory, vmId)
  const digest = sha256Hex(bytes)
  const file = path.join(directory, digest)
  if (keptManifest(clientDirectory, vmId, digest) === undefined) {
    fs.mkdirSync(directory, { recursive: true, mode: 0o700 })
    replaceFileDurably(file, bytes)
  } else {
    const now = new Date()
    fs.utimesSync(file, now, now)
  }
  dropOld(directory, new Set([digest, ...neededBySession(clientDirectory, vmId).map((needed) => needed.digest)]))
}

/** The bytes that have this digest; undefined when this client has them not, or not any more. */
export function keptManifest(clientDirectory: string, vmId: string, digest: string): Buffer | undefined {
  const bytes = readIfThere(path.join(directoryOf(clientDirectory, vmId), digest))
  return bytes !== undefined && sha256Hex(bytes) === digest ? bytes : undefined
}

/** Generations without which the session that this client has of the VM cannot go on. Throws IntegrityError for a damaged one. */
export function neededBySession(clientDirectory: string, vmId: string): SessionReference[] {
  const session = readSessionFile(path.join(clientDirectory, 'sessions', vmId))
  return session === undefined ? [] : referencesOf(session)
}

/** Unfinished files of a crash count as old ones. */
function dropOld(directory: string, needed: ReadonlySet<string>): void {
  const others = namesIn(directory)
    .filter((name) => !needed.has(name))
    .flatMap((name) => {
      const stat = fs.statSync(path.join(directory, name), { throwIfNoEntry: false })
      return stat === undefined ? [] : [{ name, bytes: stat.size, usedMs: stat.mtimeMs }]
    })
    .sort((first, second) => second.usedMs - first.usedMs)
  let bytes = 0
  for (const [index, other] of others.entries()) {
    bytes += other.bytes
    if (index >= KEPT_MANIFESTS_MAX - 1 || bytes > KEPT_BYTES_MAX) {
      fs.rmSync(path.join(directory, other.name), { force: true })
    }
  }
}

function directoryOf(clientDirectory: string, vmId: string): string {
  return path.join(clientDirectory, 'manifests', vmId)
}
