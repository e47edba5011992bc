/**
 * A session that was set aside, because the client directory is a copy, made this client's own again: on purpose only
 * (`recover --from`). The original may still be somewhere and be published there, so it gets an id of its own; whichever
 * comes second becomes a branch.
 *
 *     new id in session.json, durable -> the directory moves to where sessions are, in one step
 */
import { randomBytes } from 'node:crypto'
import fs from 'node:fs'
import path from 'node:path'
import { FailedError, messageOf, UsageError } from '../base/errors.js'
import type { SharePool } from '../fetch/share-pool.js'
import { syncDirectory } from '../session/durable-file.js'
import { IDENTITY_FILE, LOCK_FILE, readSessionFile, writeSessionFile } from '../session/identity.js'
import { lockSession, sessionDirectoryOf } from './claim.js'

export interface AdoptRequest {
  readonly pool: SharePool
  readonly vmPath: string
  readonly vmId: string
  readonly clientId: string
  readonly clientDirectory: string
  /** directory of the session, or of all that were set aside together */
  readonly from: string
}

/** Moves the session to where recover and mount find it. Throws UsageError when there is none of this VM. */
export async function adoptSession(request: AdoptRequest): Promise<void> {
  const { pool, vmPath, vmId, clientId, clientDirectory } = request
  const from = fs.existsSync(path.join(request.from, IDENTITY_FILE)) ? request.from : path.join(request.from, vmId)
  const file = readSessionFile(from)
  if (file?.vmId !== vmId) {
    throw new UsageError(`there is no session of ${vmPath} in ${request.from}`, {
      hint: `sessions that were set aside lie in ${path.join(clientDirectory, 'sessions-of-*')}`
    })
  }
  const found = await pool.run('findSession', { sessionId: file.sessionId, above: file.baseGeneration })
  if (found !== undefined) {
    throw new FailedError(
      `the session in ${from} was published as generation ${found.name}: nothing of it is missing`,
      {
        hint: `it can be removed: ${from}`
      }
    )
  }
  const target = sessionDirectoryOf(clientDirectory, vmId)
  const lock = await lockSession(target, vmPath)
  try {
    if (readSessionFile(target) !== undefined) {
      throw new FailedError(`this client has a session of ${vmPath} of its own`, {
        hint: `publish that first: isrfs recover ${vmPath}`
      })
    }
    writeSessionFile(from, { ...file, sessionId: randomBytes(16).toString('hex'), client: clientId, vmPath })
    for (const name of fs.readdirSync(target)) fs.rmSync(path.join(target, name), { recursive: true, force: true }) // a removal that a crash has cut short
    fs.rmdirSync(target)
    moveInto(from, target)
    fs.rmSync(path.join(target, LOCK_FILE), { force: true })
    syncDirectory(path.dirname(target))
  } finally {
    lock.release()
  }
}

function moveInto(from: string, target: string): void {
  try {
    fs.renameSync(from, target)
  } catch (error) {
    throw new FailedError(`cannot move ${from} to ${target}: ${messageOf(error)}`, {
      hint: 'it is whole where it is: copy it to the disk of the client directory, then give that place to --from',
      cause: error
    })
  }
}
