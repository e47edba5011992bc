/**
 * The long part of an import: units go to the workers, a few more in flight than there are threads, and what comes
 * back becomes block maps. With a previous generation, blocks that it has already send nothing.
 */
import { isInHole } from './import-holes.js'
import fs from 'node:fs'
import assert from 'node:assert/strict'
import { errnoOf, FailedError } from '../base/errors.js'
import { BLOCK_BYTES, BLOCKS_PER_MAP_PAGE } from '../base/units.js'
import { BaseMaps } from '../cache/base-maps.js'
import type { CommitPool } from './commit-pool.js'
import { FileMapBuilder, finishMaps, MapPageWriter } from './import-maps.js'
import type { SourceFile } from './import-scan.js'
import { type BlockRange, blockSource, importUnits, isHole } from './import-units.js'
import type { FileMap } from './map-rewrite.js'

const UNITS_AHEAD = 1

export interface TransferOptions {
  readonly pool: CommitPool
  readonly files: readonly SourceFile[]
  /** map of the file in the previous generation, undefined when it has none */
  readonly previous: (file: SourceFile) => FileMap | undefined
  readonly onProgress: (progress: {
    readonly phase: 'data' | 'maps'
    readonly doneBytes: number
    readonly sentBytes: number
  }) => void
  readonly signal: AbortSignal | undefined
}

export interface Transferred {
  readonly maps: ReadonlyMap<SourceFile, FileMap>
  /** bytes of blocks that differ from the previous generation */
  readonly changedBytes: number
  readonly sentBytes: number
  /** names of chunks that hold what was sent, or was there already from an interrupted try */
  readonly chunks: ReadonlySet<string>
}

export async function transferFiles(options: TransferOptions): Promise<Transferred> {
  return new Transfer(options).run()
}

class Transfer {
  readonly #options: TransferOptions
  readonly #builders = new Map<SourceFile, { builder: FileMapBuilder; old: FileMap; missing: number }>()
  readonly #maps: BaseMaps
  readonly #pages: MapPageWriter
  readonly #chunks = new Set<string>()
  #doneBytes = 0
  #sentBytes = 0
  #changedBytes = 0
  #failure: { readonly error: unknown } | undefined

