/** isrfs diff, rollback, check and prune: looking after the generations of a VM, in this process. */
import path from 'node:path'
import { IntegrityError, UsageError } from '../base/errors.js'
import { toGeneration } from '../base/units.js'
import { checkCache } from '../cache/check-cache.js'
import { hostName } from '../daemon/host.js'
import { type PublishedGeneration, readBranch, readGeneration } from '../format/generations.js'
import { readVmDescriptor } from '../format/vm.js'
import { type CheckProgress, type CheckResult, checkVm, type Suffering } from '../history/check.js'
import { diffGenerations } from '../history/diff.js'
import { type Compaction, prune } from '../history/prune.js'
import { repairDescriptor } from '../history/repair-descriptor.js'
import { repairManifests } from '../history/repair-manifests.js'
import { rollBack } from '../history/rollback.js'
import { openClient } from '../session/client.js'
import { keptManifest, neededBySession } from '../session/kept-manifests.js'
import { Share } from '../share/share.js'
import { bytes } from './figures.js'
import {
  directoriesOf,
  type GlobalOptions,
  toCount,
  toDurationMs,
  toGenerationNumber,
  toGenerationOrBranch
} from './options.js'
import { notice, result, resultAs } from './output.js'
import { prepareDirectory } from './prerequisites.js'
import { progressView } from './progress.js'
import { repairChunksOf } from './repair-chunks.js'
import { table } from './table.js'

export function diffCommand(given: string, from: string, to: string, options: { readonly json?: boolean }): void {
  const share = shareOf(given)
  const differences = diffGenerations(share, readNamed(share, from), readNamed(share, to))
  if (options.json === true) {
    result(JSON.stringify(differences))
    return
  }
  if (differences.length === 0) {
    notice('nothing differs')
    return
  }
  const columns = [{ title: 'CHANGE' }, { title: 'BYTES', align: 'right' as const }, { title: 'PATH' }]
  const rows = differences.map(({ path: name, change, changedBytes }) => [change, bytes(changedBytes), name])
  result(table(columns, rows))
}

export function rollbackCommand(
  given: string,
  name: string,
  options: GlobalOptions & { readonly acceptRollback?: boolean; readonly json?: boolean }
): void {
  const share = shareOf(given)
  const source = readNamed(share, name)
  const acceptMissing = options.acceptRollback === true
  const published = rollBack({ share, name: nameOf(source), source, client: clientOf(options), acceptMissing })
  resultAs(options.json, { vm: share.root, restores: nameOf(source), generation: published?.number ?? null }, () =>
    published === undefined
      ? `generation ${nameOf(source)} of ${share.root} is the newest one already`
      : `generation ${String(published.number)} of ${share.root} has the content of ${nameOf(source)} now`
  )
}

interface CheckCommandOptions extends GlobalOptions {
  readonly cache?: boolean
  readonly generation?: string
  readonly readData?: boolean
  readonly repair?: boolean
  readonly json?: boolean
}

export async function checkCommand(given: string | undefined, options: CheckCommandOptions): Promise<void> {
  if (options.cache === true) {
    checkCacheCommand(options)
    return
  }
  if (given === undefined) throw new UsageError('which VM? isrfs check <vm>, or isrfs check --cache')
  if (options.repair === true && repairDescriptor(new Share(path.resolve(given)))) {
    notice(`made anew from the generations: ${path.resolve(given, 'vm.json')}`)
  }
  const share = shareOf(given)
  const notPutBack = options.repair === true ? putManifestsBack(share, options) : new Set<string>()
  const only = options.generation === undefined ? undefined : nameOf(readNamed(share, options.generation))
  const readData = options.readData === true || options.repair === true
  let checked = await checkWithProgress(share, only, readData)
  if (options.repair === true && checked.bad.length > 0) {
    const checkAgain = (): Promise<CheckResult> => checkWithProgress(share, only, readData)
    checked = await repairChunksOf({ share, options, client: () => clientOf(options), notPutBack, checkAgain }, checked)
  }
  if (options.json === true) result(JSON.stringify(checked))
  else {
    for (const { path: object, why, suffers } of checked.bad) {
      result(`${object}: ${why}`)
      for (const range of suffers) result(`  ${describeRange(range)}`)
    }
  }
  const looked = `${String(checked.generations)} generations, ${String(checked.blocks)} blocks${readData ? `, ${bytes(checked.readBytes)} read` : ''}`
  if (checked.bad.length === 0) {
    notice(`${share.root} is whole: ${looked}`)
    return
  }
  throw new IntegrityError(`${share.root} is damaged: ${String(checked.bad.length)} bad objects (${looked})`, {
    hint: 'a client that has mounted this VM may have them in its cache: isrfs check <vm> --repair there; or restore them from a backup of the share under the same names; what does not suffer can be mounted (--generation N) and made the newest with isrfs rollback'
  })
}

