/**
 * One life of a mount, as its daemon lives it without the kernel: open, read, write, fsync, rename, unlink, evict, upload,
 * checkpoint, suspend; and what may be in it afterwards.
 */
import path from 'node:path'
import pino from 'pino'
import { IsrfsError } from '../../src/base/errors.js'
import { BLOCK_BYTES, BLOCKS_PER_MAP_PAGE, BLOCKS_PER_REGION, PAGE_BYTES, ROOT_INODE } from '../../src/base/units.js'
import type { Checkpointer } from '../../src/commit/checkpointer.js'
import { EarlyUpload } from '../../src/commit/early-upload.js'
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
import { Share } from '../../src/share/share.js'
import { Tree } from '../../src/tree/tree.js'
import { currentProcess, ProcessEnded } from './faulty-process.js'

export const log = pino({ level: 'silent' })

/** Every value a file's page may have; the last is the newest that was answered. A page is filled with its value. */
export class ModelFile {
  readonly pages: number[][] = []
  /** the file's whole size in pages; only ever grows here */
  sizes: number[] = [0]

  constructor(values: readonly number[] = []) {
    this.pages = values.map((value) => [value])
    this.sizes = [values.length]
  }

  /** before a write is asked for */
  begin(page: number, value: number): void {
    while (this.pages.length <= page) this.pages.push([0])
    this.pages[page]?.push(value)
    if (page >= Math.max(...this.sizes)) this.sizes.push(page + 1)
  }

  /** the write was answered: a process that is killed after this has kept it, a power cut need not */
  answered(page: number): void {
    const values = this.pages[page]
    this.#answered.set(page, (values?.length ?? 1) - 1)
    this.#answeredSize = Math.max(this.#answeredSize, page + 1)
  }

  readonly #answered = new Map<number, number>()
  #answeredSize = 0

  /** what was answered counts whatever happens from now on */
  accept(): void {
    for (const [page, index] of this.#answered) {
      this.pages[page]?.splice(0, index)
    }
    this.#answered.clear()
    this.sizes = this.sizes.filter((size) => size >= this.#answeredSize)
  }
}

/** What the VM may be. Names that are open have two answers. */
export class Model {
  readonly files = new Map<string, ModelFile>()
  /** name -> labels of what may have it; undefined: nothing */
  readonly names = new Map<string, (string | undefined)[]>()
  readonly #answered = new Map<string, string | undefined>()

  constructor(files: Readonly<Record<string, readonly number[]>>) {
    for (const [name, values] of Object.entries(files)) {
      this.files.set(name, new ModelFile(values))
      this.names.set(name, [name])
    }
  }

  begin(changes: Readonly<Record<string, string | undefined>>): void {
    for (const [name, label] of Object.entries(changes))
      this.names.set(name, [...(this.names.get(name) ?? [undefined]), label])
  }

  answered(changes: Readonly<Record<string, string | undefined>>): void {
    for (const [name, label] of Object.entries(changes)) this.#answered.set(name, label)
  }

  failed(changes: Readonly<Record<string, string | undefined>>): void {
    for (const name of Object.keys(changes)) this.names.get(name)?.pop()
  }

  /** the journal is durable: all that was answered counts */
  acceptNames(): void {
    for (const [name, label] of this.#answered) this.names.set(name, [label])
    this.#answered.clear()
  }

  acceptAll(): void {
    this.acceptNames()
    for (const file of this.files.values()) file.accept()
  }
}

export interface Bed {
  readonly share: string
  readonly client: string
}

export function requestOf({ share, client }: Bed, writeback: boolean): MountRequest {
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
    transport: 'binding',
    readOnly: false,
    discard: false,
    allowOther: false,
    writeback,
    trickle: false,
    cacheBytesMax: 2 ** 30
  }
}

export class Mounted {
  readonly vm: OpenedVm
  readonly images: Images
  readonly tree: Tree
  readonly #request: MountRequest
  readonly #checkpointer: Checkpointer | undefined

