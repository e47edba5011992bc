/**
 * Pages that say of each of their 16-byte units which page and which version they are, so that any reader can tell a byte of
 * another page, of an older version, or of nowhere.
 */
import { PAGE_BYTES } from '../../src/base/units.js'

const UNIT_BYTES = 16
const MAGIC = 0x5eedf11e
/** versions that are zeros: the page was cut off, and the file grew again */
const ZERO_EVERY = 4

export interface Versions {
  /** by page: the version that is being written, or was */
  readonly begun: Int32Array
  /** by page: the version that is there for sure */
  readonly done: Int32Array
}

export interface StressData {
  readonly file: string
  readonly seed: number
  readonly worker: number
  readonly workers: number
  readonly operations: number
  readonly versions: Versions
}

export function createVersions(pages: number): Versions {
  const create = (): Int32Array => new Int32Array(new SharedArrayBuffer(pages * 4))
  return { begun: create(), done: create() }
}

export function isZeroVersion(version: number): boolean {
  return version % ZERO_EVERY === ZERO_EVERY - 1
}

export function pageOf(page: number, version: number): Buffer {
  const bytes = Buffer.alloc(PAGE_BYTES)
  if (isZeroVersion(version)) return bytes
  for (let at = 0; at < PAGE_BYTES; at += UNIT_BYTES) {
    bytes.writeUInt32LE(MAGIC, at)
    bytes.writeUInt32LE(page, at + 4)
    bytes.writeUInt32LE(version, at + 8)
    bytes.writeUInt32LE((Math.imul(page, 31) ^ version ^ at) >>> 0, at + 12)
  }
  return bytes
}

/** What of `bytes`, read from a page on, is no version between `before`'s done and `after`'s begun. */
export function wrongUnits(
  bytes: Buffer,
  firstPage: number,
  before: Pick<Versions, 'done'>,
  after: Pick<Versions, 'begun'>
): string[] {
  const wrong: string[] = []
  for (let at = 0; at < bytes.length && wrong.length < 5; at += UNIT_BYTES) {
    const page = firstPage + Math.floor(at / PAGE_BYTES)
    const lowest = before.done[page] ?? 0
    const highest = after.begun[page] ?? 0
    const [magic, number, version, sum] = [0, 4, 8, 12].map((part) => bytes.readUInt32LE(at + part))
    const isZero = magic === 0 && number === 0 && version === 0 && sum === 0
    if (isZero && mayBeZero(lowest, highest)) continue
    const isWhole =
      magic === MAGIC && number === page && sum === (Math.imul(page, 31) ^ (version ?? 0) ^ (at % PAGE_BYTES)) >>> 0
    if (isWhole && version !== undefined && version >= lowest && version <= highest && !isZeroVersion(version)) continue
    wrong.push(
      `page ${String(page)} at ${String(at % PAGE_BYTES)}: page ${String(number)} version ${String(version)}, ` +
        `wanted ${String(lowest)} to ${String(highest)}`
    )
  }
  return wrong
}

export function mayBeZero(lowest: number, highest: number): boolean {
  for (let version = lowest; version <= highest; version++) if (isZeroVersion(version)) return true
  return false
}
