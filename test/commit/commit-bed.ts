/** A client with a session on a small VM, committed directly: no kernel, no daemon, no command line. */
import { randomBytes } from 'node:crypto'
import fs from 'node:fs'
import path from 'node:path'
import { BLOCK_BYTES, BLOCKS_PER_MAP_PAGE, PAGE_BYTES, toInodeId } from '../../src/base/units.js'
import { Cache } from '../../src/cache/cache.js'
import { type CommitOptions, type CommitProgress, type CommitResult, commitSession } from '../../src/commit/commit.js'
import { decodeBlock, decodeObject } from '../../src/format/block-codec.js'
import { decodeMapRoot, MapPage } from '../../src/format/block-map.js'
import { chunkName } from '../../src/format/chunk.js'
import { type PublishedGeneration, readNewestGeneration } from '../../src/format/generations.js'
import type { ManifestEntry } from '../../src/format/manifest.js'
import type { BlockPlace, ObjectPlace } from '../../src/format/place.js'
import { baseImageOf } from '../../src/image/base-image.js'
import type { Inode } from '../../src/session/namespace-types.js'
import { Session, type SessionOptions } from '../../src/session/session.js'
import { acquireLease, type HeldLease, type LeaseHolder } from '../../src/share/lease.js'
import type { Share } from '../../src/share/share.js'
import { makeVm, temporaryDirectory } from '../support/make-vm.js'

export const CLIENT: LeaseHolder = {
  client: '0123456789abcdef',
  host: 'here',
  user: 'u',
  pid: 1,
  boot: 'b',
  mountpoint: '/m'
}

export type FileEntry = Extract<ManifestEntry, { type: 'file' }>

export class CommitBed {
  readonly directory = temporaryDirectory('commit')
  readonly root = path.join(this.directory, 'vm')
  readonly share: Share
  held: HeldLease
  base: PublishedGeneration
  session: Session
  cache: Cache | undefined
  readonly #sessionDirectory = path.join(this.directory, 'session')
  readonly #options: SessionOptions

  constructor(files: Readonly<Record<string, Buffer>>, options: SessionOptions = {}) {
    this.#options = options
    const { share, generation } = makeVm(this.root, new Map(Object.entries(files)))
    this.share = share
    this.base = generation
    this.held = acquireLease(share, CLIENT)
    this.session = this.#newSession()
  }

  file(name: string): Inode {
    for (const inode of this.session.namespace.inodes()) if (inode.name === name) return inode
    throw new Error(`no ${name}`)
  }

  /** A new empty file in the root directory. */
  create(name: string): Inode {
    const inode = this.session.namespace.allocateInode()
    const attributes = { mode: 0o600, uid: 0, gid: 0, atimeNs: 1n, mtimeNs: 2n, ctimeNs: 3n, rdev: 0, target: '' }
    this.session.record(
      { kind: 'inode', inode, type: 'file', ...attributes },
      { kind: 'link', parent: toInodeId(1), name, inode }
    )
    return this.file(name)
  }

  resize(inode: Inode, sizeBytes: number): void {
    const baseLimitBytes = Math.min(inode.baseLimitBytes, sizeBytes)
    this.session.record({ kind: 'size', inode: inode.id, sizeBytes, baseLimitBytes })
  }

  punch(inode: Inode, offset: number, lengthBytes: number): void {
    const firstPage = offset / PAGE_BYTES
    this.session.record({ kind: 'punch', inode: inode.id, firstPage, pageCount: lengthBytes / PAGE_BYTES })
  }

  openCache(): Cache {
    this.cache = Cache.open({ directory: path.join(this.directory, 'cache'), bytesMax: 1, onWarning: () => undefined })
    return this.cache
  }

