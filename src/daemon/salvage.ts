/**
 * `recover --salvage`: what is intact of a damaged session becomes a branch, never the next generation.
 *
 *     lock -> base -> copy of the session's directory -> the copy is cut before its damage (session/salvage.ts) -> branch
 *          -> the damaged directory is set aside -> the lease goes back
 *
 * Invariants:
 * 1. The damaged session is only read, and renamed in the end: whatever else can be had of it still can.
 * 2. Nothing is set aside before the branch is on the share. A crash in between leaves the session where it was; the next
 *    try publishes the same branch, because its session id is made from the damaged one's.
 */
import { execFile } from 'node:child_process'
import fs from 'node:fs'
import path from 'node:path'
import { promisify } from 'node:util'
import { sha256Hex } from '../base/digest.js'
import { FailedError, IntegrityError, messageOf } from '../base/errors.js'
import { removals, sweepRemoved } from '../base/remove-later.js'
import { commitSession } from '../commit/commit.js'
import type { PublishedGeneration } from '../format/generations.js'
import { baseImageOf } from '../image/base-image.js'
import { syncDirectory } from '../session/durable-file.js'
import { LOCK_FILE, readSessionFile, type SessionFile, writeSessionFile } from '../session/identity.js'
import { salvageCopy } from '../session/salvage.js'
import { Session } from '../session/session.js'
import { dropIfPublished, lockSession, readBase, sessionDirectoryOf } from './claim.js'
import { hostName } from './host.js'
import { giveBackOwnLease, type RecoverRequest, withVm } from './recover.js'

export interface Salvage {
  readonly kind: 'salvaged'
  /** null: nothing that is intact differs from the base */
  readonly branch: string | null
  /** where the damaged session is now */
  readonly kept: string
  readonly changedBytes: number
  readonly sentBytes: number
  /** what is not in the branch, or may be wrong in it */
  readonly lost: readonly string[]
}

/** undefined: nothing was left behind. Rejects with the session as it was. */
export async function salvageSession(request: RecoverRequest): Promise<Salvage | undefined> {
  const { vmPath, clientDirectory, notice } = request
  return withVm(request, async (pool, vmId, clientId) => {
    const directory = sessionDirectoryOf(clientDirectory, vmId)
    const lock = await lockSession(directory, vmPath)
    try {
      const file = readSessionFile(directory)
      if (file === undefined || (await dropIfPublished({ pool, notice }, directory, file))) return undefined
      const base = await readBase({ pool, vmPath }, directory, file)
      const salvaged = await publishCopy(request, { directory, file, base, clientId })
      const kept = setAside(clientDirectory, directory, vmId)
      await pool.run('removeSessionPins', { client: clientId }).catch(() => undefined)
      await giveBackOwnLease(request, pool, clientId)
      return { kind: 'salvaged', kept, ...salvaged }
    } finally {
      lock.release()
    }
  })
}

interface Damaged {
  readonly directory: string
  readonly file: SessionFile
  readonly base: PublishedGeneration
  readonly clientId: string
}

async function publishCopy(
  { vmPath, clientDirectory, onProgress }: RecoverRequest,
  { directory, file, base, clientId }: Damaged
): Promise<Pick<Salvage, 'branch' | 'changedBytes' | 'sentBytes' | 'lost'>> {
  const copy = path.join(clientDirectory, 'salvage', file.vmId)
  try {
    sweepRemoved(directory) // it would be copied
    await removals()
    await copyDirectory(directory, copy)
    const image = baseImageOf(base.manifest)
    const lost = salvageCopy(copy, image)
    if (lost.length === 0) {
      throw new FailedError(`the session in ${directory} is not damaged`, {
        hint: `nothing was changed; isrfs recover ${vmPath} publishes all of it`
      })
    }
    writeSessionFile(copy, { ...file, sessionId: sha256Hex(Buffer.from(`salvaged ${file.sessionId}`)).slice(0, 32) })
    const session = Session.open(copy, image)
    try {
      const client = { id: clientId, host: hostName() }
      const how = { verify: false, acceptLoss: true, onProgress } // losses are told, and a person looks at the branch
      const commit = { vmPath, session, base, held: undefined, cache: undefined, client, ...how }
      const { branch, changedBytes, sentBytes } = await commitSession(commit)
      return { branch: branch?.published.name ?? null, changedBytes, sentBytes, lost }
    } finally {
      await session.close()
    }
  } catch (error) {
    // what is said of the copy is so of the session
    if (!(error instanceof IntegrityError)) throw error
    throw new IntegrityError(error.message.replaceAll(copy, directory), {
      hint: `nothing was changed; keep a copy of ${directory}`,
      cause: error
    })
  } finally {
    fs.rmSync(copy, { recursive: true, force: true })
  }
}

/** Region files are sparse, and may be large: where the file system can, the copy shares their bytes. */
async function copyDirectory(from: string, to: string): Promise<void> {
  fs.rmSync(to, { recursive: true, force: true })
  fs.mkdirSync(path.dirname(to), { recursive: true, mode: 0o700 })
  try {
    await promisify(execFile)('cp', ['-R', '-p', '--reflink=auto', '--sparse=always', '--', from, to])
  } catch (error) {
    throw new FailedError(`the session in ${from} cannot be copied: ${messageOf(error).trim()}`, {
      hint: `nothing was changed. A salvage works on a copy in ${path.dirname(to)}: it needs room there; isrfs prune, or removing the cache, makes some`,
      cause: error
    })
  }
  fs.rmSync(path.join(to, LOCK_FILE), { force: true })
}

/** Invariant 1. */
function setAside(clientDirectory: string, directory: string, vmId: string): string {
  const parent = path.join(clientDirectory, 'damaged-sessions')
  const kept = path.join(parent, `${vmId}-${String(Date.now())}`)
  fs.mkdirSync(parent, { recursive: true, mode: 0o700 })
  fs.renameSync(directory, kept)
  for (const changed of [parent, path.dirname(directory), clientDirectory]) syncDirectory(changed)
  return kept
}