  static async open(bed: Bed, writeback: boolean): Promise<Mounted> {
    const request = requestOf(bed, writeback)
    const vm = await openVm({ request, log, notice: () => undefined, checkpoint: () => undefined })
    return new Mounted(vm, request)
  }

  private constructor(vm: OpenedVm, request: MountRequest) {
    this.vm = vm
    this.#request = request
    this.images = new Images({
      session: vm.session,
      cache: vm.cache,
      pool: vm.pool,
      writeback: request.writeback,
      onDamage: () => undefined,
      onWarning: () => undefined
    })
    this.#checkpointer = createCheckpointer(request, vm, this.images)
    this.tree = new Tree(vm.session, this.images, { readOnly: false, writeback: request.writeback })
  }

  get lost(): readonly string[] {
    return this.vm.session.lost.all()
  }

  /** Writes a whole page of `value`. */
  async write(model: Model, label: string, handle: number, page: number, value: number): Promise<void> {
    const file = model.files.get(label)
    file?.begin(page, value)
    try {
      await this.tree.write(handle, pageOf(value), page * PAGE_BYTES)
      requireAlive()
      file?.answered(page)
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

  async fsync(model: Model, label: string, handle: number): Promise<void> {
    try {
      await this.tree.fsync(handle, false)
      requireAlive()
      model.files.get(label)?.accept()
      model.acceptNames()
    } catch (error) {
      mustBeAnswer(error)
    }
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
      await this.images.read(inode, bytes, 0)
      all.set(name, bytes)
    }
    return all
  }

  async suspend(): Promise<Outcome> {
    this.images.stop()
    await this.#checkpointer?.stop()
    const settling = { verify: false, log, onProgress: () => undefined, notice: () => undefined }
    try {
      return await settleMount(this.#request, this.vm, settling)
    } finally {
      await this.vm.release()
    }
  }
}

/** values of a page of which the first half is new are above this, old + HALF + new */
export const HALF = 1_000_000

export function pageOf(value: number): Buffer {
  const bytes = Buffer.alloc(PAGE_BYTES)
  for (let at = 0; at < PAGE_BYTES; at += 4) bytes.writeUInt32LE(value, at)
  return bytes
}

function matches(page: Buffer, allowed: number): boolean {
  if (allowed < HALF) return page.equals(pageOf(allowed))
  // half new, half old
  const first = page.readUInt32LE(0)
  const second = page.readUInt32LE(PAGE_BYTES / 2)
  return (
    second + HALF + first === allowed &&
    page.subarray(0, PAGE_BYTES / 2).equals(pageOf(first).subarray(PAGE_BYTES / 2)) &&
    page.subarray(PAGE_BYTES / 2).equals(pageOf(second).subarray(PAGE_BYTES / 2))
  )
}

/** What is not as the model says. */
export function violations(model: Model, contents: ReadonlyMap<string, Buffer>): string[] {
  const found: string[] = []
  for (const [name, labels] of model.names) {
    const bytes = contents.get(name)
    if (bytes === undefined) {
      if (!labels.includes(undefined)) found.push(`${name} is missing`)
      continue
    }
    const why = labels.map((label) => (label === undefined ? 'it should be gone' : wrongIn(model, label, bytes)))
    if (!why.includes(undefined)) found.push(`${name}: ${why.join('; ')}`)
  }
  for (const name of contents.keys()) if (!model.names.has(name)) found.push(`${name} should not be there`)
  return found
}

function wrongIn(model: Model, label: string, bytes: Buffer): string | undefined {
  const file = model.files.get(label)
  if (file === undefined) return 'unknown'
  if (!file.sizes.includes(bytes.length / PAGE_BYTES))
    return `${String(bytes.length)} bytes, allowed ${file.sizes.join()} pages`
  for (const [index, allowed] of file.pages.entries()) {
    const page = bytes.subarray(index * PAGE_BYTES, (index + 1) * PAGE_BYTES)
    if (page.length > 0 && !allowed.some((value) => matches(page, value)))
      return `page ${String(index)} is ${String(page.readUInt32LE(0))}, allowed ${allowed.join()}`
  }
  return undefined
}

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
