/**
 * The bytes of a VM's files: read, write, truncate over session, cache and fetch.
 *
 * Invariants:
 * 1. State changes in single synchronous steps. After every `await` the state is looked at anew, since a truncate,
 *    another write or an eviction may have come between.
 * 2. A read is short only at the end of the file, and never returns a byte that was not verified in this mount.
 * 3. A write of whole pages never waits for the share. A write into part of an absent page waits for one fetch.
 * 4. A write that was accepted by the kernel is held while the disk is full, never refused (the kernel would drop
 *    its page and let the next fsync succeed). ENOSPC is given early, by requireSpace.
 * 5. When such a write fails after all (a broken disk), every later fsync of its file fails, also in later mounts.
 */
import path from 'node:path'
import { isDeepStrictEqual } from 'node:util'
import { countBits, getBit, setBit } from '../base/bits.js'
import { errnoOf, FailedError, messageOf, PosixError } from '../base/errors.js'
import { totalOf } from '../base/thread-counters.js'
import {
  BLOCK_BYTES,
  BLOCKS_PER_MAP_PAGE,
  BLOCKS_PER_REGION,
  type InodeId,
  PAGE_BYTES,
  PAGES_PER_REGION,
  REGION_BYTES,
  ROOT_INODE
} from '../base/units.js'
import { BaseMaps } from '../cache/base-maps.js'
import type { Cache } from '../cache/cache.js'
import { EarlyUpload } from '../commit/early-upload.js'
import { Trickle } from '../commit/trickle.js'
import { type BlockKeeper, type BlockRequest, Fetcher, isDamage, withRetries } from '../fetch/fetcher.js'
import type { Priority, SharePool, Waiting } from '../fetch/share-pool.js'
import type { BlockPlace } from '../format/place.js'
import type { Profile } from '../format/profile.js'
import type { Inode } from '../session/namespace-types.js'
import type { Session } from '../session/session.js'
import { type BlockCells, blockCells, type CellRange, changedBlocks } from './block-cells.js'
import { findDataOrHole } from './extents.js'
import { FetchAhead } from './fetch-ahead.js'
import {
  fillFromLayers,
  type HeldBlock,
  type HeldBlocks,
  type OnAheadRead,
  READ_SOURCES,
  type ReadSource
} from './layers.js'
import { Lookaside } from './lookaside.js'
import { mergeProfile } from './merge-profile.js'
import { fetchMetadata } from './metadata.js'
import type { FileImage, MayGiveUp } from './port.js'
import { Replay } from './replay.js'
import type { SharedRegions } from './shared-regions.js'
import { Space } from './space.js'
import { dataBytesOf, warm, type WarmProgress } from './warm.js'

const FALLOC_FL_KEEP_SIZE = 1
const FALLOC_FL_PUNCH_HOLE = 2
const FALLOC_FL_ZERO_RANGE = 16
const HELD_WRITE_RETRY_MS = 500
const GIVE_UP_CHECK_MS = 500
/** what status adds to a page that the kernel may need before it can change part of it */
const MAY_BE_FOR_WRITE = '; if that is for a write to part of a page, all writes and syncs of the file wait for it'
/** of a file that somebody looks at: 32 GiB of it */
const MAP_PAGES_LEARNT_MAX = 256

export interface ImagesOptions {
  readonly session: Session
  readonly cache: Cache
  readonly pool: SharePool
  /** where threads find what they may answer by themselves; undefined: there are none */
  readonly shared?: SharedRegions | undefined
  /** where changes may go before the suspend when they fill the client's disk; undefined: nowhere */
  readonly uploadTo?: string | undefined
  /** send changes that are quiet there while the guest runs, too */
  readonly trickle?: boolean
  /** kept free on the client's disk for writes that the kernel has already accepted */
  readonly headroomBytes?: number
  /** the kernel keeps writes in its cache: the program that wrote was told of success long ago */
  readonly writeback?: boolean
  /** how long a read that may give up waits for the share; undefined: as long as it takes */
  readonly shareTimeoutMs?: number | undefined
  /** a share that gives more is preferred to other caches of this client (image/lookaside.ts) */
  readonly slowBytesPerSecond?: number
  /** whether the share has not answered lately */
  readonly isShareSilent?: () => boolean
  readonly onDamage: (message: string) => void
  readonly onWarning: (message: string) => void
}

