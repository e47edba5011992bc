/**
 * One life of a mount, as its daemon lives it without the kernel: open, read, write, fsync, rename, unlink, evict, upload,
 * trickle, checkpoint, suspend; and what may be in it afterwards. On the direct transport a part of its reads and writes asks the
 * table of the request threads first, as they do.
 */
import fs from 'node:fs'
import path from 'node:path'
import pino from 'pino'
import { getBit } from '../../src/base/bits.js'
import { IsrfsError } from '../../src/base/errors.js'
import { highWord, lowWord, readShared, type Transfer, writeShared } from '../../src/base/region-table.js'
import {
  BLOCK_BYTES,
  BLOCKS_PER_MAP_PAGE,
  BLOCKS_PER_REGION,
  PAGE_BYTES,
  PAGES_PER_BLOCK,
  ROOT_INODE
} from '../../src/base/units.js'
import type { Checkpointer } from '../../src/commit/checkpointer.js'
import { EarlyUpload } from '../../src/commit/early-upload.js'
import { Trickle } from '../../src/commit/trickle.js'
import { createCheckpointer } from '../../src/daemon/checkpoint.js'
import type { Outcome } from '../../src/daemon/messages.js'
import { type OpenedVm, openVm } from '../../src/daemon/opened-vm.js'
import type { MountRequest } from '../../src/daemon/request.js'
import { settleMount } from '../../src/daemon/settle.js'
import { decodeBlock, decodeObject } from '../../src/format/block-codec.js'
import { decodeMapRoot, MapPage } from '../../src/format/block-map.js'
import { readStored } from '../../src/format/chunk.js'
import type { PublishedGeneration } from '../../src/format/generations.js'
import { Images } from '../../src/image/images.js'
import { SharedRegions } from '../../src/image/shared-regions.js'
import type { Inode } from '../../src/session/namespace-types.js'
import { Share } from '../../src/share/share.js'
import { Tree } from '../../src/tree/tree.js'
import type { Random } from '../support/random.js'
import { currentProcess, ProcessEnded } from './faulty-process.js'
import { HALF, type Model, pageOf, staleIn } from './model.js'

export const log = pino({ level: 'silent' })

export interface Bed {
  readonly share: string
  readonly client: string
}

export interface MountOptions {
  readonly writeback: boolean
  /** on the direct transport: request threads read and write beside the owner, at moments that these numbers decide */
  readonly threads?: Random | undefined
}

export function requestOf({ share, client }: Bed, { writeback, threads }: MountOptions): MountRequest {
  return {
    vmPath: share,
    mountpoint: '/nowhere',
    clientDirectory: client,
    cacheDirectory: path.join(client, 'cache'),
    logFile: path.join(client, 'log'),
    log: { bytesMax: 2 ** 20, filesMax: 2 },
    generation: null,
    branch: null,
    shareTimeoutMs: null,
    metricsPort: null,
    acceptRollback: false,
    transport: threads === undefined ? 'binding' : 'direct',
    readOnly: false,
    discard: false,
    allowOther: false,
    writeback,
    trickle: false,
    cacheBytesMax: 2 ** 30
  }
}

const THREAD_REGIONS_MAX = 4
/** what a thread is asked to read at once */
const READ_BYTES = 8 * PAGE_BYTES
const TRICKLE_PASSES = 4
const TRICKLE_PASS_MS = 60_000

export class Mounted {
  readonly vm: OpenedVm
  readonly images: Images
  readonly tree: Tree
  /** what request threads have answered */
  readonly byThreads = { reads: 0, writes: 0 }
  readonly #request: MountRequest
  readonly #checkpointer: Checkpointer | undefined
  readonly #threads: Random | undefined
  readonly #shared: SharedRegions | undefined
  readonly #trickle: Trickle
  /** the trickle's clock */
  #nowMs = 0

  static async open(bed: Bed, options: MountOptions): Promise<Mounted> {
    const request = requestOf(bed, options)
    const vm = await openVm({ request, log, notice: () => undefined, checkpoint: () => undefined })
    return new Mounted(vm, request, options.threads)
  }

