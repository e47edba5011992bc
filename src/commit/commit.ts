/**
 * A suspend: dirty blocks -> chunks -> maps -> manifest -> published generation.
 *
 *     check lease and base -> encode and upload units -> rewrite maps -> look at all chunks once more (or verify)
 *       -> publish (exclusive) -> mark the session published -> keep the new blocks in the cache
 *
 * Invariants:
 * 1. The session is only read until the generation is published and was read back; any failure before that leaves
 *    it whole, and the next try sends only what has no durable, recorded place.
 *    After that nothing fails: a published session is dropped by the next mount, which finds its id in the manifest,
 *    so whatever can be wrong with its chunks has to be found before.
 * 2. No generation is published unless the lease is still held and the newest generation is exactly the session's base, or
 *    a checkpoint that the session itself has published.
 *    A session that may not make the next generation any more becomes a branch of the VM instead: nothing is lost.
 * 3. A block that equals its base or is zero sends nothing.
 */
import { errnoOf, messageOf, IsrfsError, NotPublishedError } from '../base/errors.js'
import { BLOCK_BYTES, type InodeId, PAGE_BYTES, PAGES_PER_BLOCK, regionOf, toGeneration } from '../base/units.js'
import { BaseMaps } from '../cache/base-maps.js'
import type { Cache } from '../cache/cache.js'
import type { PublishedBranch, PublishedGeneration } from '../format/generations.js'
import type { Manifest } from '../format/manifest.js'
import { MANIFEST_FORMAT, manifestVersion } from '../format/manifest.js'
import type { BlockPlace, ObjectPlace } from '../format/place.js'
import type { Inode } from '../session/namespace-types.js'
import type { Session } from '../session/session.js'
import type { GenerationReference, HeldLease } from '../share/lease.js'
import { checkSent, refuseLoss, SPACE_TO_COMMIT_BYTES, syncSession } from './before-publish.js'
import { CommitPool } from './commit-pool.js'
import { CompressionChoice } from './compression-choice.js'
import {
  contentMayDiffer,
  countDirtyBlocks,
  type DirtyBlock,
  dirtyBlocks,
  firstDroppedBlock,
  isSentAlready
} from './dirty.js'
import { type DirtyLayers, sourceOf } from './dirty-source.js'
import { type BlockSource, type KeptBlock, UNIT_BLOCKS_MAX } from './encode.js'
import { manifestEntries, sameEntries } from './manifest-of.js'
import { type FileMap, rewriteMap } from './map-rewrite.js'
import { isStaleLock } from './stale-locks.js'
import { findSuccession, referenceTo, type Succession } from './succession.js'

const UNITS_IN_FLIGHT = 2
/** two units that begin together would go on to be compressed together, and the link would idle: the first is half of one */
const FIRST_UNIT_BLOCKS = UNIT_BLOCKS_MAX / 2
/** fewer blocks are too few for that to matter */
const BLOCKS_TO_STAGGER = 4 * UNIT_BLOCKS_MAX
/** how many times what was changed has to be free on the share before it is sent as it is */
const ROOM_FOR_RAW = 4
/** no estimate of a commit's size counts on better compression */
const RATIO_MAX = 16

export interface CommitProgress {
  readonly phase: 'upload' | 'maps' | 'verify' | 'publish' | 'cache'
  readonly doneBytes: number
  readonly totalBytes: number
  readonly sentBytes: number
}

export interface CommitOptions {
  readonly vmPath: string
  readonly session: Session
  readonly base: PublishedGeneration
  /** undefined: somebody else has the lease, so it becomes a branch */
  readonly held: Pick<HeldLease, 'number' | 'token'> | undefined
  /** the share has lost the base, which comes from a copy of its manifest (salvage.ts): it becomes a branch */
  readonly isBaseLost?: boolean
  /** for `held`, when nobody else has the lease */
  readonly whyNotHeld?: string
  /** undefined when a session is recovered without a cache */
  readonly cache: Cache | undefined
  readonly client: { readonly id: string; readonly host: string }
  /** read everything that was sent back from the share before it is called done */
  readonly verify: boolean
  /** publish although writes were lost: a person has decided so */
  readonly acceptLoss?: boolean
  /** publish lock directories that a VMM has left, too */
  readonly keepLocks?: boolean
  readonly onProgress: (progress: CommitProgress) => void
}