/** Puts back the manifests of which this client has copies; the paths of those that stay damaged, which were told. */
function putManifestsBack(share: Share, options: GlobalOptions): ReadonlySet<string> {
  const { clientDirectory } = directoriesOf(options)
  const { vm: vmId } = readVmDescriptor(share)
  const copyOf = (digest: string): Buffer | undefined => keptManifest(clientDirectory, vmId, digest)
  const { repaired, failed } = repairManifests(share, { copyOf, needed: neededHere(clientDirectory, vmId) })
  for (const object of repaired) notice(`put back from the copy of its manifest: ${object}`)
  for (const { path: object, why } of failed) notice(`not put back: ${object}: ${why}`)
  return new Set(failed.map(({ path: object }) => object))
}

/** A session that is damaged itself says nothing about the share. */
function neededHere(clientDirectory: string, vmId: string): ReturnType<typeof neededBySession> {
  try {
    return neededBySession(clientDirectory, vmId)
  } catch (error) {
    if (error instanceof IntegrityError) return []
    throw error
  }
}

async function checkWithProgress(share: Share, only: string | undefined, readData: boolean): Promise<CheckResult> {
  const view = progressView()
  const onProgress = (progress: CheckProgress): void => view.show(progress)
  return checkVm({ share, only, readData, onProgress }).finally(() => view.end())
}

function checkCacheCommand(options: CheckCommandOptions): void {
  const { blocks, bad, inUse } = checkCache(directoriesOf(options).cacheDirectory)
  if (options.json === true) result(JSON.stringify({ blocks, bad, inUse }))
  else for (const block of bad) result(`dropped: ${block}`)
  for (const slot of inUse) notice(`not looked at, a mount is using it: ${slot}`)
  notice(
    `${String(blocks)} cached blocks, ${String(bad.length)} bad ones dropped (they are fetched again when they are needed)`
  )
}

export interface PruneCommandOptions {
  readonly keep: string
  readonly branch?: readonly string[]
  readonly grace: string
  readonly giveUp?: readonly string[]
  readonly compact?: boolean
  readonly yes?: boolean
  readonly json?: boolean
}

export function pruneCommand(given: string, options: GlobalOptions & PruneCommandOptions): void {
  const share = shareOf(given)
  const yes = options.yes === true
  const pruned = prune({
    share,
    client: clientOf(options),
    keep: toCount(options.keep, '--keep'),
    branches: options.branch ?? [],
    graceMs: toDurationMs(options.grace),
    yes,
    giveUp: options.giveUp ?? [],
    ...(options.compact === false ? { compactBytesMin: Infinity } : {})
  })
  const { compaction } = pruned
  if (options.json === true) {
    const { generation = null, why = null } = compaction ?? {}
    const value = compaction === undefined ? null : { ...compaction, generation, why }
    result(JSON.stringify({ done: yes, ...pruned, compaction: value }))
    return
  }
  for (const { name, why } of pruned.kept) notice(`generation ${name} stays: ${why}`)
  for (const { why } of pruned.heldBack) notice(`no chunk is removed: ${why}`)
  const names = pruned.removed.length === 0 ? 'no generation' : `generations ${pruned.removed.join(', ')}`
  const chunks = `${String(pruned.trashedChunks)} unused chunks (${bytes(pruned.trashedBytes)})`
  if (!yes) {
    result(`would remove ${names} and move ${chunks} to the trash; --yes does it`)
    if (compaction !== undefined) result(`would copy ${describeCompaction(compaction)}`)
    return
  }
  result(
    `removed ${names}; moved ${chunks} to the trash, deleted ${String(pruned.deletedChunks)} (${bytes(pruned.deletedBytes)}) from it`
  )
  if (pruned.waitingChunks > 0) {
    const until = pruned.heldBack.length > 0 ? 'they wait for what is said above' : 'a later prune removes them'
    notice(`${String(pruned.waitingChunks)} unused chunks are kept for now: ${until}`)
  }
  if (compaction === undefined) return
  if (compaction.generation === undefined) {
    notice(`not compacted: ${compaction.why ?? ''}`)
    return
  }
  result(`copied ${describeCompaction(compaction)}: generation ${String(compaction.generation)} has the same content`)
  notice('later prunes remove what it was copied from')
}

function describeCompaction({ chunks, usedBytes, garbageBytes }: Compaction): string {
  return `what is used (${bytes(usedBytes)}) of ${String(chunks)} chunks that are mostly garbage (${bytes(garbageBytes)})`
}

function shareOf(given: string): Share {
  const share = new Share(path.resolve(given))
  readVmDescriptor(share)
  return share
}

function readNamed(share: Share, given: string): PublishedGeneration {
  const { generation, branch } = toGenerationOrBranch(given)
  return branch === null
    ? readGeneration(share, toGeneration(generation ?? toGenerationNumber(given)))
    : readBranch(share, branch)
}

function nameOf(generation: PublishedGeneration): string {
  return 'name' in generation && typeof generation.name === 'string' ? generation.name : String(generation.number)
}

function clientOf(options: GlobalOptions): { readonly id: string; readonly host: string } {
  const { clientDirectory } = directoriesOf(options)
  prepareDirectory(clientDirectory, '--client-dir')
  return { id: openClient(clientDirectory).id, host: hostName() }
}

function describeRange({ generation, path: file, from, to }: Suffering): string {
  if (file === '') return `generation ${generation}: all of it`
  return `generation ${generation}: ${file}, bytes ${String(from)} to ${String(to)}`
}