export class Images implements FileImage {
  readonly maps: BaseMaps
  readonly ahead: FetchAhead
  readonly lookaside: Lookaside
  readonly counters = { readBytes: 0, writtenBytes: 0, damagedBlocks: 0, heldWrites: 0, failedWrites: 0 }
  readonly #session: Session
  readonly #cache: Cache
  readonly #pool: SharePool
  readonly #fetcher: Fetcher
  readonly #options: ImagesOptions
  /** pending while writes are held for a checkpoint */
  #gate: Promise<void> | undefined
  /** a checkpoint sends what the trickle would */
  trickleIsPaused: () => boolean = () => false
  /** whether a checkpoint has sent the block as it is now */
  isInCheckpoint: (inode: Inode, block: number) => boolean = () => false
  readonly #held = new Map<symbol, { what: string; startedMs: number }>()
  readonly #space: Space
  readonly #upload: EarlyUpload | undefined
  readonly #trickle: Trickle | undefined
  readonly #replay: Replay
  #profile: Profile | undefined
  #stopped = false
  /** #losses() when the last `warm` began that has brought everything */
  #warmSince: number | undefined
  /** files whose map was looked at for a picture */
  readonly #learning = new Set<InodeId>()
  readonly #served = new Float64Array(READ_SOURCES.length)
  readonly #onAheadRead: OnAheadRead = (...read) => this.ahead.noteRead(...read)

  constructor(options: ImagesOptions) {
    this.#options = options
    this.#session = options.session
    this.#cache = options.cache
    this.#pool = options.pool
    this.#fetcher = new Fetcher(options.pool, this.#keeper())
    this.ahead = new FetchAhead({
      cache: options.cache,
      fetcher: this.#fetcher,
      requests: (inode, blocks, priority) => this.#requests(inode, blocks, priority),
      onMarked: (inode, block) => options.shared?.review(inode, block)
    })
    this.lookaside = new Lookaside({
      pool: options.pool,
      slot: options.cache.directory,
      isStopped: () => this.#stopped,
      slowBytesPerSecond: options.slowBytesPerSecond
    })
    this.#replay = new Replay(options.session, this.ahead)
    const sessionDirectory = path.dirname(options.session.regionPath(ROOT_INODE, 0))
    this.#space = new Space(sessionDirectory, options.cache, options.headroomBytes)
    this.maps = new BaseMaps(async (place, turn) => {
      const candidate = this.#cache.mapPath(place.digest)
      const { bytes, encodedBytes } = await withRetries(this.#pool, 'a block map', () =>
        this.#pool.run('object', { place, candidate }, { turn, what: 'a block map' })
      )
      this.#pool.counters.fetchedBytes += encodedBytes
      if (encodedBytes > 0) void this.#cache.keepMap(place.digest, bytes)
      return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)
    })
    this.#upload = options.uploadTo === undefined ? undefined : this.#createUpload(options.uploadTo)
    if (this.#upload !== undefined) this.#space.useUpload(this.#upload)
    this.#trickle =
      options.uploadTo === undefined || options.trickle !== true ? undefined : this.#createTrickle(options.uploadTo)
  }

  /** Bytes that were read through the mount, request threads included (about). */
  get readBytes(): number {
    const { shared } = this.#options
    return this.counters.readBytes + (shared === undefined ? 0 : totalOf(shared.counters, 'readBytes'))
  }

  /** Bytes that were written through the mount, request threads included (about). */
  get writtenBytes(): number {
    const { shared } = this.#options
    return this.counters.writtenBytes + (shared === undefined ? 0 : totalOf(shared.counters, 'writtenBytes'))
  }