export interface CommitResult {
  /** undefined: nothing differs from the base and nothing was published, or it became a branch */
  readonly published: PublishedGeneration | undefined
  /** where the work is, when another client has made the next generation, and why */
  readonly branch: { readonly published: PublishedBranch; readonly why: string } | undefined
  /** what the session's next generation follows, or would have followed */
  readonly head: GenerationReference
  readonly changedBytes: number
  readonly sentBytes: number
}

/** Publishes the session as the next generation. Throws NotPublishedError with everything still in the session. */
export async function commitSession(options: CommitOptions): Promise<CommitResult> {
  const { vmPath, session } = options
  const pool = new CommitPool(vmPath, { vmId: session.identity.vmId, known: [...session.uploads.entries()] })
  try {
    return await new Commit(options, pool).run()
  } catch (error) {
    if (error instanceof NotPublishedError) throw error
    const hint = error instanceof IsrfsError ? error.hint : undefined
    throw new NotPublishedError(`the changes were not published: ${messageOf(error)}`, {
      cause: error,
      ...(hint === undefined ? {} : { hint })
    })
  } finally {
    await pool.close()
  }
}

class Commit {
  readonly #options: CommitOptions
  readonly #pool: CommitPool
  readonly #maps: BaseMaps
  readonly #layers: DirtyLayers
  #doneBytes = 0
  #totalBytes = 0
  #sentBytes = 0
  #changedBytes = 0
  #compression: CompressionChoice | undefined
  readonly #sentPlaces: BlockPlace[] = []
  readonly #sentObjects: ObjectPlace[] = []