  constructor(options: TransferOptions) {
    this.#options = options
    this.#maps = new BaseMaps(async (place) => {
      const bytes = await options.pool.run('mapObject', { place, candidate: undefined })
      return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)
    })
    this.#pages = new MapPageWriter((objects) => this.#writeObjects(objects))
  }

  async run(): Promise<Transferred> {
    const { files, pool } = this.#options
    for (const file of files) await this.#begin(file)
    const running = new Set<Promise<void>>()
    for (const unit of importUnits(files)) {
      this.#check()
      const sent: Promise<void> = this.#sendUnit(unit)
        .catch((error: unknown) => {
          this.#failure ??= { error }
        })
        .finally(() => running.delete(sent))
      running.add(sent)
      if (running.size >= pool.threads + UNITS_AHEAD) await Promise.race(running)
    }
    await Promise.all(running)
    this.#check()
    this.#report('maps')
    await this.#pages.flush()
    const finished = await finishMaps(
      files.map((file) => this.#of(file).builder),
      (objects) => this.#writeObjects(objects)
    )
    for (const file of files) assertUnchanged(file) // again, all of them together: the state of one moment
    const maps = new Map<SourceFile, FileMap>()
    for (const [index, file] of files.entries()) {
      const map = finished[index]
      if (map !== undefined) maps.set(file, map)
    }
    return { maps, changedBytes: this.#changedBytes, sentBytes: this.#sentBytes, chunks: this.#chunks }
  }

  async #begin(file: SourceFile): Promise<void> {
    const old = this.#options.previous(file) ?? { map: null, dataBlocks: 0 }
    const oldRoot = old.map === null ? new Map<number, never>() : await this.#maps.root(old.map)
    const builder = new FileMapBuilder(isHole(file) ? 0 : file.sizeBytes, old, oldRoot)
    this.#builders.set(file, { builder, old, missing: Math.ceil(file.sizeBytes / BLOCK_BYTES) })
    if (isHole(file)) {
      this.#doneBytes += file.sizeBytes
      this.#changedBytes += old.dataBlocks * BLOCK_BYTES
    }
  }

  async #sendUnit(unit: readonly BlockRange[]): Promise<void> {
    const blocks = unit.flatMap(({ file, firstBlock, count }) =>
      Array.from({ length: count }, (_, index) => ({ file, block: firstBlock + index }))
    )
    for (const { file, block } of blocks) {
      const page = Math.floor(block / BLOCKS_PER_MAP_PAGE)
      const { builder, old } = this.#of(file)
      if (block % BLOCKS_PER_MAP_PAGE === 0 || block === unit[0]?.firstBlock)
        builder.begin(page, await this.#maps.page(old.map, page))
    }
    const baseDigests = blocks.map(({ file, block }) => this.#of(file).builder.oldDigest(block))
    const { results, sentBytes } = unit.every(isRangeInHole)
      ? { results: blocks.map(() => ({ state: 'zero' as const })), sentBytes: 0 }
      : await this.#options.pool.run('encode', {
          blocks: blocks.map(({ file, block }) => blockSource(file, block)),
          baseDigests
        })
    this.#sentBytes += sentBytes
    for (const [index, { file, block }] of blocks.entries()) {
      const result = results[index]
      assert(result !== undefined, 'a worker returned fewer blocks than it was given')
      const changed = result.state === 'placed' || (result.state === 'zero' && baseDigests[index] !== undefined)
      if (changed) this.#changedBytes += BLOCK_BYTES
      if (result.state === 'placed') this.#chunks.add(result.place.chunk)
      const place = result.state === 'placed' ? result.place : result.state === 'same' ? 'same' : undefined
      await this.#place(file, block, place)
    }
    this.#report('data')
  }

  async #place(file: SourceFile, block: number, place: Parameters<FileMapBuilder['set']>[1]): Promise<void> {
    const state = this.#of(file)
    const page = state.builder.set(block, place)
    this.#doneBytes += Math.min(BLOCK_BYTES, file.sizeBytes - block * BLOCK_BYTES)
    state.missing--
    if (state.missing === 0) assertUnchanged(file)
    if (page !== undefined) await this.#pages.add(state.builder, page.page, page.bytes)
  }

  async #writeObjects(objects: readonly Buffer[]): ReturnType<ConstructorParameters<typeof MapPageWriter>[0]> {
    const { places, sentBytes } = await this.#options.pool.run('objects', { objects })
    this.#sentBytes += sentBytes
    for (const place of places) this.#chunks.add(place.chunk)
    return places
  }

  #of(file: SourceFile): { builder: FileMapBuilder; old: FileMap; missing: number } {
    const state = this.#builders.get(file)
    assert(state !== undefined, 'a file that was not begun')
    return state
  }

  #check(): void {
    if (this.#failure !== undefined) throw this.#failure.error
    if (this.#options.signal?.aborted === true) {
      throw new FailedError('the import was interrupted', {
        hint: 'repeat the same command: what was sent already is not sent again'
      })
    }
  }

  #report(phase: 'data' | 'maps'): void {
    this.#options.onProgress({ phase, doneBytes: this.#doneBytes, sentBytes: this.#sentBytes })
  }
}

/** A file that is written meanwhile would be imported as something that it never was. */
function assertUnchanged(file: SourceFile): void {
  for (const part of file.parts) {
    if (isUnchanged(part)) continue
    throw new FailedError(`${part.path} changed while it was imported`, {
      hint: 'stop whatever writes to the directory (a VM has to be shut down or suspended), then repeat the import'
    })
  }
}

/** Whether the file system says that the range has no data: it is not read then. */
function isRangeInHole({ file, firstBlock, count }: BlockRange): boolean {
  const [part] = file.parts
  if (part?.data === undefined || file.parts.length > 1) return false
  return isInHole(part.data, firstBlock * BLOCK_BYTES, (firstBlock + count) * BLOCK_BYTES)
}

function isUnchanged(part: SourceFile['parts'][number]): boolean {
  try {
    const now = fs.lstatSync(part.path, { bigint: true })
    const sameFile = now.isFile() && now.dev === part.device && now.ino === part.inode
    return sameFile && Number(now.size) === part.sizeBytes && now.mtimeNs === part.mtimeNs
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return false
    throw error
  }
}