  /** Changed blocks that a suspend looks at, and of these those that it has to send; deleted files have none. */
  changedBlocks(): { changed: number; unsent: number } {
    const total = { changed: 0, unsent: 0 }
    for (const inode of this.#session.namespace.inodes()) {
      if (inode.parent === 0) continue
      const { changed, unsent } = changedBlocks(inode, (block) => this.#isSent(inode, block))
      total.changed += changed
      total.unsent += unsent
    }
    return total
  }

  /** Bytes that were sent to the share before the suspend. */
  get uploadedBytes(): number {
    return (this.#upload?.sentBytes ?? 0) + this.trickledBytes
  }

  /** Of these, those of changes that were quiet for a while. */
  get trickledBytes(): number {
    return this.#trickle?.sentBytes ?? 0
  }

  /** How long the trickle has sent. */
  get trickledSeconds(): number {
    return this.#trickle?.sendingSeconds ?? 0
  }

  /** Bytes that were read, by where they were when they were asked for. */
  servedBytes(source: ReadSource): number {
    return this.#served[READ_SOURCES.indexOf(source)] ?? 0
  }

  /** From now on the session is changed by requests only. */
  stop(): void {
    this.#stopped = true
    this.#upload?.stop()
    this.#trickle?.stop()
    this.#replay.stop()
    this.#options.shared?.stop()
  }

  read(
    inode: Inode,
    into: Buffer,
    offset: number,
    mayGiveUp?: MayGiveUp,
    mayBeForWrite = false
  ): number | Promise<number> {
    const length = Math.min(into.length, inode.sizeBytes - offset)
    if (length <= 0) return 0
    this.counters.readBytes += length
    const missing = this.#fill(inode, into.subarray(0, length), offset, undefined, this.#served)
    if (missing.length > 0) return this.#readAbsent(inode, into, offset, { mayGiveUp, mayBeForWrite })
    this.#options.shared?.offer(inode, offset, length)
    return length
  }

  write(inode: Inode, bytes: Buffer, offset: number, isGivenUp?: () => boolean): number | Promise<number> {
    if (bytes.length === 0) return 0
    this.counters.writtenBytes += bytes.length
    if (this.#gate !== undefined) return this.#writeLater(inode, bytes, offset, isGivenUp)
    try {
      const missing = this.#tryWriteOrHold(inode, bytes, offset)
      if (missing === undefined) return bytes.length
    } catch (error) {
      throw this.#failedWrite(inode, error)
    }
    return this.#writeLater(inode, bytes, offset, isGivenUp)
  }

  /**
   * From now on writes wait (and never fail for it), until the returned function is called. This only keeps the guest
   * from changing more: state at one instant is whatever one synchronous step sees.
   */
  holdWrites(): () => void {
    let letGo: () => void = () => undefined
    const gate = new Promise<void>((resolve) => (letGo = resolve))
    this.#gate = gate
    return () => {
      if (this.#gate === gate) this.#gate = undefined
      letGo()
    }
  }

  truncate(inode: Inode, sizeBytes: number): void {
    if (sizeBytes === inode.sizeBytes) return
    if (sizeBytes > inode.sizeBytes) this.requireSpace(0)
    this.#session.record({
      kind: 'size',
      inode: inode.id,
      sizeBytes,
      baseLimitBytes: Math.min(inode.baseLimitBytes, sizeBytes)
    })
  }

  fallocate(inode: Inode, mode: number, offset: number, lengthBytes: number): void | Promise<void> {
    const end = offset + lengthBytes
    const keepSize = (mode & FALLOC_FL_KEEP_SIZE) !== 0
    switch (mode & ~FALLOC_FL_KEEP_SIZE) {
      case 0:
        this.requireSpace(Math.max(0, end - Math.max(offset, inode.sizeBytes)))
        if (!keepSize && end > inode.sizeBytes) this.truncate(inode, end)
        return
      case FALLOC_FL_PUNCH_HOLE:
        if (!keepSize) throw new PosixError('EOPNOTSUPP')
        return this.#zeroRange(inode, offset, Math.min(end, inode.sizeBytes))
      case FALLOC_FL_ZERO_RANGE:
        if (!keepSize && end > inode.sizeBytes) this.truncate(inode, end)
        return this.#zeroRange(inode, offset, Math.min(end, inode.sizeBytes))
      default:
        throw new PosixError('EOPNOTSUPP')
    }
  }

  seek(
    inode: Inode,
    offset: number,
    whence: 'data' | 'hole',
    mayHaveUnflushedPages: boolean
  ): number | Promise<number> {
    if (offset < 0 || offset >= inode.sizeBytes) throw new PosixError('ENXIO')
    // SEEK_DATA and SEEK_HOLE do not flush: bytes that only the kernel has must not look like a hole
    if (mayHaveUnflushedPages) return whence === 'data' ? offset : inode.sizeBytes
    const found = findDataOrHole(inode, offset, whence, this.maps)
    return this.#asWaiting(`${nameOf(inode)}, looking for ${whence}`, found).catch((error: unknown) => {
      throw this.#asAnswer(error, inode)
    })
  }