  constructor(options: CommitOptions, pool: CommitPool) {
    this.#options = options
    this.#pool = pool
    this.#maps = new BaseMaps(async (place) => {
      const bytes = await pool.run('mapObject', { place, candidate: options.cache?.mapPath(place.digest) })
      return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)
    })
    this.#layers = { session: options.session, cache: options.cache, maps: this.#maps }
  }

  async run(): Promise<CommitResult> {
    const { session, base } = this.#options
    refuseLoss(this.#options)
    await syncSession(this.#options)
    let succession = await this.#succession()
    const files = [...session.namespace.inodes()].filter(
      (inode) => inode.type === 'file' && inode.parent !== 0 && contentMayDiffer(inode)
    )
    for (const inode of files) this.#totalBytes += countDirtyBlocks(inode) * BLOCK_BYTES
    if (this.#totalBytes > 0) {
      const mayBeRaw = (await this.#checkSpace()) >= this.#totalBytes * ROOM_FOR_RAW
      const threads = Math.min(this.#pool.threads, UNITS_IN_FLIGHT)
      this.#compression = new CompressionChoice({ threads, mayBeRaw })
    }
    const changes = await this.#upload(files)
    const maps = new Map<number, FileMap>()
    for (const inode of files) maps.set(inode.id, await this.#rewrite(inode, changes.get(inode.id) ?? new Map()))
    const isLock = (name: string, inode: Inode): boolean => isStaleLock(session.namespace, name, inode)
    const all = manifestEntries(session.namespace, maps)
    const entries = this.#options.keepLocks === true ? all : manifestEntries(session.namespace, maps, isLock)
    const { head } = succession
    if ([all, entries].some((shown) => sameEntries(shown, head.manifest?.entries ?? []))) {
      // a checkpoint has everything: a session that a crash keeps from being removed is recognised by this
      if (head.number > base.number) this.#mark({ generation: head.number, digest: head.digest })
      return {
        published: undefined,
        branch: undefined,
        head: referenceTo(head),
        changedBytes: 0,
        sentBytes: this.#sentBytes
      }
    }

    this.#report('verify')
    const sent = { places: this.#sentPlaces, objects: this.#sentObjects }
    await checkSent(this.#pool, sent, this.#options.verify, () => this.#report('verify'))
    this.#report('publish')
    if (succession.lost === undefined) succession = await this.#succession()
    const published = await this.#publish(succession, entries)
    const sizes = { changedBytes: this.#changedBytes, sentBytes: this.#sentBytes }
    if ('lost' in published) {
      const branch = await this.#pool.run('publishBranch', { manifest: this.#manifest(published.head, entries) })
      this.#mark({ generation: branch.number, digest: branch.digest, branch: branch.name })
      const why = published.lost ?? ''
      return { published: undefined, branch: { published: branch, why }, head: referenceTo(published.head), ...sizes }
    }
    this.#mark({ generation: published.number, digest: published.digest })
    await this.#keepInCache(files, changes)
    return { published, branch: undefined, head: referenceTo(published), ...sizes }
  }

  /**
   * The generation; or whoever has the number instead. A checkpoint of this session, of which nobody knew whether it came
   * through, may have it: then the next number is the session's.
   */
  async #publish(succession: Succession, entries: Manifest['entries']): Promise<PublishedGeneration | Succession> {
    if (succession.lost !== undefined) return succession
    try {
      return await this.#pool.run('publish', { manifest: this.#manifest(succession.head, entries) })
    } catch (error) {
      if (!(error instanceof NotPublishedError)) throw error
      const next = await this.#succession()
      if (next.lost === undefined && next.head.number > succession.head.number) return this.#publish(next, entries)
      return { head: next.head, lost: error.message }
    }
  }

  #mark(published: Parameters<Session['markPublished']>[0]): void {
    try {
      this.#options.session.markPublished(published)
    } catch {
      // a full disk: the manifest names the session, which says the same to the next mount
    }
  }

  /**
   * A share on which it clearly does not fit is told before anything is sent: less than half of what the dirty blocks
   * would become if they compressed as those of the generation before. (0 is what file systems say that do not know.)
   * Returns how many bytes are free.
   */
  async #checkSpace(): Promise<number> {
    const { base, vmPath } = this.#options
    const { changedBytes, sentBytes } = base.manifest
    const ratio = changedBytes === 0 ? 1 : Math.min(1, Math.max(1 / RATIO_MAX, sentBytes / changedBytes))
    const wantedBytes = Math.floor((this.#totalBytes * ratio) / 2)
    const freeBytes = await this.#pool.run('freeBytes', {})
    if (freeBytes === 0 || freeBytes >= wantedBytes) return freeBytes
    throw new NotPublishedError(
      `the share is too full: ${String(this.#totalBytes)} bytes were changed, and ${String(freeBytes)} are free at ${vmPath}`,
      { hint: 'make space there (isrfs prune removes old generations)' }
    )
  }

  /** Invariant 2. */
  #succession(): Promise<Succession> {
    return findSuccession(this.#pool, this.#options)
  }

  /** Per file: block -> its new place, or undefined where it is zero now. Blocks equal to their base are left out. */
  async #upload(files: readonly Inode[]): Promise<Map<number, Map<number, BlockPlace | undefined>>> {
    const changes = new Map<number, Map<number, BlockPlace | undefined>>(files.map((inode) => [inode.id, new Map()]))
    this.#report('upload')
    this.#takeUploaded(files, changes)
    const firstBlocks = this.#totalBytes > BLOCKS_TO_STAGGER * BLOCK_BYTES ? FIRST_UNIT_BLOCKS : UNIT_BLOCKS_MAX
    await eachInFlight(units(files, firstBlocks), (unit) => this.#uploadUnit(unit, changes))
    return changes
  }

  /** What an upload before the suspend has made durable is looked at again with the rest (checkSent). */
  #takeUploaded(files: readonly Inode[], changes: ReadonlyMap<number, Map<number, BlockPlace | undefined>>): void {
    for (const inode of files) {
      if (inode.uploaded.size === 0) continue
      for (const dirty of dirtyBlocks(inode)) {
        if (!isSentAlready(dirty)) continue
        const place = dirty.uploaded?.place
        changes.get(inode.id)?.set(dirty.block, place)
        if (place !== undefined) this.#sentPlaces.push(place)
        this.#changedBytes += BLOCK_BYTES
      }
    }
  }

  async #uploadUnit(
    unit: readonly DirtyBlock[],
    changes: Map<number, Map<number, BlockPlace | undefined>>
  ): Promise<void> {
    const blocks = await Promise.all(unit.map((block) => sourceOf(block, this.#layers)))
    const compression = this.#compression?.compression
    const answer = await this.#pool.run('encode', { blocks, ...(compression === undefined ? {} : { compression }) })
    this.#compression?.note(answer.times)
    const placed: BlockPlace[] = []
    for (const [index, dirty] of unit.entries()) {
      const result = answer.results[index]
      if (result === undefined) throw new Error('a commit worker returned fewer blocks than it was given')
      const file = changes.get(dirty.inode.id)
      switch (result.state) {
        case 'same':
          break
        case 'zero':
          file?.set(dirty.block, undefined)
          this.#changedBytes += BLOCK_BYTES
          break
        case 'placed':
          file?.set(dirty.block, result.place)
          placed.push(result.place)
          this.#changedBytes += BLOCK_BYTES
          break
      }
    }
    if (placed.length > 0) this.#record(placed)
    this.#sentPlaces.push(...placed)
    this.#sentBytes += answer.sentBytes
    this.#doneBytes += unit.length * BLOCK_BYTES
    this.#report('upload')
  }

  /** Only saves the next try from sending these again: a full disk is no reason to give this one up. */
  #record(placed: readonly BlockPlace[]): void {
    try {
      this.#options.session.uploads.add(placed)
    } catch (error) {
      if (errnoOf(error) === 'ENOSPC') this.#options.cache?.evict(SPACE_TO_COMMIT_BYTES)
    }
  }

  async #rewrite(inode: Inode, blocks: ReadonlyMap<number, BlockPlace | undefined>): Promise<FileMap> {
    const old: FileMap = { map: inode.base?.map ?? null, dataBlocks: inode.base?.dataBlocks ?? 0 }
    return rewriteMap(old, { blocks, firstDroppedBlock: firstDroppedBlock(inode) }, this.#maps, async (objects) => {
      const written = await this.#pool.run('objects', { objects })
      this.#sentBytes += written.sentBytes
      this.#sentObjects.push(...written.places)
      for (const [index, { digest }] of written.places.entries()) {
        const bytes = objects[index]
        if (bytes !== undefined) void this.#options.cache?.keepMap(digest, bytes)
      }
      this.#report('maps')
      return written.places
    })
  }

  #manifest(head: GenerationReference, entries: Manifest['entries']): Manifest {
    const { session, base, client } = this.#options
    return {
      format: MANIFEST_FORMAT,
      version: manifestVersion(entries),
      vm: base.manifest.vm,
      generation: toGeneration(head.number + 1),
      parent: { generation: head.number, digest: head.digest },
      session: session.identity.sessionId,
      created: new Date().toISOString(),
      client: { id: client.id, host: client.host },
      changedBytes: this.#changedBytes,
      sentBytes: this.#sentBytes,
      nextInode: session.namespace.nextInode,
      entries
    }
  }

  /**
   * The next resume on this client finds its own blocks here instead of fetching them. A failure only costs that
   * fetch: the generation is published already.
   */
  async #keepInCache(
    files: readonly Inode[],
    changes: ReadonlyMap<number, ReadonlyMap<number, BlockPlace | undefined>>
  ): Promise<void> {
    const { cache } = this.#options
    if (cache === undefined) return
    try {
      await eachInFlight(units(files), (unit) => this.#keepUnit(unit, changes, cache))
    } catch {
      // the share has them
    }
  }

  async #keepUnit(
    unit: readonly DirtyBlock[],
    changes: ReadonlyMap<number, ReadonlyMap<number, BlockPlace | undefined>>,
    cache: Cache
  ): Promise<void> {
    const kept: {
      readonly at: readonly [InodeId, number, number]
      readonly digest: Buffer
      readonly block: KeptBlock
    }[] = []
    for (const dirty of unit) {
      const place = changes.get(dirty.inode.id)?.get(dirty.block)
      if (place === undefined) continue
      const source = await sourceOf(dirty, this.#layers)
      if (!isLocal(dirty, source, cache)) continue
      const { region, blockInRegion } = regionOf(dirty.block)
      const at = [dirty.inode.id, region, blockInRegion] as const
      cache.forget(...at) // the version that the region has
      const landing = cache.beginLanding(...at)
      if (landing !== undefined) kept.push({ at, digest: place.digest, block: { source, landing } })
    }
    if (kept.length === 0) return
    let written: readonly (number | undefined)[] = []
    try {
      written = await this.#pool.run('keep', { blocks: kept.map(({ block }) => block) })
    } finally {
      for (const [index, { at, digest }] of kept.entries()) {
        const diskBytes = written[index]
        cache.endLanding(...at, diskBytes === undefined ? undefined : { digest, diskBytes, isClaim: true })
      }
    }
    this.#report('cache')
  }

  #report(phase: CommitProgress['phase']): void {
    this.#options.onProgress({
      phase,
      doneBytes: this.#doneBytes,
      totalBytes: this.#totalBytes,
      sentBytes: this.#sentBytes
    })
  }
}