  private constructor(vm: OpenedVm, request: MountRequest, threads: Random | undefined) {
    this.vm = vm
    this.#request = request
    this.#threads = threads
    const { session, cache } = vm
    this.#shared =
      threads === undefined
        ? undefined
        : new SharedRegions({ session, cache, mayWrite: request.writeback, regionsMax: THREAD_REGIONS_MAX })
    this.images = new Images({
      session,
      cache,
      pool: vm.pool,
      shared: this.#shared,
      writeback: request.writeback,
      onDamage: () => undefined,
      onWarning: () => undefined
    })
    this.#checkpointer = createCheckpointer(request, vm, this.images)
    this.#trickle = new Trickle({
      vmPath: request.vmPath,
      session,
      cache,
      maps: this.images.maps,
      isBusy: () => false,
      bring: (inode, blocks) => this.images.ahead.bring(inode, blocks, 'warm'),
      onWarning: () => undefined,
      nowMs: () => this.#nowMs
    })
    this.tree = new Tree(session, this.images, { readOnly: false, writeback: request.writeback })
  }

  get lost(): readonly string[] {
    return this.vm.session.lost.all()
  }

  /** Writes a whole page of `value`. */
  async write(model: Model, label: string, handle: number, page: number, value: number): Promise<void> {
    const file = model.files.get(label)
    file?.begin(page, value)
    try {
      if (!this.#writeByThread(model, label, pageOf(value), page))
        await this.tree.write(handle, pageOf(value), page * PAGE_BYTES)
      requireAlive()
      file?.answered(page)
    } catch (error) {
      mustBeAnswer(error)
    }
  }

  /** One request of many pages: the first value for the first page, and so on. */
  async writeMany(
    model: Model,
    label: string,
    handle: number,
    first: number,
    values: readonly number[]
  ): Promise<void> {
    const file = model.files.get(label)
    for (const [index, value] of values.entries()) file?.begin(first + index, value)
    try {
      await this.tree.write(handle, Buffer.concat(values.map(pageOf)), first * PAGE_BYTES)
      requireAlive()
      for (const index of values.keys()) file?.answered(first + index)
    } catch (error) {
      mustBeAnswer(error)
    }
  }

  /** Writes the two halves of a page as two requests: the first needs the block. */
  async writeHalves(model: Model, label: string, handle: number, page: number, value: number): Promise<void> {
    const file = model.files.get(label)
    const before = file?.pages[page]?.at(-1) ?? 0
    const bytes = pageOf(value)
    try {
      for (const half of [0, 1]) {
        if (half === 0) file?.begin(page, before + HALF + value)
        else file?.begin(page, value)
        const part = bytes.subarray((half * PAGE_BYTES) / 2, ((half + 1) * PAGE_BYTES) / 2)
        await this.tree.write(handle, part, page * PAGE_BYTES + (half * PAGE_BYTES) / 2)
        requireAlive()
        file?.answered(page)
      }
    } catch (error) {
      mustBeAnswer(error)
    }
  }

  /** `meanwhile` runs while the sync is under way: what it writes need not be part of it. */
  async fsync(model: Model, label: string, handle: number, meanwhile?: () => Promise<void>): Promise<void> {
    const accept = model.files.get(label)?.syncing()
    const syncing = this.tree.fsync(handle, false)
    syncing.catch(() => undefined)
    await meanwhile?.()
    try {
      await syncing
      requireAlive()
      accept?.()
      model.acceptNames()
    } catch (error) {
      mustBeAnswer(error)
    }
  }

  /** False: the owner has to do all of it, even though some bytes may be written. */
  #writeByThread(model: Model, label: string, bytes: Buffer, page: number): boolean {
    const inode = this.#inodeOf(model, label)
    if (this.#shared === undefined || inode === undefined || this.#threads?.below(4) === 0) return false
    const { table } = this.#shared
    const { id } = inode
    const offset = page * PAGE_BYTES
    const isDone = writeShared(table, lowWord(id), highWord(id), bytes, 0, offset, bytes.length, writeFully)
    if (isDone) this.byThreads.writes++
    return isDone
  }

  /** By the name that it was given last. */
  #inodeOf(model: Model, label: string): Inode | undefined {
    const { namespace } = this.vm.session
    const children = namespace.get(ROOT_INODE)?.children
    for (const [name, labels] of model.names) {
      const id = labels.at(-1) === label ? children?.get(name) : undefined
      if (id !== undefined) return namespace.get(id)
    }
    return undefined
  }

  /** An operation on names: all of it or nothing. */
  change(model: Model, changes: Readonly<Record<string, string | undefined>>, action: () => void): boolean {
    model.begin(changes)
    try {
      action()
      requireAlive()
      model.answered(changes)
      return true
    } catch (error) {
      mustBeAnswer(error)
      model.failed(changes)
      return false
    }
  }

  async upload(): Promise<void> {
    let units = 1
    const upload = new EarlyUpload({
      vmPath: this.#request.vmPath,
      session: this.vm.session,
      cache: this.vm.cache,
      maps: this.images.maps,
      isEnough: () => units-- <= 0,
      onWarning: () => undefined,
      onUploaded: (inode, blocks) => {
        for (const block of blocks)
          this.vm.cache.forget(inode.id, Math.floor(block / BLOCKS_PER_REGION), block % BLOCKS_PER_REGION)
      }
    })
    await upload.makeSpace()
    upload.stop()
  }

  /** Sends what has been quiet, so often that it does not wait for company any more. */
  async trickle(): Promise<void> {
    for (let pass = 0; pass < TRICKLE_PASSES; pass++) {
      this.#nowMs += TRICKLE_PASS_MS
      await this.#trickle.pass()
      requireAlive()
    }
  }

  /** Publishes what there is. */
  async checkpoint(): Promise<void> {
    await this.#checkpointer?.run({ flush: () => Promise.resolve(), onProgress: () => undefined })
    requireAlive()
  }

  /** Contents by name, as a program reads them. */
  async contents(): Promise<Map<string, Buffer>> {
    const all = new Map<string, Buffer>()
    const { namespace } = this.vm.session
    for (const [name, id] of namespace.get(ROOT_INODE)?.children ?? []) {
      const inode = namespace.get(id)
      if (inode === undefined) continue
      const bytes = Buffer.alloc(inode.sizeBytes)
      const step = this.#shared === undefined ? bytes.length : READ_BYTES
      for (let at = 0; at < bytes.length; at += step) await this.#read(inode, bytes.subarray(at, at + step), at)
      all.set(name, bytes)
    }
    return all
  }

  async #read(inode: Inode, into: Buffer, offset: number): Promise<void> {
    if (this.#shared !== undefined && this.#threads?.below(4) !== 0) {
      const { table } = this.#shared
      const { id } = inode
      if (readShared(table, lowWord(id), highWord(id), into, 0, offset, into.length, readFully)) {
        this.byThreads.reads++
        return
      }
    }
    await this.images.read(inode, into, offset)
  }

  /** Reads the pages of a file that are here, in the session or in the cache; answers those that are not what was written last. */
  async staleOfPresent(model: Model, label: string): Promise<string[]> {
    const inode = this.#inodeOf(model, label)
    const file = model.files.get(label)
    const found: string[] = []
    if (inode === undefined || file === undefined) return found
    for (let page = 0; (page + 1) * PAGE_BYTES <= inode.sizeBytes; page++) {
      if (!this.#isPresent(inode, page)) continue
      const bytes = Buffer.alloc(PAGE_BYTES)
      const before = file.now(page)
      await this.images.read(inode, bytes, page * PAGE_BYTES)
      found.push(...staleIn(file, page, bytes, before))
    }
    return found
  }

  #isPresent(inode: Inode, page: number): boolean {
    const block = Math.floor(page / PAGES_PER_BLOCK)
    const cached = this.vm.cache.knownRegion(inode.id, 0)?.present
    const isChanged = (((inode.regions.get(0)?.valid[block] ?? 0) >>> (page % PAGES_PER_BLOCK)) & 1) === 1
    return isChanged || (cached !== undefined && getBit(cached, block))
  }

  async suspend(): Promise<Outcome> {
    this.images.stop()
    this.#trickle.stop()
    await this.#checkpointer?.stop()
    const settling = { verify: false, log, onProgress: () => undefined, notice: () => undefined }
    try {
      return await settleMount(this.#request, this.vm, settling)
    } finally {
      await this.vm.release()
    }
  }
}