  allocatedBytes(inode: Inode): number {
    const baseBytes = Math.min((inode.base?.dataBlocks ?? 0) * BLOCK_BYTES, roundUp(inode.baseLimitBytes, BLOCK_BYTES))
    const uploadedBytes = inode.uploaded.size * BLOCK_BYTES
    let validPages = 0
    for (const pages of inode.regions.values()) validPages += countBits(pages.valid)
    return Math.min(roundUp(inode.sizeBytes, PAGE_BYTES), baseBytes + uploadedBytes + validPages * PAGE_BYTES)
  }

  /** A journal that has no room for the barrier gets it from the cache. */
  async sync(inode: Inode): Promise<void> {
    try {
      await this.#session.sync(inode)
    } catch (error) {
      if (errnoOf(error) !== 'ENOSPC') throw error
      this.#space.makeRoom(REGION_BYTES)
      await this.#session.sync(inode)
    }
    const { lost: losses } = this.#session
    const lost = losses.get(inode.id) ?? losses.get(ROOT_INODE) // the journal, or names: it may concern any file
    if (lost !== undefined) throw new PosixError('EIO', lost)
  }

  requireSpace(bytes: number): void {
    this.#space.require(bytes)
  }

  space(): { totalBytes: number; freeBytes: number } {
    return this.#space.statistics()
  }

