/**
 * How long the kernel's requests take, by kind: counters in typed arrays, so that noting one allocates nothing; whoever wants
 * figures samples them. Both transports run their requests through RunningOperations, which is the one that calls this.
 */

/** Kinds of requests; names of both transports are mapped to them. */
export const OPERATION_KINDS = [
  'read',
  'write',
  'fsync',
  'lookup',
  'getattr',
  'setattr',
  'open',
  'release',
  'readdir',
  'names',
  'other'
] as const
export type OperationKind = (typeof OPERATION_KINDS)[number]

/** Upper ends of the buckets: 8 µs, twice as much each, up to 67 s; one more bucket holds what took longer. */
export const BUCKET_ENDS_SECONDS: readonly number[] = Array.from({ length: 24 }, (_none, index) => 8e-6 * 2 ** index)
/** of 8 µs */
const STEPS_PER_MS = 125
const STEPS_MAX = 2 ** 31
const BUCKETS = BUCKET_ENDS_SECONDS.length + 1

const KIND_OF: Readonly<Record<string, OperationKind>> = {
  read: 'read',
  write: 'write',
  fsync: 'fsync',
  fsyncdir: 'fsync',
  flush: 'fsync',
  lookup: 'lookup',
  getattr: 'getattr',
  setattr: 'setattr',
  truncate: 'setattr',
  chmod: 'setattr',
  chown: 'setattr',
  utimens: 'setattr',
  fallocate: 'setattr',
  open: 'open',
  create: 'open',
  opendir: 'open',
  release: 'release',
  releasedir: 'release',
  readdir: 'readdir',
  readdirplus: 'readdir',
  mknod: 'names',
  mkdir: 'names',
  symlink: 'names',
  unlink: 'names',
  rmdir: 'names',
  rename: 'names',
  rename2: 'names'
}
const OTHER = OPERATION_KINDS.length - 1

export class OperationTimes {
  /** requests that are being answered now */
  running = 0
  /** of each kind: requests in each bucket, one kind after another */
  readonly #counts = new Float64Array(OPERATION_KINDS.length * BUCKETS)
  readonly #seconds = new Float64Array(OPERATION_KINDS.length)
  readonly #failed = new Float64Array(OPERATION_KINDS.length)
  /** by the name as a transport gives it */
  readonly #kinds = new Map<string, number>()

  note(operation: string, milliseconds: number, hasFailed: boolean): void {
    const kind = this.#kinds.get(operation) ?? this.#learn(operation)
    // 8 µs and less are in bucket 0, up to 16 µs in bucket 1, ...
    const steps = Math.min(STEPS_MAX, Math.max(1, Math.ceil(milliseconds * STEPS_PER_MS)))
    const bucket = Math.min(BUCKETS - 1, 32 - Math.clz32(steps - 1))
    const at = kind * BUCKETS + bucket
    this.#counts[at] = (this.#counts[at] ?? 0) + 1
    this.#seconds[kind] = (this.#seconds[kind] ?? 0) + milliseconds / 1000
    if (hasFailed) this.#failed[kind] = (this.#failed[kind] ?? 0) + 1
  }

  /** Counts for each bucket (one more than BUCKET_ENDS_SECONDS has), sum of the times, and how many were answered with an error. */
  of(kind: OperationKind): { readonly counts: readonly number[]; readonly seconds: number; readonly failed: number } {
    const index = OPERATION_KINDS.indexOf(kind)
    return {
      counts: [...this.#counts.subarray(index * BUCKETS, (index + 1) * BUCKETS)],
      seconds: this.#seconds[index] ?? 0,
      failed: this.#failed[index] ?? 0
    }
  }

  #learn(operation: string): number {
    const kind = KIND_OF[operation.toLowerCase()]
    const index = kind === undefined ? OTHER : OPERATION_KINDS.indexOf(kind)
    this.#kinds.set(operation, index)
    return index
  }
}
