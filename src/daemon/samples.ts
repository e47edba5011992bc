/**
 * What a mount did in the last minutes, a row a second: whoever begins to look sees how it came to this. Counters are kept as they
 * are; whoever wants rates takes differences.
 */
import { PAGE_BYTES } from '../base/units.js'
import { type StatusSources, uploadedBytesOf } from './status.js'

export const SAMPLE_INTERVAL_MS = 1000
const ROWS_MAX = 600

/** The columns of a row: counters since the mount began, but for `dirtyBytes`. */
export const SAMPLE_COLUMNS = [
  'readBytes',
  'writtenBytes',
  'fetchedBytes',
  'uploadedBytes',
  'fetchedBlocks',
  'readaheadBlocks',
  'profileBlocks',
  'streamBlocks',
  'warmBlocks',
  'dirtyBytes'
] as const
export type SampleColumn = (typeof SAMPLE_COLUMNS)[number]

export interface SampleRows {
  readonly columns: string[]
  readonly intervalMs: number
  /** number of the first row; rows are numbered from 0 since the mount began */
  readonly first: number
  readonly rows: number[][]
}

export class Samples {
  readonly #read: () => readonly number[]
  readonly #rows: (readonly number[])[] = []
  readonly #timer: NodeJS.Timeout
  #first = 0

  constructor(read: () => readonly number[]) {
    this.#read = read
    this.#take()
    this.#timer = setInterval(() => this.#take(), SAMPLE_INTERVAL_MS)
    this.#timer.unref()
  }

  /** Rows from number `since` on, as far as they are kept. */
  since(since: number): SampleRows {
    const from = Math.max(0, since - this.#first)
    const rows = this.#rows.slice(from).map((row) => [...row])
    return {
      columns: [...SAMPLE_COLUMNS],
      intervalMs: SAMPLE_INTERVAL_MS,
      first: this.#first + Math.min(from, this.#rows.length),
      rows
    }
  }

  stop(): void {
    clearInterval(this.#timer)
  }

  #take(): void {
    this.#rows.push(this.#read())
    if (this.#rows.length <= ROWS_MAX) return
    this.#rows.shift()
    this.#first++
  }
}

/** One row, in the order of SAMPLE_COLUMNS. */
export function sampleOf(sources: StatusSources): number[] {
  const { images, vm } = sources
  const { counters } = images.ahead
  const row: Record<SampleColumn, number> = {
    readBytes: images.readBytes,
    writtenBytes: images.writtenBytes,
    fetchedBytes: vm.pool.counters.fetchedBytes,
    uploadedBytes: uploadedBytesOf(sources),
    fetchedBlocks: vm.pool.counters.fetchedBlocks,
    readaheadBlocks: counters.readahead.fetchedBlocks,
    profileBlocks: counters.profile.fetchedBlocks,
    streamBlocks: counters.stream.fetchedBlocks,
    warmBlocks: counters.warm.fetchedBlocks,
    dirtyBytes: vm.session.namespace.dirtyPages * PAGE_BYTES
  }
  return SAMPLE_COLUMNS.map((column) => row[column])
}