  /** What waits now: for the share, or (writes) for space on the client's disk. */
  waiting(): Waiting[] {
    const now = Date.now()
    const held = [...this.#held.values()].map(({ what, startedMs }) => ({ what, sinceMs: now - startedMs }))
    const uploadSinceMs = this.#upload?.runningSinceMs
    const upload =
      uploadSinceMs === undefined
        ? []
        : [{ what: "sending changes to the share (the client's disk is full)", sinceMs: now - uploadSinceMs }]
    return [...this.#pool.waiting(), ...held, ...upload]
  }

  /** Sum of the sizes of all files. */
  totalBytes(): number {
    let total = 0
    for (const inode of this.#session.namespace.inodes()) total += inode.sizeBytes
    return total
  }

  /** Of blocks of the generation that have bytes: all that `warm` would bring. */
  dataBytes(): number {
    let total = 0
    for (const inode of this.#session.namespace.inodes()) if (inode.parent !== 0) total += dataBytesOf(inode)
    return total
  }

  /** Bytes that a reader gets without the share: cached blocks, and pages that the session has. */
  presentBytes(): number {
    return Math.min(this.totalBytes(), this.#cache.bytes + this.#session.namespace.dirtyPages * PAGE_BYTES)
  }

  /** Where the blocks of a file are now (image/block-cells.ts). */
  cells(inode: Inode, range: CellRange): BlockCells {
    this.#learnMap(inode)
    const inFlight = new Map<number, Uint32Array>()
    for (const { inode: id, block } of this.#fetcher.inFlight()) {
      if (id !== inode.id) continue
      const region = Math.floor(block / BLOCKS_PER_REGION)
      const bits = inFlight.get(region) ?? new Uint32Array(BLOCKS_PER_REGION / 32)
      setBit(bits, block % BLOCKS_PER_REGION)
      inFlight.set(region, bits)
    }
    const isSent = (block: number): boolean => this.#isSent(inode, block)
    return blockCells(inode, range, { cache: this.#cache, maps: this.maps, inFlight, isSent })
  }

  /** Looks at the map of a file that somebody looks at, so that the picture can tell holes; once, and only so much of it. */
  #learnMap(inode: Inode): void {
    const { base } = inode
    if (base?.map == null || this.#learning.has(inode.id) || this.#options.isShareSilent?.() === true) return
    this.#learning.add(inode.id)
    const { map } = base
    const pages = Math.min(MAP_PAGES_LEARNT_MAX, Math.ceil(base.sizeBytes / (BLOCKS_PER_MAP_PAGE * BLOCK_BYTES)))
    void (async () => {
      try {
        for (let page = 0; page < pages; page++) await this.maps.page(map, page, 'warm')
      } catch {
        // the picture shows less; whoever reads the file hears why
      }
    })()
  }

  /** Fetches everything that this mount may need from the share. Rejects when the cache cannot hold it (image/warm.ts). */
  async warm(onProgress: (progress: WarmProgress) => void, isStopped: () => boolean): Promise<WarmProgress> {
    const before = this.#losses()
    const warmed = await warm(
      { session: this.#session, cache: this.#cache, maps: this.maps, ahead: this.ahead },
      onProgress,
      isStopped
    )
    this.#warmSince = before
    return warmed
  }

  /** Whether no reader needs the share: everything was brought by `warm`, and nothing has gone since it began. */
  get isWarm(): boolean {
    return this.#warmSince === this.#losses()
  }

  /** Grows when bytes that were here are on the share only. */
  #losses(): number {
    return this.#cache.losses + (this.#upload?.sentBytes ?? 0)
  }

  /** Fetches the tables of sparse disks, before part of one is to be written. Never rejects. */
  fetchMetadata(): Promise<void> {
    return fetchMetadata(this.#session.namespace.inodes(), {
      bring: (inode, blocks) => this.ahead.bring(inode, blocks, 'tables'),
      read: (inode, start, length) => this.#readPresent(inode, start, length),
      isStopped: () => this.#stopped
    })
  }

  /** Bytes of the file for ourselves, when all of them are here: nobody's first read. */
  #readPresent(inode: Inode, start: number, length: number): Buffer | undefined {
    if (start + length > inode.sizeBytes) return undefined
    const into = Buffer.alloc(length)
    const layers = { session: this.#session, cache: this.#cache, held: undefined, served: undefined }
    const missing = fillFromLayers(inode, into, start, { ...layers, onAheadRead: () => undefined })
    return missing.length === 0 ? into : undefined
  }

  /** Fetches what an earlier resume has read, ahead of this one. Never rejects. */
  async replay(profile: Profile): Promise<void> {
    this.#profile = profile
    await this.#replay.run(profile)
  }

  /** The order of first reads for the next mount; undefined when nothing of it is new. */
  nextProfile(): Profile | undefined {
    if (this.ahead.touches.count === 0) return undefined
    const next = mergeProfile(this.#profile, this.ahead.touches)
    return isDeepStrictEqual(next.runs, this.#profile?.runs) ? undefined : next
  }

  #createUpload(vmPath: string): EarlyUpload {
    return new EarlyUpload({
      vmPath,
      session: this.#session,
      cache: this.#cache,
      maps: this.maps,
      isEnough: () => this.#space.isEnough(),
      onWarning: (message) => this.#options.onWarning(message),
      onUploaded: (inode, blocks) => {
        for (const block of blocks)
          this.#cache.forget(inode.id, Math.floor(block / BLOCKS_PER_REGION), block % BLOCKS_PER_REGION)
      }
    })
  }

  #isSent(inode: Inode, block: number): boolean {
    return this.#trickle?.isSent(inode, block) === true || this.isInCheckpoint(inode, block)
  }

  #createTrickle(vmPath: string): Trickle {
    return new Trickle({
      vmPath,
      session: this.#session,
      cache: this.#cache,
      maps: this.maps,
      isBusy: () =>
        this.#pool.waiting().length > 0 || this.#options.isShareSilent?.() === true || this.trickleIsPaused(),
      bring: (inode, blocks) => this.ahead.bring(inode, blocks, 'warm'),
      onWarning: (message) => this.#options.onWarning(message)
    })
  }

  /** The cache, for the version of a block that counts: while one was fetched, the session may have uploaded another, and the first is not kept. */
  #keeper(): BlockKeeper {
    const isCurrent = (id: InodeId, region: number, blockInRegion: number, digest: Buffer): boolean => {
      const uploaded = this.#session.namespace.get(id)?.uploaded.get(region * BLOCKS_PER_REGION + blockInRegion)
      return uploaded === undefined || uploaded.place?.digest.equals(digest) === true
    }
    return {
      beginLanding: (id, region, blockInRegion) => this.#cache.beginLanding(id, region, blockInRegion),
      endLanding: (id, region, blockInRegion, landed) => {
        const counts = landed !== undefined && isCurrent(id, region, blockInRegion, landed.digest)
        this.#cache.endLanding(id, region, blockInRegion, counts ? landed : undefined)
      },
      confirm: (id, region, blockInRegion, plain, digest) => {
        if (isCurrent(id, region, blockInRegion, digest)) this.#cache.confirm(id, region, blockInRegion, plain, digest)
      },
      place: (id, region, blockInRegion, plain, digest) => {
        if (isCurrent(id, region, blockInRegion, digest)) this.#cache.place(id, region, blockInRegion, plain, digest)
      }
    }
  }

  #fill(inode: Inode, into: Buffer, offset: number, held: HeldBlocks | undefined, served?: Float64Array): number[] {
    return fillFromLayers(inode, into, offset, {
      session: this.#session,
      cache: this.#cache,
      held,
      onAheadRead: this.#onAheadRead,
      served
    })
  }

  async #readAbsent(
    inode: Inode,
    into: Buffer,
    offset: number,
    { mayGiveUp, mayBeForWrite }: { readonly mayGiveUp: MayGiveUp | undefined; readonly mayBeForWrite: boolean }
  ): Promise<number> {
    const held = new Map<number, HeldBlock>()
    const startedMs = Date.now()
    let isMixed: boolean | undefined
    for (let attempt = 0; ; attempt++) {
      const length = Math.min(into.length, inode.sizeBytes - offset)
      if (length <= 0) return 0
      const filled = new Float64Array(READ_SOURCES.length)
      const missing = this.#fill(inode, into.subarray(0, length), offset, held, filled)
      if (missing.length === 0) {
        this.#options.shared?.offer(inode, offset, length)
        return length
      }
      const [session = 0, zero = 0, cache = 0] = filled // what a page of its own would get at once
      isMixed ??= length > PAGE_BYTES && session + zero + cache > 0
      const forWhat = mayBeForWrite ? MAY_BE_FOR_WRITE : ''
      const obtained = this.#obtain(inode, missing, { held, handOver: attempt > 0, forWhat })
      await this.#patiently(inode, obtained, { isMixed, startedMs, mayGiveUp })
    }
  }

  /**
   * Waits for the share as long as it takes, except for readers that may be told of an error: after the share timeout,
   * and, while the share is silent, when only part of the wanted bytes is absent. The kernel then asks again page by page
   * and gets what is present (native-notes/kernel.md).
   */
  async #patiently(
    inode: Inode,
    obtained: Promise<void>,
    {
      isMixed,
      startedMs,
      mayGiveUp
    }: { readonly isMixed: boolean; readonly startedMs: number; readonly mayGiveUp: MayGiveUp | undefined }
  ): Promise<void> {
    if (mayGiveUp === undefined) return obtained
    obtained.catch(() => undefined) // it may fail after it was given up
    const { shareTimeoutMs = Infinity, isShareSilent } = this.#options
    for (;;) {
      let timer: NodeJS.Timeout | undefined
      const late = new Promise<'late'>((resolve) => (timer = setTimeout(() => resolve('late'), GIVE_UP_CHECK_MS)))
      const first = await Promise.race([obtained, late]).finally(() => clearTimeout(timer))
      if (first !== 'late') return
      const isDue = Date.now() - startedMs >= shareTimeoutMs || (isMixed && isShareSilent?.() === true)
      if (!isDue || !(await mayGiveUp())) continue
      throw this.#asAnswer(new FailedError('the share does not answer'), inode)
    }
  }

  /**
   * Fetches blocks of the base into the cache. What it cannot keep goes into `held`; with `handOver` everything does. Rejects with
   * PosixError EIO.
   */
  async #obtain(
    inode: Inode,
    blocks: readonly number[],
    {
      held,
      handOver,
      forWhat
    }: { readonly held: Map<number, HeldBlock>; readonly handOver: boolean; readonly forWhat: string }
  ): Promise<void> {
    try {
      const what = `${nameOf(inode)}, block ${String(blocks[0])}${forWhat}`
      const requests = await this.#asWaiting(what, this.#requests(inode, blocks, 'demand'))
      const fetched = this.#fetcher.fetch(requests, 'demand', what, { handOver })
      if (!handOver) {
        this.ahead.noteMiss(inode, blocks)
        this.#replay.noteMiss(inode)
      }
      for (const [index, request] of requests.entries()) {
        const plain = await fetched[index]
        const isUploaded = inode.uploaded.get(request.block)?.place === request.place
        if (plain !== undefined) held.set(request.block, { plain, place: isUploaded ? request.place : undefined })
      }
    } catch (error) {
      throw this.#asAnswer(error, inode)
    }
  }