/** As a request thread does it (fuse/direct/thread-answers.ts); one whose process has ended answers nothing. */
function fully(transfer: (...given: Parameters<Transfer>) => number): Transfer {
  return (descriptor, bytes, at, length, position) => {
    try {
      for (let done = 0; done < length;) {
        const count = transfer(descriptor, bytes, at + done, length - done, position + done)
        if (count === 0) return false
        done += count
      }
      return true
    } catch {
      requireAlive()
      return false
    }
  }
}
const readFully = fully((...given) => fs.readSync(...given))
const writeFully = fully((...given) => fs.writeSync(...given))

/** An error that a program or a person is told is a known one, in words; anything else is a defect. */
export function mustBeAnswer(error: unknown): void {
  requireAlive()
  if (error instanceof IsrfsError) return
  throw error
}

/** Contents of a generation, straight from the share, every digest checked. */
export function contentsOf(root: string, { manifest }: PublishedGeneration): Map<string, Buffer> {
  const share = new Share(root)
  const all = new Map<string, Buffer>()
  for (const entry of manifest.entries) {
    if (entry.type !== 'file') continue
    const bytes = Buffer.alloc(Math.ceil(entry.size / BLOCK_BYTES) * BLOCK_BYTES)
    if (entry.map !== null) {
      for (const [index, place] of decodeMapRoot(decodeObject(readStored(share, entry.map), entry.map))) {
        const page = new MapPage(decodeObject(readStored(share, place), place))
        for (let block = 0; block < BLOCKS_PER_MAP_PAGE; block++) {
          const at = page.place(block)
          const offset = (index * BLOCKS_PER_MAP_PAGE + block) * BLOCK_BYTES
          if (at !== undefined && offset < bytes.length) decodeBlock(readStored(share, at), at).copy(bytes, offset)
        }
      }
    }
    all.set(entry.name, bytes.subarray(0, entry.size))
  }
  return all
}

/** A process that has ended learns nothing any more. */
function requireAlive(): void {
  if (currentProcess()?.isDead === true) throw new ProcessEnded()
}
