/**
 * The long part of an export: the blocks of all files go through the workers, a few units more in flight than there are
 * threads. Maps are read page by page, so memory does not grow with the size of the VM.
 */
import { FailedError, IntegrityError, messageOf } from '../base/errors.js'
import { BLOCK_BYTES, BLOCKS_PER_MAP_PAGE } from '../base/units.js'
import { BaseMaps } from '../cache/base-maps.js'
import type { MapPage } from '../format/block-map.js'
import type { Share } from '../share/share.js'
import { CommitPool } from './commit-pool.js'
import { UNIT_BLOCKS_MAX } from './encode.js'
import type { ExportUnit } from './export-blocks.js'
import type { ExportedEntry } from './export-tree.js'

const UNITS_AHEAD = 1

export interface ExportFilesOptions {
  readonly share: Share
  readonly tree: readonly ExportedEntry[]
  readonly threads?: number
  readonly signal?: AbortSignal
  readonly onProgress: (progress: {
    readonly phase: 'data'
    readonly doneBytes: number
    readonly totalBytes: number
    readonly readBytes: number
  }) => void
}

export interface ExportedBytes {
  readonly writtenBytes: number
  readonly readBytes: number
}

export async function exportFiles(options: ExportFilesOptions): Promise<ExportedBytes> {
  const { share, threads } = options
  const pool = new CommitPool(share.root, { vmId: share.vmId, ...(threads === undefined ? {} : { threads }) })
  try {
    return await new ExportFiles(options, pool).run()
  } finally {
    await pool.close()
  }
}

class ExportFiles {
  readonly #options: ExportFilesOptions
  readonly #pool: CommitPool
  readonly #maps: BaseMaps
  readonly #totalBytes: number
  #writtenBytes = 0
  #readBytes = 0
  #failure: { readonly error: unknown } | undefined

  constructor(options: ExportFilesOptions, pool: CommitPool) {
    this.#options = options
    this.#pool = pool
    this.#maps = new BaseMaps(async (place) => {
      const bytes = await pool.run('mapObject', { place, candidate: undefined })
      return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)
    })
    const blocks = options.tree.reduce((sum, { entry }) => sum + (entry.type === 'file' ? entry.dataBlocks : 0), 0)
    this.#totalBytes = blocks * BLOCK_BYTES
  }

  async run(): Promise<ExportedBytes> {
    const running = new Set<Promise<void>>()
    this.#report()
    for await (const unit of this.#units()) {
      this.#check()
      const written: Promise<void> = this.#write(unit)
        .catch((error: unknown) => {
          this.#failure ??= { error }
        })
        .finally(() => running.delete(written))
      running.add(written)
      if (running.size >= this.#pool.threads + UNITS_AHEAD) await Promise.race(running)
    }
    await Promise.all(running)
    this.#check()
    return { writtenBytes: this.#writtenBytes, readBytes: this.#readBytes }
  }

  async *#units(): AsyncGenerator<ExportUnit> {
    for (const { entry, path, name } of this.#options.tree) {
      if (entry.type !== 'file' || entry.map === null) continue
      const { map, size } = entry
      const pagesEnd = Math.ceil(size / BLOCK_BYTES / BLOCKS_PER_MAP_PAGE)
      const root = await this.#map(name, () => this.#maps.root(map))
      for (const pageIndex of [...root.keys()].sort((first, second) => first - second)) {
        if (pageIndex >= pagesEnd) throw new IntegrityError(`the block map of ${name} goes beyond its size`)
        const page = await this.#map(name, () => this.#maps.page(map, pageIndex))
        if (page === null) continue
        for (const blocks of pieces(page, pageIndex, Math.ceil(size / BLOCK_BYTES))) {
          yield { path, name, sizeBytes: size, blocks }
        }
      }
    }
  }

  /** Damage of a map is damage of a file, which the message has to name. */
  async #map<Result>(name: string, read: () => Promise<Result>): Promise<Result> {
    try {
      return await read()
    } catch (error) {
      if (!(error instanceof IntegrityError)) throw error
      throw new IntegrityError(`the block map of ${name} is damaged: ${messageOf(error)}`, {
        hint:
          error.hint ?? 'export an older generation with --generation, or restore the chunk from a backup of the share',
        cause: error
      })
    }
  }

  async #write(unit: ExportUnit): Promise<void> {
    const { readBytes } = await this.#pool.run('export', unit)
    this.#readBytes += readBytes
    this.#writtenBytes += unit.blocks.length * BLOCK_BYTES
    this.#report()
  }

  #check(): void {
    if (this.#failure !== undefined) throw this.#failure.error
    if (this.#options.signal?.aborted === true) throw new FailedError('the export was interrupted')
  }

  #report(): void {
    this.#options.onProgress({
      phase: 'data',
      doneBytes: this.#writtenBytes,
      totalBytes: this.#totalBytes,
      readBytes: this.#readBytes
    })
  }
}

/** The blocks of a page that are not zero, in the pieces in which an import makes chunks of them. */
function* pieces(page: MapPage, pageIndex: number, blocksEnd: number): Generator<ExportUnit['blocks']> {
  for (let start = 0; start < BLOCKS_PER_MAP_PAGE; start += UNIT_BLOCKS_MAX) {
    const blocks: { block: number; place: ExportUnit['blocks'][number]['place'] }[] = []
    for (let index = start; index < start + UNIT_BLOCKS_MAX; index++) {
      const place = page.place(index)
      const block = pageIndex * BLOCKS_PER_MAP_PAGE + index
      if (place !== undefined && block < blocksEnd) blocks.push({ block, place })
    }
    if (blocks.length > 0) yield blocks
  }
}
