/** How the binding speaks: callbacks with negative errno, numbers or bigints for 64 bits, seconds and nanoseconds. */
import type { Attributes } from '../tree/attributes.js'

export type WideNumber = number | bigint

export interface Timespec {
  readonly seconds: WideNumber
  readonly nanoseconds: number
}

export interface Stats {
  mode: number
  uid: number
  gid: number
  size: number
  nlink: number
  rdev: number
  blksize: number
  blocks: number
  atime: Timespec
  mtime: Timespec
  ctime: Timespec
}

/** errno as the binding wants it: 0 or negative. */
export type DoneCallback = (result: number) => void
export type ValueCallback<Value> = (result: number, value?: Value) => void

const UTIME_NOW = 0x3fffffff
const UTIME_OMIT = 0x3ffffffe
const NANOSECONDS = 1_000_000_000n
/** chown(2)'s -1 as the unsigned number that arrives */
const UNCHANGED_ID = 0xffffffff

export function statsOf(attributes: Attributes): Stats {
  return {
    mode: attributes.mode,
    uid: attributes.uid,
    gid: attributes.gid,
    size: attributes.sizeBytes,
    nlink: attributes.nlink,
    rdev: attributes.rdev,
    blksize: 4096,
    blocks: Math.ceil(attributes.allocatedBytes / 512),
    atime: toTimespec(attributes.atimeNs),
    mtime: toTimespec(attributes.mtimeNs),
    ctime: toTimespec(attributes.ctimeNs)
  }
}

/** Also before 1970: the nanoseconds are never negative. */
export function toTimespec(timeNs: bigint): Timespec {
  const nanoseconds = ((timeNs % NANOSECONDS) + NANOSECONDS) % NANOSECONDS
  return { seconds: (timeNs - nanoseconds) / NANOSECONDS, nanoseconds: Number(nanoseconds) }
}

/** A time as the tree takes it; undefined leaves it as it is. */
export function fromTimespec({ seconds, nanoseconds }: Timespec): bigint | 'now' | undefined {
  if (nanoseconds === UTIME_NOW) return 'now'
  if (nanoseconds === UTIME_OMIT) return undefined
  return BigInt(seconds) * NANOSECONDS + BigInt(nanoseconds)
}

export function fromOwner(id: number): number | undefined {
  return id === UNCHANGED_ID || id < 0 ? undefined : id
}

/** Sizes and offsets above 2^53 are past every limit we have; a double is near enough to be refused. */
export function fromWide(value: WideNumber): number {
  return Number(value)
}
