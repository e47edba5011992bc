/**
 * session.json: what a session belongs to. Rewritten durably when the session is opened in another boot of the machine,
 * and when a generation of it is published.
 */
import fs from 'node:fs'
import path from 'node:path'
import * as z from 'zod'
import { IntegrityError } from '../base/errors.js'
import { isRemoved, removeDirectoryLater } from '../base/remove-later.js'
import { readIfThere, replaceFileDurably, syncDirectory } from './durable-file.js'

export const IDENTITY_FILE = 'session.json'
/** stays when a session is removed: the lock of the directory lives in it */
export const LOCK_FILE = 'lock'

/** tries to publish a checkpoint of which nobody knows whether they came through */
export const ANNOUNCED_MAX = 64

const identityFields = {
  sessionId: z.string().regex(/^[0-9a-f]{8,64}$/),
  vmId: z.string().regex(/^[0-9a-f]{8,64}$/),
  client: z.string().regex(/^[0-9a-f]{8,64}$/),
  baseGeneration: z.number().int().positive(),
  baseDigest: z.string().regex(/^[0-9a-f]{64}$/),
  createdIso: z.string().max(40),
  leaseNumber: z.number().int().positive().nullable(),
  discard: z.boolean()
}

const digestHex = z.string().regex(/^[0-9a-f]{64}$/)
const reference = z.object({ generation: z.number().int().positive(), digest: digestHex })
const checkpointReference = reference.extend({ sequence: z.number().int().positive() })

const fileSchema = z.object({
  format: z.literal('isrfs-session'),
  version: z.literal(1),
  ...identityFields,
  /** makes frames of this session unlike any other bytes */
  salt: z.number().int().min(0).max(0xffffffff),
  /** boot of the machine in which it was last opened */
  boot: z.string().max(64),
  published: reference
    .extend({
      /** name of the branch, when it lost its number to another session */
      branch: z.string().max(64).optional()
    })
    .nullable(),
  /** the newest checkpoint of this session that is on the share; the session goes on over its old base */
  checkpoint: checkpointReference.optional(),
  /** checkpoints after that which may be on the share: written before each is published */
  announced: z.array(checkpointReference).max(ANNOUNCED_MAX).optional(),
  /** where the VM was on the share, for whoever lists what was left behind; advice, which never makes a session unreadable */
  vmPath: z.string().max(4096).optional().catch(undefined)
})

export interface SessionIdentity {
  readonly sessionId: string
  readonly vmId: string
  readonly client: string
  readonly baseGeneration: number
  readonly baseDigest: string
  readonly createdIso: string
  readonly leaseNumber: number | null
  readonly discard: boolean
  /** where the VM was; sessions of earlier versions do not know */
  readonly vmPath?: string | undefined
}

export type SessionFile = z.infer<typeof fileSchema>
export type SessionReference = Readonly<z.infer<typeof reference>>
export type CheckpointReference = Readonly<z.infer<typeof checkpointReference>>

export function writeSessionFile(directory: string, file: SessionFile): void {
  replaceFileDurably(path.join(directory, IDENTITY_FILE), Buffer.from(`${JSON.stringify(file, undefined, 1)}\n`))
}

/** undefined when there is no session; IntegrityError when there is one that cannot be read. */
export function readSessionFile(directory: string): SessionFile | undefined {
  const bytes = readIfThere(path.join(directory, IDENTITY_FILE))
  if (bytes === undefined) return undefined
  try {
    return fileSchema.parse(JSON.parse(bytes.toString('utf8')))
  } catch (error) {
    throw new IntegrityError(`${path.join(directory, IDENTITY_FILE)} is damaged`, {
      hint: `nothing was changed. Keep a copy of ${directory}; isrfs recover <vm> --discard gives its changes up`,
      cause: error
    })
  }
}

export function identityOf(file: SessionFile): SessionIdentity {
  const { sessionId, vmId, client, baseGeneration, baseDigest, createdIso, leaseNumber, discard, vmPath } = file
  const identity = { sessionId, vmId, client, baseGeneration, baseDigest, createdIso, leaseNumber, discard }
  return vmPath === undefined ? identity : { ...identity, vmPath }
}

/** Generations without which the session cannot go on: its base, and its newest checkpoint. */
export function referencesOf({ baseGeneration, baseDigest, checkpoint }: SessionFile): SessionReference[] {
  const base = { generation: baseGeneration, digest: baseDigest }
  return checkpoint === undefined ? [base] : [base, { generation: checkpoint.generation, digest: checkpoint.digest }]
}

/** The checkpoint that is on the share, then those that may be; oldest first. */
export function ownGenerationsOf({ checkpoint, announced }: SessionFile): CheckpointReference[] {
  return [...(checkpoint === undefined ? [] : [checkpoint]), ...(announced ?? [])]
}

/**
 * Removes everything but the lock: session.json first, and durably, so that neither a crash nor a power cut in between
 * leaves half a session. The region files go in the background (remove-later.ts).
 */
export function removeSession(directory: string): void {
  fs.rmSync(path.join(directory, IDENTITY_FILE), { force: true })
  const entries = fs
    .readdirSync(directory, { withFileTypes: true })
    .filter(({ name }) => name !== LOCK_FILE && !isRemoved(name))
  if (entries.some((entry) => entry.isDirectory())) syncDirectory(directory)
  for (const entry of entries) {
    const target = path.join(directory, entry.name)
    if (entry.isDirectory()) removeDirectoryLater(target)
    else fs.rmSync(target, { force: true })
  }
}
