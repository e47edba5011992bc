/**
 * The tables of sparse disks: small, written a few bytes at a time, and scattered writes to a page that is absent keep every
 * other write and sync of the file waiting for the share (native-notes/kernel.md). So they are fetched right after mounting:
 * descriptor and grain tables of a sparse VMDK, header and tables of a qcow2.
 *
 * What a file says of itself is only a wish: it is bounded, and whatever cannot be had costs nothing but time.
 */
import { BLOCK_BYTES } from '../base/units.js'
import type { Inode } from '../session/namespace-types.js'

/** of all disks of a VM; a terabyte in 64 KiB grains has 128 MiB of them */
export const METADATA_BYTES_MAX = 32 * 1024 * 1024
const DISK = /(?<!-flat)\.(vmdk|qcow2?)$/i
/** more of a table, or more tables that it names, are not looked at: they are a hostile disk's, or not small */
const TABLE_BYTES_MAX = 1024 * 1024
const TABLES_MAX = 1024
const HEADER_BYTES = 512
const SECTOR_BYTES = 512

export interface Bytes {
  readonly start: number
  readonly end: number
}

/** The file's bytes, when all of them are here. */
export type ReadPresent = (start: number, length: number) => Buffer | undefined

export interface MetadataParts {
  /** blocks of the file come into the cache, or do not */
  readonly bring: (inode: Inode, blocks: readonly number[]) => Promise<unknown>
  readonly read: (inode: Inode, start: number, length: number) => Buffer | undefined
  readonly isStopped: () => boolean
}

/** All disks at once: what waits for the share is the queue's business. Never rejects. */
export async function fetchMetadata(files: Iterable<Inode>, parts: MetadataParts): Promise<void> {
  let leftBytes = METADATA_BYTES_MAX
  const take = (blocks: readonly number[]): readonly number[] => {
    const taken = blocks.slice(0, Math.floor(leftBytes / BLOCK_BYTES))
    leftBytes -= taken.length * BLOCK_BYTES
    return taken
  }
  await Promise.all([...files].filter(isDisk).map((inode) => fetchTables(inode, take, parts)))
}

/** What comes names more, at most twice: header, tables of tables, tables. */
async function fetchTables(
  inode: Inode,
  take: (blocks: readonly number[]) => readonly number[],
  { bring, read, isStopped }: MetadataParts
): Promise<void> {
  const done = new Set<number>()
  let wanted: readonly Bytes[] = [{ start: 0, end: 1 }]
  while (!isStopped()) {
    const endBytes = Math.min(inode.sizeBytes, inode.baseLimitBytes)
    const blocks = take(blocksOf(wanted, endBytes).filter((block) => !done.has(block)))
    if (blocks.length === 0) return
    for (const block of blocks) done.add(block)
    await bring(inode, blocks)
    wanted = metadataOf((start, length) => read(inode, start, length))
  }
}

function isDisk({ type, name, parent }: Inode): boolean {
  return type === 'file' && parent !== 0 && DISK.test(name)
}

/** Where a disk keeps its tables, as far as what is here tells. */
export function metadataOf(read: ReadPresent): Bytes[] {
  const header = read(0, HEADER_BYTES)
  if (header === undefined) return []
  switch (header.toString('latin1', 0, 4)) {
    case 'KDMV': // everything in front of the first grain
      return ranges([0, Number(header.readBigUInt64LE(64)) * SECTOR_BYTES])
    case 'QFI\xfb':
      return qcow2Tables(header, read)
    default:
      return []
  }
}

/** docs/interop/qcow2.txt of QEMU: the L1 and the refcount table name the L2 tables and the refcount blocks, a cluster each. */
function qcow2Tables(header: Buffer, read: ReadPresent): Bytes[] {
  const clusterBits = header.readUInt32BE(20)
  if (clusterBits < 9 || clusterBits > 21) return []
  const clusterBytes = 2 ** clusterBits
  const tables = ranges(
    [Number(header.readBigUInt64BE(40)), header.readUInt32BE(36) * 8],
    [Number(header.readBigUInt64BE(48)), header.readUInt32BE(56) * clusterBytes]
  )
  const named = tables.flatMap(({ start, end }) => {
    const table = end - start > TABLE_BYTES_MAX ? undefined : read(start, end - start)
    return table === undefined ? [] : offsetsIn(table)
  })
  return [...tables, ...ranges(...named.slice(0, TABLES_MAX).map((offset) => [offset, clusterBytes] as const))]
}

/** The low nine bits and the highest byte of an entry are flags. */
function offsetsIn(table: Buffer): number[] {
  const offsets: number[] = []
  for (let at = 0; at + 8 <= table.length; at += 8) {
    const offset = Number(table.readBigUInt64BE(at) & 0x00ff_ffff_ffff_fe00n)
    if (offset > 0) offsets.push(offset)
  }
  return offsets
}

/** Neither of the two can be trusted. */
function ranges(...found: readonly (readonly [start: number, length: number])[]): Bytes[] {
  return found
    .map(([start, length]) => ({ start, end: start + Math.min(length, METADATA_BYTES_MAX) }))
    .filter(({ start, end }) => Number.isSafeInteger(end) && end > start)
}

/** Ascending, each once, below the file's end. */
function blocksOf(wanted: readonly Bytes[], endBytes: number): number[] {
  const blocks = new Set<number>()
  for (const { start, end } of wanted) {
    const last = Math.ceil(Math.min(end, endBytes) / BLOCK_BYTES)
    for (let block = Math.floor(start / BLOCK_BYTES); block < last; block++) blocks.add(block)
  }
  return [...blocks].sort((first, second) => first - second)
}
