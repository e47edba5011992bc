/**
 * `import`: a plain directory becomes a VM, or the next generation of one (copyout). Knows nothing of the command line:
 * progress and warnings go to callbacks, everything else is a result or an IsrfsError.
 *
 *     scan -> encode and send units -> maps -> generation -> (a new VM: vm.json, then one rename)
 *
 * Invariants:
 * 1. Nothing is at the VM's path until everything is durable (import-staging.ts).
 * 2. An update publishes only while it holds the lease, on top of exactly the generation that it was compared with.
 * 3. The directory is only read.
 */
import { randomBytes } from 'node:crypto'
import fs from 'node:fs'
import path from 'node:path'
import { FailedError, LeaseHeldError, UsageError } from '../base/errors.js'
import { publishGeneration, type PublishedGeneration, readNewestGeneration } from '../format/generations.js'
import { type Manifest, MANIFEST_FORMAT, manifestVersion } from '../format/manifest.js'
import { newVmDescriptor, readVmDescriptor } from '../format/vm.js'
import { beatLease, type HeldLease, leaseStillHeld, releaseLease } from '../share/lease.js'
import { Share } from '../share/share.js'
import { CommitPool } from './commit-pool.js'
import {
  importedEntries,
  NOTHING_BEFORE,
  previousEntries,
  type PreviousEntries,
  previousMap,
  sameContent
} from './import-entries.js'
import { acquireImportLease, checkPromised, type ImportClient, referenceTo } from './import-lease.js'
import { scanDirectory, type SourceFile } from './import-scan.js'
import { Staging } from './import-staging.js'
import { type Transferred, transferFiles } from './import-transfer.js'

const BEAT_INTERVAL_MS = 5000

export interface ImportProgress {
  readonly phase: 'scan' | 'data' | 'maps' | 'publish'
  readonly doneBytes: number
  readonly totalBytes: number
  readonly sentBytes: number
}

export interface ImportOptions {
  /** the plain directory */
  readonly source: string
  /** <share>/<name> */
  readonly vmPath: string
  /** publish as the next generation of the VM that is there */
  readonly update: boolean
  /** see name.000, name.001, ... as one file */
  readonly joinPieces: boolean
  readonly client: ImportClient
  readonly onProgress: (progress: ImportProgress) => void
  readonly onWarning: (message: string) => void
  /** ends the import between two units; what was sent stays for the next try */
  readonly signal?: AbortSignal
  /** worker threads; as many as there are cores unless given */
  readonly threads?: number
}

export interface ImportResult {
  /** undefined: an update found nothing that differs, and published nothing */
  readonly published: PublishedGeneration | undefined
  readonly files: number
  /** sizes of all files together */
  readonly totalBytes: number
  /** bytes of blocks that differ from the previous generation (of blocks that are not zero, for a new VM) */
  readonly changedBytes: number
  /** encoded bytes that went to the share, maps included */
  readonly sentBytes: number
}

export async function importDirectory(options: ImportOptions): Promise<ImportResult> {
  const resolved = { ...options, ...resolvePaths(options) }
  return options.update ? updateVm(resolved) : createVm(resolved)
}

async function createVm(options: ImportOptions): Promise<ImportResult> {
  const staging = Staging.take(options.vmPath)
  try {
    const descriptor = newVmDescriptor()
    const work = await readSource(options, staging.share, NOTHING_BEFORE)
    const published = publishGeneration(
      staging.share,
      manifestOf(options, work, { vm: descriptor.vm, parent: undefined })
    )
    if (staging.takenOver) staging.removeOtherChunks(work.transferred.chunks)
    staging.publish(descriptor)
    return resultOf(work, published)
  } catch (error) {
    staging.leave()
    throw error
  }
}

async function updateVm(options: ImportOptions): Promise<ImportResult> {
  const share = new Share(options.vmPath)
  const descriptor = readVmDescriptor(share)
  const held = acquireImportLease(share, options.client)
  const stopBeating = keepBeating(share, held)
  let newest: PublishedGeneration | undefined
  try {
    const base = readNewestGeneration(share)
    checkPromised(share, held, base)
    newest = base
    const work = await readSource(options, share, previousEntries(base.manifest))
    if (sameContent(work.entries, base.manifest.entries)) return resultOf(work, undefined)
    newest = publishUpdate(share, held, base, manifestOf(options, work, { vm: descriptor.vm, parent: base }))
    return resultOf(work, newest)
  } finally {
    stopBeating()
    releaseLease(share, held, newest === undefined ? held.generation : referenceTo(newest))
  }
}