/**
 * One unit after the other, as many at a time as there are threads for. Rejects with the first failure, when no unit runs any more: none
 * may use what is closed then.
 */
async function eachInFlight(
  all: Iterable<readonly DirtyBlock[]>,
  work: (unit: readonly DirtyBlock[]) => Promise<void>
): Promise<void> {
  const running = new Set<Promise<unknown>>()
  const failures: unknown[] = []
  for (const unit of all) {
    const done = work(unit)
      .catch((error: unknown) => failures.push(error))
      .finally(() => running.delete(done))
    running.add(done)
    if (running.size >= UNITS_IN_FLIGHT) await Promise.race(running)
    if (failures.length > 0) break
  }
  await Promise.all(running)
  if (failures.length > 0) throw failures[0]
}

/** Whether the block's bytes can be put together without the share. */
function isLocal(dirty: DirtyBlock, source: BlockSource, cache: Cache): boolean {
  if (source.kind !== 'layers' || source.base === undefined) return true
  const needed = Math.min(Math.ceil(dirty.baseBytes / PAGE_BYTES), PAGES_PER_BLOCK)
  const covered = [...dirty.valid, ...dirty.punched].filter((page) => page < needed).length
  if (covered === needed) return true
  const { region, blockInRegion } = regionOf(dirty.block)
  return cache.claims(dirty.inode.id, region, blockInRegion, source.base.digest)
}

function* units(files: readonly Inode[], firstBlocks: number = UNIT_BLOCKS_MAX): Generator<DirtyBlock[]> {
  let unit: DirtyBlock[] = []
  let blocksMax = firstBlocks
  for (const inode of files) {
    for (const block of dirtyBlocks(inode)) {
      if (isSentAlready(block)) continue
      unit.push(block)
      if (unit.length === blocksMax) {
        yield unit
        unit = []
        blocksMax = UNIT_BLOCKS_MAX
      }
    }
  }
  if (unit.length > 0) yield unit
}
