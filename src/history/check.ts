/**
 * `check`: is everything that the kept generations need on the share, and is it what its digests say?
 *
 *     lease, manifests, pins -> map roots -> map pages -> sizes of the chunks -> (with readData) every block
 *
 * Each object is looked at once, however many generations share it. Only reads. A bad object is listed with all files and
 * ranges of all generations that suffer; the check goes on behind it. Trouble of the share is no damage: it ends the check. One
 * chunk or manifest whose bytes the server cannot read, while it answers for others, is damage. A generation that is pruned meanwhile does
 * not count.
 */
import { BLOCK_BYTES, BLOCKS_PER_MAP_PAGE } from '../base/units.js'
import { CommitPool } from '../commit/commit-pool.js'
import type { MapPage } from '../format/block-map.js'
import { chunkName } from '../format/chunk.js'
import type { BlockPlace } from '../format/place.js'
import type { Share } from '../share/share.js'
import { damageIn } from '../share/broken.js'
import { findFlaws, readPromise } from './structure.js'
import { addPages, type FileUse, type ObjectUses, type PageUse, readLive, readPage, rootsOf } from './references.js'

const BLOCKS_PER_TASK = 128
const TASKS_IN_FLIGHT_FACTOR = 2

export interface CheckProgress {
  readonly phase: 'maps' | 'blocks'
  readonly doneBytes: number
  readonly totalBytes: number
  readonly readBytes: number
}

/** Bytes [from, to) of a file in a generation that cannot be read. */
export interface Suffering {
  readonly generation: string
  readonly path: string
  readonly from: number
  readonly to: number
}

export interface BadObject {
  /** path on the share */
  readonly path: string
  readonly why: string
  readonly suffers: Suffering[]
}

export interface CheckOptions {
  readonly share: Share
  /** only this generation or branch */
  readonly only?: string | undefined
  readonly readData: boolean
  readonly onProgress: (progress: CheckProgress) => void
  readonly threads?: number
}

export interface CheckResult {
  readonly bad: readonly BadObject[]
  readonly generations: number
  readonly blocks: number
  readonly readBytes: number
}

export async function checkVm(options: CheckOptions): Promise<CheckResult> {
  const { share, threads } = options
  const pool = new CommitPool(share.root, { vmId: share.vmId, ...(threads === undefined ? {} : { threads }) })
  try {
    return await new Check(options, pool).run()
  } finally {
    await pool.close()
  }
}

class Check {
  readonly #options: CheckOptions
  readonly #pool: CommitPool
  readonly #bad = new Map<string, { why: string; suffers: Suffering[] }>()
  readonly #chunkSizes = new Map<string, number | string>()
  readonly #running = new Set<Promise<void>>()
  #blocks = 0
  #readBytes = 0
  #doneBytes = 0
  #totalBytes = 0

  constructor(options: CheckOptions, pool: CommitPool) {
    this.#options = options
    this.#pool = pool
  }