/** The directory as it is now, its bytes durable on the share, nothing published yet. */
interface Work {
  readonly entries: Manifest['entries']
  readonly nextInode: number
  readonly files: readonly SourceFile[]
  readonly totalBytes: number
  readonly transferred: Transferred
}

async function readSource(options: ImportOptions, share: Share, previous: PreviousEntries): Promise<Work> {
  const report = (phase: ImportProgress['phase'], totalBytes: number, doneBytes: number, sentBytes: number): void => {
    options.onProgress({ phase, doneBytes, totalBytes, sentBytes })
  }
  report('scan', 0, 0, 0)
  const sources = scanDirectory(options)
  const files = sources.filter((entry): entry is SourceFile => entry.type === 'file')
  const totalBytes = files.reduce((sum, file) => sum + file.sizeBytes, 0)
  const { root, vmId } = share
  const { threads } = options
  const pool = new CommitPool(root, { vmId, ...(threads === undefined ? {} : { threads }) })
  try {
    const transferred = await transferFiles({
      pool,
      files,
      previous: (file) => previousMap(previous, file),
      onProgress: ({ phase, doneBytes, sentBytes }) => {
        report(phase, totalBytes, doneBytes, sentBytes)
      },
      signal: options.signal
    })
    report('publish', totalBytes, totalBytes, transferred.sentBytes)
    return { ...importedEntries(sources, transferred.maps, previous), files, totalBytes, transferred }
  } finally {
    await pool.close()
  }
}

/** Invariant 2. */
function publishUpdate(
  share: Share,
  held: HeldLease,
  base: PublishedGeneration,
  manifest: Manifest
): PublishedGeneration {
  if (!leaseStillHeld(share, held)) {
    throw new LeaseHeldError(`the lease of ${share.root} was taken by somebody else during the import`, {
      hint: `nothing was published; see who has it: isrfs lease ${share.root}`
    })
  }
  const newest = readNewestGeneration(share)
  if (newest.digest !== base.digest) {
    throw new FailedError(
      `generation ${newest.number} of ${share.root} was published by ${newest.manifest.client.host} during the import`,
      {
        hint: 'nothing was published; repeat the import'
      }
    )
  }
  return publishGeneration(share, manifest)
}

function manifestOf(
  { client }: ImportOptions,
  work: Work,
  { vm, parent }: { readonly vm: string; readonly parent: PublishedGeneration | undefined }
): Manifest {
  return {
    format: MANIFEST_FORMAT,
    version: manifestVersion(work.entries),
    vm,
    generation: parent === undefined ? 1 : parent.number + 1,
    parent: parent === undefined ? null : { generation: parent.number, digest: parent.digest },
    session: randomBytes(16).toString('hex'),
    created: new Date().toISOString(),
    client: { id: client.id, host: client.host },
    changedBytes: work.transferred.changedBytes,
    sentBytes: work.transferred.sentBytes,
    nextInode: work.nextInode,
    entries: work.entries
  }
}

function resultOf({ files, totalBytes, transferred }: Work, published: PublishedGeneration | undefined): ImportResult {
  const { changedBytes, sentBytes } = transferred
  return { published, files: files.length, totalBytes, changedBytes, sentBytes }
}

function keepBeating(share: Share, held: HeldLease): () => void {
  let beats = 0
  const timer = setInterval(() => {
    try {
      beatLease(share, held, ++beats)
    } catch {
      // a sign of life only; whether the lease is still held is asked before publishing
    }
  }, BEAT_INTERVAL_MS)
  timer.unref()
  return () => {
    clearInterval(timer)
  }
}

function resolvePaths(options: ImportOptions): { readonly source: string; readonly vmPath: string } {
  const source = realPath(options.source)
  if (source === undefined)
    throw new FailedError(`${options.source} does not exist`, { hint: 'check the path of the directory to import' })
  if (!fs.statSync(source).isDirectory()) {
    throw new UsageError(`${options.source} is not a directory`, {
      hint: 'an import takes the whole directory of a VM: give its path'
    })
  }
  const given = path.resolve(options.vmPath)
  const vmPath = path.join(realPath(path.dirname(given)) ?? path.dirname(given), path.basename(given))
  if (isInside(vmPath, source) || isInside(source, vmPath)) {
    throw new UsageError(`${vmPath} and ${source} lie in each other`, {
      hint: 'choose a share outside of the directory'
    })
  }
  return { source, vmPath }
}

function isInside(inner: string, outer: string): boolean {
  return inner === outer || inner.startsWith(outer.endsWith('/') ? outer : `${outer}/`)
}

function realPath(name: string): string | undefined {
  try {
    return fs.realpathSync(name)
  } catch {
    return undefined
  }
}