  commit(changes: Partial<CommitOptions> = {}): Promise<CommitResult> {
    return commitSession({
      vmPath: this.root,
      session: this.session,
      base: this.base,
      held: this.held,
      cache: this.cache,
      client: { id: CLIENT.client, host: CLIENT.host },
      verify: false,
      onProgress: () => undefined,
      ...changes
    })
  }

  /** Commits and goes on with a new session on the new generation. */
  async publish(): Promise<PublishedGeneration> {
    const { published } = await this.commit()
    if (published === undefined) throw new Error('nothing was published')
    this.session.destroy()
    this.base = published
    this.session = this.#newSession()
    return published
  }

  /** As the next process of this client does. */
  async reopen(): Promise<void> {
    await this.session.close()
    this.session = Session.open(this.#sessionDirectory, baseImageOf(this.base.manifest))
  }

  newest(): PublishedGeneration {
    return readNewestGeneration(this.share)
  }

  /** Chunk files by their path, with what is in them. */
  chunks(): Map<string, number> {
    const sizes = new Map<string, number>()
    for (const name of fs.readdirSync(path.join(this.root, 'chunks'), { recursive: true })) {
      const file = path.join(this.root, 'chunks', String(name))
      const stat = fs.statSync(file)
      if (stat.isFile()) sizes.set(file, stat.size)
    }
    return sizes
  }

  async destroy(): Promise<void> {
    this.session.destroy()
    await this.cache?.close()
    fs.rmSync(this.directory, { recursive: true, force: true })
  }

  #newSession(): Session {
    const identity = {
      sessionId: randomBytes(16).toString('hex'),
      vmId: this.base.manifest.vm,
      client: CLIENT.client,
      baseGeneration: this.base.number,
      baseDigest: this.base.digest,
      createdIso: new Date().toISOString(),
      leaseNumber: this.held.number,
      discard: false
    }
    return Session.create(this.#sessionDirectory, identity, baseImageOf(this.base.manifest), this.#options)
  }
}

export function entryOf(generation: PublishedGeneration, name: string): FileEntry {
  const entry = generation.manifest.entries.find((candidate) => candidate.name === name)
  if (entry?.type !== 'file') throw new Error(`generation ${String(generation.number)} has no file ${name}`)
  return entry
}

/** Block index -> place of a published file, read the way format.md says and by nothing of src/commit. */
export function placesOf(share: Share, entry: FileEntry): Map<number, BlockPlace> {
  const read = (place: ObjectPlace): Buffer =>
    decodeObject(share.readRange(chunkName(place.chunk), place.offset, place.storedBytes), place)
  const places = new Map<number, BlockPlace>()
  if (entry.map === null) return places
  for (const [index, pagePlace] of decodeMapRoot(read(entry.map))) {
    const page = new MapPage(read(pagePlace))
    for (let block = 0; block < BLOCKS_PER_MAP_PAGE; block++) {
      const place = page.place(block)
      if (place !== undefined) places.set(index * BLOCKS_PER_MAP_PAGE + block, place)
    }
  }
  return places
}

/** The bytes of a published file. */
export function contentOf(share: Share, generation: PublishedGeneration, name: string): Buffer {
  const entry = entryOf(generation, name)
  const content = Buffer.alloc(Math.ceil(entry.size / BLOCK_BYTES) * BLOCK_BYTES)
  for (const [block, place] of placesOf(share, entry)) content.set(blockAt(share, place), block * BLOCK_BYTES)
  return content.subarray(0, entry.size)
}

export function blockAt(share: Share, place: BlockPlace): Buffer {
  return decodeBlock(share.readRange(chunkName(place.chunk), place.offset, place.storedBytes), place)
}

/** An onProgress that acts once, at the first report of a phase that `when` accepts. */
export function once(
  phase: CommitProgress['phase'],
  act: () => void,
  when: (progress: CommitProgress) => boolean = () => true
): (progress: CommitProgress) => void {
  let done = false
  return (progress) => {
    if (done || progress.phase !== phase || !when(progress)) return
    done = true
    act()
  }
}
