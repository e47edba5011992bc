/**
 * The sizes everything is made of, and brands for the numbers that must not be mixed up.
 * A block is the unit of fetch and transfer, a page the unit of modification, a region one local file.
 */

declare const brand: unique symbol
type Branded<Name extends string> = number & { readonly [brand]: Name }

/** number of a generation, 1 and up */
export type Generation = Branded<'Generation'>
/** id of a file or directory of one VM, stable over generations; 1 is the root */
export type InodeId = Branded<'InodeId'>

export const toGeneration = (value: number): Generation => value as Generation // the one place that brands generations
export const toInodeId = (value: number): InodeId => value as InodeId // the one place that brands inode ids

export const ROOT_INODE = toInodeId(1)

export const PAGE_BYTES = 4096
export const BLOCK_BYTES = 128 * 1024
export const PAGES_PER_BLOCK = BLOCK_BYTES / PAGE_BYTES
export const BLOCKS_PER_REGION = 128
export const REGION_BYTES = BLOCK_BYTES * BLOCKS_PER_REGION
export const PAGES_PER_REGION = REGION_BYTES / PAGE_BYTES
export const BLOCKS_PER_MAP_PAGE = 1024
export const CHUNK_BYTES_MAX = 16 * 1024 * 1024
/** largest VM file: 16 TiB */
export const FILE_BYTES_MAX = 16 * 2 ** 40
/** PATH_MAX of Linux, less the zero byte at the end */
export const PATH_CHARACTERS_MAX = 4095
export const NAME_BYTES_MAX = 255
export const SYMLINK_BYTES_MAX = 4095
/** names that one file may have, as on ext4 */
export const LINKS_MAX = 65_000

/** Where a block of a file is in its region files: which one, and which block and byte of it. */
export function regionOf(block: number): {
  readonly region: number
  readonly blockInRegion: number
  readonly offset: number
} {
  const blockInRegion = block % BLOCKS_PER_REGION
  return { region: Math.floor(block / BLOCKS_PER_REGION), blockInRegion, offset: blockInRegion * BLOCK_BYTES }
}

const FILE_TIME_MAX = 2n ** 63n - 1n
const FILE_TIME_MIN = -(2n ** 63n)

/** Nanoseconds since 1970 as everything here keeps them, 64 bits: what is before 1677 or after 2262 becomes the nearest time. */
export function toFileTime(timeNs: bigint): bigint {
  if (timeNs > FILE_TIME_MAX) return FILE_TIME_MAX
  return timeNs < FILE_TIME_MIN ? FILE_TIME_MIN : timeNs
}

const SIZE_PATTERN = /^(\d+(?:\.\d+)?)\s*([KMGTP]?)(?:i?B)?$/i

/** Parses "20G", "512M", "4096" (powers of 1024). Returns bytes, or undefined when it is not a size. */
export function parseSize(text: string): number | undefined {
  const match = SIZE_PATTERN.exec(text.trim())
  if (match?.[1] === undefined) return undefined
  const exponent = ' KMGTP'.indexOf((match[2] ?? '').toUpperCase() || ' ')
  const bytes = Math.round(Number(match[1]) * 1024 ** exponent)
  return Number.isSafeInteger(bytes) ? bytes : undefined
}

const DURATION_PATTERN = /^(\d+(?:\.\d+)?)\s*(ms|s|m|h)?$/i
const MILLISECONDS: Readonly<Record<string, number>> = { ms: 1, s: 1000, m: 60_000, h: 3_600_000 }

/** Parses "30s", "500ms", "2m", "10" (seconds). Returns milliseconds, or undefined when it is not a duration. */
export function parseDuration(text: string): number | undefined {
  const match = DURATION_PATTERN.exec(text.trim())
  if (match?.[1] === undefined) return undefined
  return Number(match[1]) * (MILLISECONDS[(match[2] ?? 's').toLowerCase()] ?? 1000)
}