  async run(): Promise<CheckResult> {
    const { share, only } = this.#options
    const { promised, flaws } = readPromise(share)
    const { live, unreadable } = readLive(share)
    for (const { name, path, why } of unreadable) {
      if (only === undefined || only === name) this.#note(path, why, [whole(name)])
    }
    if (only === undefined) {
      for (const { path, why, generations } of [...flaws, ...findFlaws(share, live, promised)]) {
        this.#note(path, why, generations.map(whole))
      }
    }
    const wanted = live.filter(({ name }) => only === undefined || name === only)
    const pages = this.#findPages(rootsOf(wanted))
    this.#totalBytes = pages.length * BLOCKS_PER_MAP_PAGE * BLOCK_BYTES
    for (const page of pages) await this.#checkPage(page)
    await Promise.all(this.#running)
    const bad = this.#stillBad(new Set(wanted.map(({ name }) => name)))
    return { bad, generations: wanted.length, blocks: this.#blocks, readBytes: this.#readBytes }
  }

  /** Without what only generations need that were pruned while they were looked at. */
  #stillBad(looked: ReadonlySet<string>): BadObject[] {
    if (this.#bad.size === 0) return []
    const { live, unreadable } = readLive(this.#options.share)
    const left = new Set([...live, ...unreadable].map(({ name }) => name))
    const pruned = [...looked].filter((name) => !left.has(name))
    return [...this.#bad].flatMap(([path, { why, suffers }]) => {
      const suffering = suffers.filter(({ generation }) => !pruned.includes(generation))
      return suffers.length > 0 && suffering.length === 0 ? [] : [{ path, why, suffers: merged(suffering) }]
    })
  }

  #findPages(roots: ReadonlyMap<string, ObjectUses<FileUse>>): ObjectUses<PageUse>[] {
    const pages = new Map<string, ObjectUses<PageUse>>()
    for (const root of roots.values()) {
      try {
        addPages(this.#options.share, root, pages)
      } catch (error) {
        const why = whyBad(this.#options.share, error)
        const suffers = root.uses.map((use) => ({ ...nameOf(use), from: 0, to: use.sizeBytes }))
        this.#note(this.#chunkPath(root.place.chunk), why, suffers)
      }
      this.#report('maps')
    }
    return [...pages.values()]
  }

  async #checkPage(page: ObjectUses<PageUse>): Promise<void> {
    let map: MapPage
    try {
      map = readPage(this.#options.share, page.place)
    } catch (error) {
      const why = whyBad(this.#options.share, error)
      const suffers = page.uses.map((use) => rangeOf(use, 0, BLOCKS_PER_MAP_PAGE))
      this.#note(this.#chunkPath(page.place.chunk), why, suffers)
      return
    }
    let unit: { index: number; place: BlockPlace }[] = []
    for (let index = 0; index < BLOCKS_PER_MAP_PAGE; index++) {
      const place = map.place(index)
      if (place === undefined) continue
      this.#blocks++
      const why = this.#whyOutOfChunk(place)
      if (why !== undefined) this.#noteBlock(place, why, page, index)
      else if (this.#options.readData) unit.push({ index, place })
      if (unit.length === BLOCKS_PER_TASK) {
        await this.#examineSoon(unit, page)
        unit = []
      }
    }
    if (unit.length > 0) await this.#examineSoon(unit, page)
    this.#doneBytes += BLOCKS_PER_MAP_PAGE * BLOCK_BYTES
    this.#report('blocks')
  }

  /** At most a few tasks for each thread are under way. */
  async #examineSoon(unit: readonly { index: number; place: BlockPlace }[], page: ObjectUses<PageUse>): Promise<void> {
    const examined = this.#examine(unit, page).finally(() => this.#running.delete(examined))
    examined.catch(() => undefined) // another one may have ended the check
    this.#running.add(examined)
    if (this.#running.size >= this.#pool.threads * TASKS_IN_FLIGHT_FACTOR) await Promise.race(this.#running)
  }

  async #examine(unit: readonly { index: number; place: BlockPlace }[], page: ObjectUses<PageUse>): Promise<void> {
    const found = await this.#pool.run('examine', { places: unit.map(({ place }) => place) })
    for (const { position, why } of found) {
      const block = unit[position]
      if (block !== undefined) this.#noteBlock(block.place, why, page, block.index)
    }
    for (const { place } of unit) this.#readBytes += place.storedBytes
    this.#report('blocks')
  }

  #whyOutOfChunk({ chunk, offset, storedBytes }: BlockPlace): string | undefined {
    let size = this.#chunkSizes.get(chunk)
    if (size === undefined) this.#chunkSizes.set(chunk, (size = this.#sizeOfChunk(chunk)))
    if (typeof size === 'string') return size
    return size < offset + storedBytes ? `it has ${String(size)} bytes and is too short` : undefined
  }

  #sizeOfChunk(chunk: string): number | string {
    try {
      return this.#options.share.size(chunkName(chunk)) ?? 'it is missing'
    } catch (error) {
      return whyBad(this.#options.share, error)
    }
  }

  #noteBlock(place: BlockPlace, why: string, page: ObjectUses<PageUse>, index: number): void {
    const suffers = page.uses.map((use) => rangeOf(use, index, index + 1))
    this.#note(this.#chunkPath(place.chunk), why, suffers)
  }

  #note(path: string, why: string, suffers: readonly Suffering[]): void {
    const known = this.#bad.get(path)
    if (known === undefined) this.#bad.set(path, { why, suffers: [...suffers] })
    else known.suffers.push(...suffers)
  }

  #chunkPath(chunk: string): string {
    return this.#options.share.pathOf(chunkName(chunk))
  }

  #report(phase: CheckProgress['phase']): void {
    const [doneBytes, totalBytes, readBytes] = [this.#doneBytes, this.#totalBytes, this.#readBytes]
    this.#options.onProgress({ phase, doneBytes, totalBytes, readBytes })
  }
}

/** What is wrong with an object. Trouble of the share is thrown: it says nothing of the object. */
function whyBad(share: Share, error: unknown): string {
  const why = damageIn(share, error)
  if (why === undefined) throw error
  return why
}

function whole(generation: string): Suffering {
  return { generation, path: '', from: 0, to: 0 }
}

function nameOf({ generation, path }: FileUse): Pick<Suffering, 'generation' | 'path'> {
  return { generation, path }
}

function rangeOf(use: PageUse, firstBlock: number, endBlock: number): Suffering {
  const start = use.pageIndex * BLOCKS_PER_MAP_PAGE
  const from = (start + firstBlock) * BLOCK_BYTES
  return { ...nameOf(use), from, to: Math.min((start + endBlock) * BLOCK_BYTES, use.sizeBytes) }
}

/** Neighbouring ranges of one file as one. */
function merged(suffers: readonly Suffering[]): Suffering[] {
  const sorted = [...suffers].sort(
    (first, second) =>
      compare(first.generation, second.generation) || compare(first.path, second.path) || first.from - second.from
  )
  const all: { generation: string; path: string; from: number; to: number }[] = []
  for (const range of sorted) {
    const last = all.at(-1)
    if (last?.generation === range.generation && last.path === range.path && last.to >= range.from)
      last.to = Math.max(last.to, range.to)
    else all.push({ ...range })
  }
  return all
}

function compare(first: string, second: string): number {
  return first.localeCompare(second, 'en', { numeric: true })
}
