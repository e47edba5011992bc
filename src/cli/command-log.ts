/** isrfs log: the history of a VM, newest first; branches beside the generations that took their numbers. */
import path from 'node:path'
import { messageOf } from '../base/errors.js'
import {
  branchDirectory,
  generationName,
  listBranches,
  listGenerations,
  type PublishedGeneration,
  readBranch,
  readGeneration
} from '../format/generations.js'
import type { Manifest } from '../format/manifest.js'
import { readTombstone } from '../format/tombstone.js'
import { readVmDescriptor } from '../format/vm.js'
import { Share } from '../share/share.js'
import { sizeOf } from './command-share.js'
import { bytes, moment } from './figures.js'
import { result } from './output.js'
import { table } from './table.js'

/** Of a damaged generation only its name and what is wrong, of a pruned one its name and when. */
type Entry =
  | { readonly name: string; readonly kind: 'generation' | 'branch'; readonly read: PublishedGeneration }
  | { readonly name: string; readonly kind: 'pruned'; readonly pruned: string }
  | { readonly name: string; readonly kind: 'damaged'; readonly damage: string }

export function logCommand(given: string, options: { readonly json?: boolean } = {}): void {
  const share = new Share(path.resolve(given))
  readVmDescriptor(share)
  const entries = history(share)
  if (options.json === true) result(JSON.stringify(entries.map(jsonOf)))
  else result(table(COLUMNS, entries.map(rowOf)))
}

const RIGHT = 'right' as const
const COLUMNS = [
  { title: 'GENERATION', align: RIGHT },
  { title: 'WHEN' },
  { title: 'HOST' },
  { title: 'CHANGED', align: RIGHT },
  { title: 'SENT', align: RIGHT },
  { title: 'FILES', align: RIGHT },
  { title: 'SIZE', align: RIGHT },
  { title: 'NOTE' }
]

function history(share: Share): Entry[] {
  const entries: Entry[] = listGenerations(share).map((number) =>
    read(share, String(number), generationName(number), 'generation', () => readGeneration(share, number))
  )
  for (const name of listBranches(share)) {
    entries.push(read(share, name, branchDirectory(name), 'branch', () => readBranch(share, name)))
  }
  const numberOf = ({ name }: Entry): number => Number.parseInt(name, 10)
  return entries.sort((first, second) => numberOf(second) - numberOf(first))
}

function read(
  share: Share,
  name: string,
  directory: string,
  kind: 'generation' | 'branch',
  get: () => PublishedGeneration
): Entry {
  try {
    const tombstone = readTombstone(share, directory)
    if (tombstone !== undefined) return { name, kind: 'pruned', pruned: tombstone.pruned }
    return { name, kind, read: get() }
  } catch (error) {
    return { name, kind: 'damaged', damage: messageOf(error) }
  }
}

function rowOf(entry: Entry): string[] {
  if (entry.kind === 'damaged') return [entry.name, entry.damage]
  if (entry.kind === 'pruned') return [entry.name, moment(entry.pruned), '', '', '', '', '', 'pruned']
  const { manifest } = entry.read
  const { created, client, changedBytes, sentBytes } = manifest
  return [
    entry.name,
    moment(created),
    client.host,
    bytes(changedBytes),
    bytes(sentBytes),
    String(filesIn(entry.read)),
    bytes(sizeOf(manifest)),
    entry.kind === 'branch' ? 'branch' : noteOf(manifest)
  ]
}

function noteOf({ restores, checkpoint, compaction }: Manifest): string {
  if (compaction === true) return 'compaction'
  if (restores !== undefined) return `restores ${restores}`
  return checkpoint === undefined ? '' : 'checkpoint'
}

/** docs/operations.md, "JSON". */
function jsonOf(entry: Entry): object {
  const generation = Number.parseInt(entry.name, 10)
  const branch = entry.name.includes('-') ? { branch: entry.name } : {}
  if (entry.kind === 'damaged') return { generation, ...branch, damage: entry.damage }
  if (entry.kind === 'pruned') return { generation, ...branch, pruned: entry.pruned }
  const { digest, manifest } = entry.read
  const { created, client, changedBytes, sentBytes, parent, session, restores, checkpoint, compaction } = manifest
  return {
    generation,
    ...branch,
    digest,
    parent: parent?.generation ?? null,
    session,
    created,
    host: client.host,
    client: client.id,
    changedBytes,
    sentBytes,
    files: filesIn(entry.read),
    totalBytes: sizeOf(manifest),
    ...(restores === undefined ? {} : { restores }),
    ...(checkpoint === undefined ? {} : { checkpoint }),
    ...(compaction === undefined ? {} : { compaction })
  }
}

function filesIn({ manifest }: PublishedGeneration): number {
  return manifest.entries.filter((entry) => entry.type === 'file').length
}