  /** A map that is waited for does not say who needs it. */
  async #asWaiting<Result>(what: string, result: Promise<Result>): Promise<Result> {
    const noted = this.#pool.noteWaiting(what)
    return result.finally(noted)
  }

  /** Looks the blocks up in the base's map. Notes which blocks of their regions are zero; those need no request. */
  async #requests(inode: Inode, blocks: readonly number[], priority: Priority): Promise<BlockRequest[]> {
    const map = inode.base?.map ?? null
    const requests: BlockRequest[] = []
    for (const block of blocks) {
      const uploaded = inode.uploaded.get(block)
      if (uploaded !== undefined) {
        if (uploaded.place !== undefined) requests.push(this.#request(inode, block, uploaded.place))
        continue
      }
      const page = await this.maps.page(map, Math.floor(block / BLOCKS_PER_MAP_PAGE), priority)
      const regionIndex = Math.floor(block / BLOCKS_PER_REGION)
      const region = this.#cache.region(inode.id, regionIndex)
      if (region.zero === undefined) {
        region.zero = new Uint32Array(BLOCKS_PER_REGION / 32)
        const firstInPage = (regionIndex * BLOCKS_PER_REGION) % BLOCKS_PER_MAP_PAGE
        for (let index = 0; index < BLOCKS_PER_REGION; index++) {
          if (page === null || page.digest(firstInPage + index) === undefined) setBit(region.zero, index)
        }
      }
      const place = page?.place(block % BLOCKS_PER_MAP_PAGE)
      if (place !== undefined) requests.push(this.#request(inode, block, place))
    }
    return requests
  }

  #request(inode: Inode, block: number, place: BlockPlace): BlockRequest {
    const region = Math.floor(block / BLOCKS_PER_REGION)
    const blockInRegion = block % BLOCKS_PER_REGION
    const claimed = this.#cache.claims(inode.id, region, blockInRegion, place.digest)
    const candidate = claimed
      ? { path: this.#cache.pathOf(inode.id, region), offset: blockInRegion * BLOCK_BYTES }
      : this.lookaside.candidate(place.digest)
    return { inode: inode.id, block, place, candidate }
  }

  /** Writes in one step, or returns the blocks that a partly covered page needs first. */
  #tryWrite(inode: Inode, bytes: Buffer, offset: number, held?: HeldBlocks): number[] | undefined {
    const end = offset + bytes.length
    const newSize = Math.max(inode.sizeBytes, end)
    const from = this.#isValidPage(inode, offset) ? offset : offset - (offset % PAGE_BYTES)
    const pageEnd = Math.min(roundUp(end, PAGE_BYTES), newSize)
    const to = end % PAGE_BYTES === 0 || this.#isValidPage(inode, end) ? end : pageEnd
    if (from === offset && to === end) {
      this.#session.write(inode, bytes, offset)
      return undefined
    }
    const whole = Buffer.alloc(to - from)
    const missing = [
      ...this.#fillExisting(inode, whole.subarray(0, offset - from), from, held),
      ...this.#fillExisting(inode, whole.subarray(end - from), end, held)
    ]
    if (missing.length > 0) return [...new Set(missing)] // head and tail may lie in one block
    bytes.copy(whole, offset - from)
    this.#session.write(inode, whole, from)
    return undefined
  }

  /** Like #fill, with zeros past the end of the file. */
  #fillExisting(inode: Inode, into: Buffer, offset: number, held: HeldBlocks | undefined): number[] {
    const length = Math.min(into.length, inode.sizeBytes - offset)
    return length <= 0 ? [] : this.#fill(inode, into.subarray(0, length), offset, held)
  }

  #isValidPage(inode: Inode, position: number): boolean {
    const pages = inode.regions.get(Math.floor(position / REGION_BYTES))
    return pages !== undefined && getBit(pages.valid, Math.floor(position / PAGE_BYTES) % PAGES_PER_REGION)
  }

  /** Held while blocks are fetched or while the disk is full (invariant 4). */
  async #writeLater(inode: Inode, bytes: Buffer, offset: number, isGivenUp = (): boolean => false): Promise<number> {
    const id = Symbol('write')
    const held = new Map<number, HeldBlock>()
    const what = `write to ${nameOf(inode)} at byte ${String(offset)}`
    let handOver = false
    try {
      for (;;) {
        if (isGivenUp()) throw new PosixError('EINTR')
        if (this.#gate !== undefined) {
          this.#held.set(id, { what, startedMs: Date.now() })
          await this.#gate
          continue
        }
        const missing = this.#tryWriteOrHold(inode, bytes, offset, held)
        if (missing === undefined) return bytes.length
        if (!this.#held.has(id)) this.#held.set(id, { what, startedMs: Date.now() })
        if (missing.length > 0) {
          await this.#obtain(inode, missing, { held, handOver, forWhat: `, for a ${what}` })
          handOver = true
        } else await new Promise((resolve) => setTimeout(resolve, HELD_WRITE_RETRY_MS))
      }
    } catch (error) {
      throw isGivenUp() ? error : this.#failedWrite(inode, error)
    } finally {
      this.#held.delete(id)
    }
  }

  /** Invariant 5: with the writeback cache the kernel tells one fsync of it, and the next one would succeed. */
  #failedWrite(inode: Inode, error: unknown): unknown {
    this.counters.failedWrites++
    if (this.#options.writeback === true) {
      const why = `a write to ${inode.name} was lost: ${messageOf(error)}`
      this.#session.lost.add(inode.id, why)
      this.#options.onWarning(why)
    }
    return error
  }

  #tryWriteOrHold(inode: Inode, bytes: Buffer, offset: number, held?: HeldBlocks): number[] | undefined {
    try {
      if (this.#space.mayWrite(bytes.length)) return this.#tryWrite(inode, bytes, offset, held)
    } catch (error) {
      if (errnoOf(error) !== 'ENOSPC' && errnoOf(error) !== 'EDQUOT') throw error
    }
    this.#space.makeRoom(Math.max(bytes.length * 2, REGION_BYTES))
    this.counters.heldWrites++
    this.#options.onWarning(`the client's disk is full: a write to ${inode.name} waits for space`)
    return []
  }

  #zeroRange(inode: Inode, offset: number, end: number): void | Promise<void> {
    if (offset >= end) return
    const firstPage = Math.ceil(offset / PAGE_BYTES)
    // the page that holds the end of the file is whole when the range reaches the end
    const endPage = end === inode.sizeBytes ? Math.ceil(end / PAGE_BYTES) : Math.floor(end / PAGE_BYTES)
    if (endPage <= firstPage) return ignoreCount(this.write(inode, Buffer.alloc(end - offset), offset))
    const head = firstPage * PAGE_BYTES - offset
    const tailStart = Math.min(endPage * PAGE_BYTES, end)
    this.#session.record({ kind: 'punch', inode: inode.id, firstPage, pageCount: endPage - firstPage })
    const edges: Promise<number>[] = []
    for (const [at, length] of [
      [offset, head],
      [tailStart, end - tailStart]
    ] as const) {
      const done = length > 0 ? this.write(inode, Buffer.alloc(length), at) : 0
      if (typeof done !== 'number') edges.push(done)
    }
    if (edges.length > 0) return Promise.all(edges).then(() => undefined)
  }

  #asAnswer(error: unknown, inode: Inode): PosixError {
    if (error instanceof PosixError) return error
    if (isDamage(error)) {
      this.counters.damagedBlocks++
      this.#options.onDamage(`${inode.name}: ${messageOf(error)}`)
    } else {
      this.#options.onWarning(`${inode.name}: ${messageOf(error)}`)
    }
    return new PosixError('EIO', messageOf(error), { cause: error })
  }
}

function nameOf({ name }: Inode): string {
  return name === '' ? 'a deleted file' : name
}

function roundUp(value: number, step: number): number {
  return Math.ceil(value / step) * step
}

function ignoreCount(count: number | Promise<number>): void | Promise<void> {
  if (typeof count !== 'number') return count.then(() => undefined)
}
