/**
 * `export`: one generation becomes a plain directory (the eager copyin). Every byte is verified; sparse files come out
 * sparse. Knows nothing of the command line: progress and warnings go to callbacks.
 *
 *     absent --create--> <destination>.isrfs-incomplete --everything written and synced, rename--> <destination>
 *                          | failed: stays under that name, nobody takes it for a VM
 *
 * Invariant: the destination's own name appears only when its content is complete.
 */
import { randomBytes } from 'node:crypto'
import fs from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { errnoOf, FailedError, messageOf } from '../base/errors.js'
import { toGeneration } from '../base/units.js'
import { type PublishedGeneration, readGeneration, readNewestGeneration } from '../format/generations.js'
import { readVmDescriptor } from '../format/vm.js'
import { beatPin, createPin, type Pin, removePin } from '../share/pin.js'
import { Share } from '../share/share.js'
import { createTree, type ExportedEntry, setAttributes, syncTree } from './export-tree.js'
import { exportFiles } from './export-transfer.js'
import { importHolder } from './import-lease.js'

export const INCOMPLETE_SUFFIX = '.isrfs-incomplete'
const PIN_BEAT_INTERVAL_MS = 5000

export interface ExportProgress {
  readonly phase: 'data' | 'attributes'
  /** plain bytes of blocks that are not zero */
  readonly doneBytes: number
  readonly totalBytes: number
  /** encoded bytes that were read from chunks */
  readonly readBytes: number
}

export interface ExportOptions {
  readonly vmPath: string
  /** the newest unless given */
  readonly generation?: number
  /** absent or an empty directory */
  readonly destination: string
  readonly onProgress: (progress: ExportProgress) => void
  readonly onWarning: (message: string) => void
  readonly signal?: AbortSignal
  /** worker threads; as many as there are cores unless given */
  readonly threads?: number
  /** who reads, for the pin that keeps prune away; made up unless given */
  readonly client?: { readonly id: string; readonly host: string }
}

export interface ExportResult {
  readonly generation: PublishedGeneration
  readonly files: number
  /** sizes of all files together */
  readonly totalBytes: number
  readonly writtenBytes: number
  readonly readBytes: number
}

export async function exportGeneration(options: ExportOptions): Promise<ExportResult> {
  const share = new Share(path.resolve(options.vmPath))
  readVmDescriptor(share)
  const destination = path.resolve(options.destination)
  checkDestination(destination)
  const generation =
    options.generation === undefined
      ? readNewestGeneration(share)
      : readGeneration(share, toGeneration(options.generation))
  const pin = pinGeneration(share, generation, options)
  const beating = pin === undefined ? undefined : keepBeating(share, pin)
  const incomplete = `${destination}${INCOMPLETE_SUFFIX}`
  try {
    const tree = createTree(incomplete, generation.manifest.entries, options.onWarning)
    const transferred = await exportFiles({ ...options, share, tree })
    const { writtenBytes, readBytes } = transferred
    options.onProgress({ phase: 'attributes', doneBytes: writtenBytes, totalBytes: writtenBytes, readBytes })
    syncTree(tree) // before the modes, which may keep this process itself out
    await setAttributes(tree, options.onWarning)
    fs.renameSync(incomplete, destination)
    return { generation, ...transferred, ...countFiles(tree) }
  } catch (error) {
    if (fs.existsSync(incomplete)) {
      options.onWarning(
        `the export failed; what it wrote lies in ${incomplete} and is not complete: remove it before the next try`
      )
    }
    throw error
  } finally {
    clearInterval(beating)
    if (pin !== undefined) removePin(share, pin)
  }
}

/** A prune takes a pin that is silent for long for one of an export that died. */
function keepBeating(share: Share, pin: Pin): NodeJS.Timeout {
  let beats = 0
  const beat = (): void => {
    try {
      beatPin(share, pin, ++beats)
    } catch {
      // whatever the share refuses, the export itself meets and tells
    }
  }
  return setInterval(beat, PIN_BEAT_INTERVAL_MS)
}

function checkDestination(destination: string): void {
  const parent = path.dirname(destination)
  if (fs.statSync(parent, { throwIfNoEntry: false })?.isDirectory() !== true) {
    throw new FailedError(`the directory ${parent} does not exist`, {
      hint: `check the path, or make it: mkdir -p ${parent}`
    })
  }
  const existing = fs.lstatSync(destination, { throwIfNoEntry: false })
  if (existing !== undefined && !(existing.isDirectory() && fs.readdirSync(destination).length === 0)) {
    throw new FailedError(`${destination} exists and is not an empty directory`, {
      hint: 'an export writes over nothing: choose another name, or remove it'
    })
  }
  if (existing !== undefined && existing.dev !== fs.statSync(parent).dev) {
    throw new FailedError(`${destination} is a mountpoint, which cannot be replaced`, {
      hint: `choose a directory in it, such as ${path.join(destination, 'vm')}`
    })
  }
  const incomplete = `${destination}${INCOMPLETE_SUFFIX}`
  if (fs.lstatSync(incomplete, { throwIfNoEntry: false }) === undefined) return
  throw new FailedError(
    `${incomplete} is there: an earlier export to ${destination} was interrupted, or one is running`,
    {
      hint: `when none is running, remove it and repeat: rm -r ${incomplete}`
    }
  )
}

/** Keeps prune away from the generation. Nobody prunes from a client that cannot write the share, so it needs no pin. */
function pinGeneration(share: Share, generation: PublishedGeneration, options: ExportOptions): Pin | undefined {
  const client = options.client ?? { id: randomBytes(16).toString('hex'), host: os.hostname() }
  try {
    return createPin(share, { ...importHolder(client), mountpoint: '(export)' }, generation.number)
  } catch (error) {
    const readOnly = ['EROFS', 'EACCES', 'EPERM'].includes(errnoOf(error) ?? '')
    if (!readOnly)
      options.onWarning(
        `the share could not be told that generation ${generation.number} is in use: ${messageOf(error)}`
      )
    return undefined
  }
}

function countFiles(tree: readonly ExportedEntry[]): { readonly files: number; readonly totalBytes: number } {
  const sizes = tree.flatMap(({ entry }) => (entry.type === 'file' ? [entry.size] : []))
  return { files: sizes.length, totalBytes: sizes.reduce((sum, size) => sum + size, 0) }
}
