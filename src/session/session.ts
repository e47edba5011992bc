/**
 * The session: what was changed since the base generation and is in no generation yet. Precious; survives crashes.
 *
 *     created -> open -> closed (stays, is opened again) -> ... -> published -> removed
 *
 * Invariants:
 * 1. A page's bytes are in the region file before the record that makes it valid is in the journal.
 * 2. `record` journals all of its records in one frame and then applies them, or throws with nothing changed.
 * 3. A barrier for a file is appended only after the bytes that its records speak of are on the disk, and `sync`
 *    resolves only after the journal with the barrier is.
 * 4. A file with an error that the disk reported late stays failed: no later sync of it succeeds.
 * 5. Bytes of a valid page past the end of its file are zeros.
 * 6. A few pages may be made durable inside the journal instead (journaled-pages.ts); a later sync of the region files
 *    appends a barrier, so that the journal's copies do not count any more.
 * 7. Region files of removed inodes, and those in which no page counts any more, are removed only after the record that
 *    says so is durable.
 * 8. Others may serve pages from the region files (sharing.ts) only as long as what they know of them is true.
 * Only the thread that serves FUSE calls this; everything but sync and close is one synchronous step.
 */
import { randomBytes } from 'node:crypto'
import fs from 'node:fs'
import path from 'node:path'
import { anyBit } from '../base/bits.js'
import { closeQuietly } from '../base/close-quietly.js'
import { errnoOf, FailedError, PosixError } from '../base/errors.js'
import { removeFileLater } from '../base/remove-later.js'
import {
  BLOCK_BYTES,
  type InodeId,
  PAGE_BYTES,
  PAGES_PER_REGION,
  REGION_BYTES,
  ROOT_INODE,
  toInodeId
} from '../base/units.js'
import { currentBootId } from './boot.js'
import { ByteWriter } from './bytes.js'
import { ChangeTicks } from './change-ticks.js'
import { type Disk, diskError, lostOnDisk, realDisk } from './disk.js'
import { namesIn, replaceFileDurably, syncDirectory, syncDirectoryLater } from './durable-file.js'
import { FRAME_KINDS } from './frame.js'
import {
  ANNOUNCED_MAX,
  type CheckpointReference,
  identityOf,
  ownGenerationsOf,
  readSessionFile,
  removeSession,
  type SessionFile,
  type SessionIdentity,
  writeSessionFile
} from './identity.js'
import { beginFrame, Journal } from './journal.js'
import { continueJournal, removeBefore, restartJournal, type StartedJournal } from './journal-start.js'
import type { BaseImage, Namespace } from './namespace.js'
import type { ChangeRecord, Inode } from './namespace-types.js'
import { encodeNewPages, endOfPages, isValid, ZEROS } from './pages.js'
import { encodeRecord, encodeSize } from './record-codec.js'
import { LostWrites } from './lost-writes.js'
import { bytesFrameLength, encodeBytes, JOURNALED_PAGES_MAX } from './journaled-pages.js'
import { QuickSync } from './quick-sync.js'
import { recoverState, type Recovered, snapshotName } from './recovery.js'
import { Regions } from './regions.js'
import type { RegionSharing } from './sharing.js'
import { SharedRun } from './shared-run.js'
import { encodeSnapshot } from './snapshot.js'
import { Uploads } from './uploads.js'

export type { SessionIdentity } from './identity.js'

/** a snapshot replaces the journal when it is longer */
const JOURNAL_BYTES_MAX = 64 * 1024 * 1024

export interface SessionOptions {
  /** tests put a failing disk in its place */
  readonly disk?: Disk
  readonly journalBytesMax?: number
  /** a sync of more pages than this goes to their region files */
  readonly journaledPagesMax?: number
  /** tests put one in its place that is always, or never, for it */
  readonly quickSync?: Pick<QuickSync, 'isDue' | 'noteAtOnce' | 'noteElsewhere'>
  /** where the VM is now: noted for whoever lists what was left behind */
  readonly vmPath?: string
}

/** Region files of an inode; without a region: all of them. */
interface Removable {
  readonly inode: InodeId
  readonly region?: number
  readonly sequence: number
}

export class Session {
  readonly identity: SessionIdentity
  readonly namespace: Namespace
  readonly uploads: Uploads
  /** accepted writes that are gone: no suspend without a person's word */
  readonly lost: LostWrites
  /** what replay has found; undefined for a new session */
  readonly recovered: { readonly records: number; readonly cutBytes: number; readonly droppedPages: number } | undefined
  readonly #directory: string
  #file: SessionFile
  readonly #ticks = new ChangeTicks()
  readonly #disk: Disk
  readonly #journalBytesMax: number
  readonly #journaledPagesMax: number
  readonly #regions: Regions
  readonly #writer = new ByteWriter(64 * 1024)
  readonly #quickSync: NonNullable<SessionOptions['quickSync']>
  readonly #journalSync = new SharedRun(() => this.#syncJournal())
  #journal: Journal
  /** journals that count beside the newest one, until a snapshot replaces them */
  #oldJournals: Journal[] = []
  #namesChanged = true
  /** frames up to it are on the disk */
  #durableSequence = 0
  /** files with page records that no durable barrier covers yet -> sequence of the last of them */
  readonly #uncovered = new Map<InodeId, number>()
  /** files with copies of pages in the journal that count -> sequence of the newest frame that has some */
  readonly #journaled: Map<InodeId, number>
  /** journals that a snapshot has replaced; a sync under way may still hold their descriptors */
  #retiredJournals: Journal[] = []
  #snapshot: Promise<void> | undefined
  /** region files without a page that counts, which may go when the record that has emptied them is durable */
  readonly #removable = new Map<string, Removable>()
  #failure: PosixError | undefined
  #sharing: RegionSharing | undefined
  #closed = false

  /** Starts a session in a directory that holds none. */
  static create(directory: string, identity: SessionIdentity, base: BaseImage, options: SessionOptions = {}): Session {
    if (readSessionFile(directory) !== undefined) throw new FailedError(`there is a session in ${directory} already`)
    fs.mkdirSync(directory, { recursive: true, mode: 0o700 })
    syncDirectory(path.dirname(directory))
    removeSession(directory) // what a crash in an earlier create or removal has left
    fs.mkdirSync(path.join(directory, 'regions'), { mode: 0o700 })
    const salt = randomBytes(4).readUInt32LE()
    const file: SessionFile = {
      format: 'isrfs-session',
      version: 1,
      ...identity,
      salt,
      boot: currentBootId(),
      published: null
    }
    const disk = options.disk ?? realDisk
    const journal = Journal.create(directory, 0, salt, { sequence: 0, checksum: 0 }, disk)
    fs.fsyncSync(journal.descriptor)
    syncDirectory(directory)
    writeSessionFile(directory, file) // last: now there is a session
    const recovered = recoverState({ directory, salt, base, powerCut: false, regionPath: () => '' })
    return new Session(directory, file, { journal, older: [] }, recovered, undefined, options)
  }

  /** The identity of the session in a directory without replaying it; undefined when there is none. */
  static inspect(directory: string): SessionIdentity | undefined {
    const file = readSessionFile(directory)
    return file === undefined ? undefined : identityOf(file)
  }

  /** The generation that holds everything of this session, when only its removal is left. */
  static publishedAs(directory: string): NonNullable<SessionFile['published']> | undefined {
    return readSessionFile(directory)?.published ?? undefined
  }

  /** As `ownGenerations`, without replaying the session. */
  static ownGenerationsOf(directory: string): readonly CheckpointReference[] {
    const file = readSessionFile(directory)
    return file === undefined ? [] : ownGenerationsOf(file)
  }

  /** Recovers the session: `base` is the image of the generation that inspect() names. Throws IntegrityError on damage. */
  static open(directory: string, base: BaseImage, options: SessionOptions = {}): Session {
    const file = readSessionFile(directory)
    if (file === undefined) throw new FailedError(`there is no session in ${directory}`)
    const disk = options.disk ?? realDisk
    const boot = currentBootId()
    const powerCut = file.boot !== boot
    const regions = path.join(directory, 'regions')
    const regionPath = (inode: InodeId, region: number): string =>
      path.join(regions, `${String(inode)}-${String(region)}`)
    fs.mkdirSync(regions, { recursive: true, mode: 0o700 })
    const recovered = recoverState({ directory, salt: file.salt, base, powerCut, regionPath })
    if (powerCut) recovered.journaled.restore(recovered.namespace, regionPath, regions) // before the journals go
    const started = powerCut
      ? restartJournal(directory, file, recovered, disk)
      : continueJournal(directory, file, recovered, disk)
    const vmPath = options.vmPath ?? file.vmPath
    const opened: SessionFile = { ...file, boot, vmPath }
    if (powerCut) writeSessionFile(directory, opened)
    else if (vmPath !== file.vmPath) noteQuietly(directory, opened)
    const { records, cutBytes, droppedPages } = recovered
    const session = new Session(directory, opened, started, recovered, { records, cutBytes, droppedPages }, options)
    if (!powerCut) session.#distrustDisk(recovered)
    else session.#journaled.clear()
    session.#tidy()
    return session
  }

  private constructor(
    directory: string,
    file: SessionFile,
    { journal, older }: StartedJournal,
    state: Recovered,
    recovered: Session['recovered'],
    options: SessionOptions
  ) {
    this.#directory = directory
    this.#file = file
    this.identity = identityOf(file)
    this.namespace = state.namespace
    this.namespace.changed ||= state.records > 0 || state.nextNumber > 1
    this.recovered = recovered
    this.#journal = journal
    this.#oldJournals = [...older]
    this.#disk = options.disk ?? realDisk
    this.#journalBytesMax = options.journalBytesMax ?? JOURNAL_BYTES_MAX
    this.#journaledPagesMax = options.journaledPagesMax ?? JOURNALED_PAGES_MAX
    this.#journaled = state.journaled.newest()
    this.#quickSync = options.quickSync ?? new QuickSync()
    this.lost = new LostWrites(directory)
    const onLost = (inode: InodeId, why: string): void => {
      const name = this.namespace.get(inode)?.name
      this.lost.add(inode, name === undefined || name === '' ? why : `${name}: ${why}`)
    }
    this.#regions = new Regions(path.join(directory, 'regions'), this.#disk, onLost, (inode, region) =>
      endOfPages(this.namespace.get(inode)?.regions.get(region))
    )
    this.uploads = new Uploads(path.join(directory, 'uploads'))
  }

  /** Nothing was changed, and nothing that was accepted is gone: there is nothing to keep. */
  get isUntouched(): boolean {
    return !this.namespace.changed && this.lost.all().length === 0
  }

  /** From now on others may serve bytes from the region files; they are told before something changes (invariant 8). */
  share(sharing: RegionSharing): void {
    this.#sharing = sharing
    this.#regions.share(sharing)
  }

  /** Whether others may write to the region's valid pages, until they are told to end it. */
  maySharedWrite(inode: InodeId, region: number): boolean {
    if (this.#closed || this.#failure !== undefined) return false
    return this.#regions.maySharedWrite(inode, region, this.#journaledPagesMax)
  }

  /** Others have written so many bytes to these blocks of a region; they may not any more. */
  noteSharedWrites(inode: InodeId, region: number, blocks: readonly number[], bytes: number): void {
    for (const block of blocks) this.#ticks.touch(inode, region, block, block)
    this.#regions.unsyncedBytes += bytes
  }

  /** Journals the records as one atomic unit and applies them. Throws PosixError with nothing changed. */
  record(...records: ChangeRecord[]): void {
    this.#requireUsable()
    for (const record of records) this.#withdraw(record)
    beginFrame(this.#writer)
    for (const record of records) encodeRecord(this.#writer, record)
    this.#append(FRAME_KINDS.change, records.length)
    for (const record of records) this.#apply(record)
    this.#snapshotIfLong()
  }

  /**
   * Writes bytes at a byte offset. Every page that is only partly covered is valid already, or ends where the file
   * ends. Grows the file when it ends past its size, in the same atomic unit. ESTALE for a file that is gone, after a wait
   * say: a journal with records of one could not be replayed.
   */
  write(inode: Inode, bytes: Uint8Array, offset: number): void {
    this.#requireUsable()
    if (this.namespace.get(inode.id) !== inode) throw new PosixError('ESTALE', 'the file is gone')
    const end = offset + bytes.length
    this.#sharing?.pause(inode.id, Math.floor(offset / REGION_BYTES), Math.ceil(end / REGION_BYTES))
    try {
      this.#write(inode, bytes, offset)
    } finally {
      this.#sharing?.resume(inode, offset, end)
    }
  }

  #write(inode: Inode, bytes: Uint8Array, offset: number): void {
    const end = offset + bytes.length
    const grows = end > inode.sizeBytes
    let records: number
    try {
      records = this.#writePages(inode, bytes, offset)
      if (grows) encodeSize(this.#writer, inode.id, end, inode.baseLimitBytes)
      if (!grows && records === 0) return // pages that were valid: only their bytes changed
      this.#append(FRAME_KINDS.change, grows ? records + 1 : records)
    } catch (error) {
      this.#zeroTail(inode.id) // invariant 5: some bytes may lie past the end that stays
      throw error
    }
    if (records > 0) this.#uncovered.set(inode.id, this.#journal.position.sequence)
    this.namespace.markPages(inode, offset, end)
    for (let region = Math.floor(offset / REGION_BYTES); region * REGION_BYTES < end; region++)
      this.#keepRegion(inode.id, region)
    if (grows)
      this.namespace.apply({ kind: 'size', inode: inode.id, sizeBytes: end, baseLimitBytes: inode.baseLimitBytes })
    this.#snapshotIfLong()
  }

  /** Puts the bytes into the region files and begins the frame that makes new pages valid. Returns its records. */
  #writePages(inode: Inode, bytes: Uint8Array, offset: number): number {
    const end = offset + bytes.length
    beginFrame(this.#writer)
    let records = 0
    for (let at = offset; at < end;) {
      const region = Math.floor(at / REGION_BYTES)
      const stop = Math.min(end, (region + 1) * REGION_BYTES)
      this.#ticks.touch(inode.id, region, blockInRegion(at), blockInRegion(stop - 1))
      this.#regions.write(inode.id, region, bytes, at - offset, stop - at, at % REGION_BYTES)
      if (stop % PAGE_BYTES !== 0 && !isValid(inode, stop)) {
        const padding = PAGE_BYTES - (stop % PAGE_BYTES)
        this.#regions.write(inode.id, region, ZEROS, 0, padding, stop % REGION_BYTES)
      }
      records += encodeNewPages(this.#writer, inode, { bytes, offset }, at, stop)
      at = stop
    }
    return records
  }

  /** Reads bytes of valid pages within one region, from a byte offset of the file. */
  read(inode: Inode, into: Uint8Array, offset: number): void {
    this.#regions.read(inode.id, Math.floor(offset / REGION_BYTES), into, offset % REGION_BYTES)
  }

  /**
   * Resolves when everything that was changed in this file (or in all) before the call is durable. A journal that is
   * durable is not enough: another file's sync may have made it so, and without a barrier of its own this file's pages
   * count after a power cut only with the bytes that they had when they became valid.
   */
  async sync(inode?: Inode): Promise<void> {
    this.#requireUsable()
    if (inode !== undefined && (await this.#syncInJournal(inode))) return
    const through = this.#journal.position.sequence
    const wantsBarrier =
      inode === undefined ? this.#uncovered.size + this.#journaled.size > 0 : this.#isBarrierDue(inode)
    if (inode === undefined) await this.#regions.syncAll()
    else await this.#regions.sync(inode.id)
    if (wantsBarrier) this.#appendBarrier(inode?.id, through)
    if (wantsBarrier || through > this.#durableSequence) await this.#journalSync.run()
    if (!wantsBarrier) return
    this.#cover(this.#uncovered, inode?.id, through)
    this.#cover(this.#journaled, inode?.id, through)
  }

  #isBarrierDue(inode: Inode): boolean {
    return this.#uncovered.has(inode.id) || this.#journaled.has(inode.id)
  }

  /** The sync of a file of which few pages have changed, or none: false when it has to be done otherwise. */
  async #syncInJournal(inode: Inode): Promise<boolean> {
    const listed = this.#regions.undurablePages(inode.id)
    if (listed === undefined || listed.size > this.#journaledPagesMax) return false
    if (listed.size === 0 && this.#uncovered.has(inode.id)) return false
    const through = this.#journal.position.sequence
    if (listed.size > 0 && !this.#appendBytes(inode, through, listed)) return false
    const last = this.#journal.position.sequence
    if (last > this.#durableSequence) await this.#journalSync.run()
    if (last > through) this.#cover(this.#uncovered, inode.id, through)
    return true
  }

  /** Pages that do not count any more are left out; an empty frame is still a barrier. False when the disk has no room. */
  #appendBytes(inode: Inode, through: number, listed: ReadonlySet<number>): boolean {
    const pages = [...listed].filter((page) => isValid(inode, page * PAGE_BYTES))
    this.#journal.reserve(bytesFrameLength(pages.length))
    beginFrame(this.#writer)
    encodeBytes(this.#writer, inode, through, pages, (into, offset) => {
      this.read(inode, into, offset)
    })
    try {
      this.#append(FRAME_KINDS.bytes, pages.length)
    } catch (error) {
      if (errnoOf(error) === 'ENOSPC') return false
      throw error
    }
    if (pages.length > 0) this.#journaled.set(inode.id, this.#journal.position.sequence)
    this.#regions.noteJournaled(inode.id)
    this.#snapshotIfLong()
    return true
  }

  #appendBarrier(inode: InodeId | undefined, through: number): void {
    beginFrame(this.#writer)
    const at = this.#writer.reserve(16)
    this.#writer.bytes.writeBigUInt64LE(BigInt(inode ?? 0), at)
    this.#writer.bytes.writeBigUInt64LE(BigInt(through), at + 8)
    this.#append(FRAME_KINDS.barrier, 0)
  }

  /** A durable barrier vouches for the pages of one file (or of all) up to a sequence. */
  #cover(files: Map<InodeId, number>, inode: InodeId | undefined, through: number): void {
    for (const id of inode === undefined ? [...files.keys()] : [inode]) {
      if ((files.get(id) ?? Infinity) <= through) files.delete(id)
    }
  }

  /** Changes whenever bytes of the region may have: a larger number is a later change. */
  changeTick(inode: InodeId, region: number): number {
    this.#sharing?.endWrites(inode, region)
    return this.#ticks.of(inode, region)
  }

  /** Every change from now on has this epoch, or a later one. */
  beginEpoch(): number {
    this.#sharing?.endWrites()
    return this.#ticks.beginEpoch()
  }

  /** of the last change of a block; 0: not since the session was opened */
  changeEpoch(inode: InodeId, region: number, blockInRegion: number): number {
    return this.#ticks.epochOf(inode, region, blockInRegion)
  }

  /** Resolves when all records so far are durable, and region files that they have emptied are gone. */
  async dropEmptyRegions(): Promise<void> {
    this.#requireUsable()
    await this.#journalSync.run()
  }

  regionPath(inode: InodeId, region: number): string {
    return this.#regions.pathOf(inode, region)
  }

  /** Bytes that were written since the last sync, about. */
  pendingBytes(): number {
    return this.#regions.unsyncedBytes + (this.#sharing?.writtenBytes ?? 0)
  }

  /** Makes everything durable and lets go of the files. The session stays. */
  async close(): Promise<void> {
    if (this.#closed) return
    try {
      await this.#snapshot
      await this.sync()
      await this.#noteEnd()
    } finally {
      this.#release()
    }
  }

  /** A frame that knows all before it to be durable: damage of the last of them is then not taken for a torn tail. */
  async #noteEnd(): Promise<void> {
    beginFrame(this.#writer)
    this.#append(FRAME_KINDS.note, 0)
    await this.#journalSync.run()
  }

  /** Its generation (or branch) is on the share: from now on nothing of it is replayed. Durable when it returns. */
  markPublished(published: NonNullable<SessionFile['published']>): void {
    writeSessionFile(this.#directory, { ...this.#file, published })
  }

  /** The newest checkpoint that is known to be on the share. */
  get checkpoint(): CheckpointReference | undefined {
    return this.#file.checkpoint
  }

  /** Checkpoints of this session that are, or may be, on the share; oldest first. */
  get ownGenerations(): readonly CheckpointReference[] {
    return ownGenerationsOf(this.#file)
  }

  /** A checkpoint with this digest is about to be published: it is this session's, whatever happens. Durable when it returns. */
  announceCheckpoint(reference: CheckpointReference): void {
    const announced = [...(this.#file.announced ?? []), reference].slice(-ANNOUNCED_MAX)
    this.#rewriteFile({ ...this.#file, announced })
  }

  /** The checkpoint is on the share; others with its number or an earlier one never will be. Durable when it returns. */
  confirmCheckpoint(reference: CheckpointReference): void {
    const later = this.#file.announced?.filter(({ generation }) => generation > reference.generation) ?? []
    this.#rewriteFile({ ...this.#file, checkpoint: reference, announced: later })
  }

  #rewriteFile(file: SessionFile): void {
    this.#requireUsable()
    writeSessionFile(this.#directory, file)
    this.#file = file
  }

  /** Removes everything but the lock. */
  destroy(): void {
    this.#release()
    removeSession(this.#directory)
  }

  #release(): void {
    if (this.#closed) return
    this.#closed = true
    this.#sharing?.withdrawAll()
    this.#regions.close()
    const journals = [...this.#retiredJournals, ...this.#oldJournals, this.#journal]
    for (const journal of journals) closeQuietly(journal.descriptor)
  }

  #requireUsable(): void {
    if (this.#closed) throw new FailedError('the session is closed')
    if (this.#failure !== undefined) throw this.#failure
  }

  #append(kind: (typeof FRAME_KINDS)[keyof typeof FRAME_KINDS], records: number): void {
    this.#journal.append(this.#writer, kind, records, this.#durableSequence)
  }

  /** Before the record is applied: regions of which pages get other bytes, or other places, are not shared any more. */
  #withdraw(record: ChangeRecord): void {
    if (this.#sharing === undefined) return
    switch (record.kind) {
      case 'size': {
        const sizeBytes = Math.min(record.sizeBytes, this.namespace.get(record.inode)?.sizeBytes ?? 0)
        this.#sharing.withdraw(record.inode, Math.floor(sizeBytes / REGION_BYTES), Infinity)
        return
      }
      case 'punch': {
        const from = Math.floor(record.firstPage / PAGES_PER_REGION)
        this.#sharing.withdraw(record.inode, from, Math.ceil((record.firstPage + record.pageCount) / PAGES_PER_REGION))
        return
      }
      case 'pages':
      case 'uploaded':
        this.#sharing.withdraw(record.inode, record.region, record.region + 1)
        return
      case 'forget':
        this.#sharing.withdraw(record.inode, 0, Infinity)
        return
      case 'inode':
      case 'link':
      case 'unlink':
        return
    }
  }

  #apply(record: ChangeRecord): void {
    const before = record.kind === 'size' ? this.namespace.get(record.inode)?.sizeBytes : undefined
    this.namespace.apply(record)
    if (record.kind === 'pages') this.#keepRegion(record.inode, record.region)
    if (record.kind === 'forget') {
      this.#regions.drop(record.inode)
      this.lost.forget(record.inode)
      this.#uncovered.delete(record.inode)
      this.#journaled.delete(record.inode)
      this.#ticks.forget(record.inode)
      this.#noteRemovable({ inode: record.inode, sequence: this.#journal.position.sequence })
    }
    if (record.kind === 'size' && before !== undefined && record.sizeBytes < before) {
      this.#zeroTail(record.inode)
      this.#noteEmptyRegions(record.inode, Math.floor(record.sizeBytes / REGION_BYTES), Infinity)
    }
    if (record.kind === 'punch') {
      const end = record.firstPage + record.pageCount
      this.#noteEmptyRegions(record.inode, Math.floor(record.firstPage / PAGES_PER_REGION), end / PAGES_PER_REGION)
    }
    if (record.kind === 'uploaded') this.#noteEmptyRegions(record.inode, record.region, record.region + 1)
  }

  /** After a change of regions [from, to): files without a page that counts may go (invariant 7). */
  #noteEmptyRegions(id: InodeId, from: number, to: number): void {
    const { sequence } = this.#journal.position
    const regions = this.namespace.get(id)?.regions
    if (regions === undefined) return
    for (const region of to - from < regions.size ? indices(from, to) : regions.keys()) {
      const pages = regions.get(region)
      if (pages === undefined || region < from || region >= to) continue
      this.#ticks.touch(id, region)
      if (!anyBit(pages.valid)) this.#noteRemovable({ inode: id, region, sequence })
    }
  }

  #noteRemovable(removable: Removable): void {
    const key = removableKey(removable.inode, removable.region)
    if (!this.#removable.has(key)) this.#removable.set(key, removable)
  }

  /** Pages count there again: a record that has emptied it before is not the one to wait for when they are gone again. */
  #keepRegion(inode: InodeId, region: number): void {
    if (this.#removable.size > 0) this.#removable.delete(removableKey(inode, region))
  }

  /** Invariant 5, after the record: a crash in between is made good by #tidy. */
  #zeroTail(id: InodeId): void {
    const inode = this.namespace.get(id)
    if (inode === undefined || inode.sizeBytes % PAGE_BYTES === 0 || !isValid(inode, inode.sizeBytes)) return
    const padding = PAGE_BYTES - (inode.sizeBytes % PAGE_BYTES)
    const block = blockInRegion(inode.sizeBytes)
    this.#ticks.touch(id, Math.floor(inode.sizeBytes / REGION_BYTES), block, block)
    try {
      this.#regions.write(
        id,
        Math.floor(inode.sizeBytes / REGION_BYTES),
        ZEROS,
        0,
        padding,
        inode.sizeBytes % REGION_BYTES
      )
    } catch (error) {
      this.#regions.fail(id, diskError(error, 'a file could not be cut'))
    }
  }

  async #syncJournal(): Promise<void> {
    const newest = this.#journal // a snapshot may put another one in its place meanwhile
    const through = newest.position.sequence
    try {
      for (const { descriptor } of [...this.#oldJournals]) {
        this.#requireOpen()
        await this.#disk.datasync(descriptor)
      }
      this.#requireOpen()
      await this.#datasyncNewest(newest.descriptor, through)
      if (this.#namesChanged) {
        this.#namesChanged = false
        await syncDirectoryLater(this.#directory)
      }
    } catch (error) {
      if (this.#closed) throw error // nobody needs it any more, and the directory may have another session by now
      this.#failure = lostOnDisk(error, 'the journal could not be made durable')
      this.#sharing?.endWrites()
      this.lost.add(ROOT_INODE, this.#failure.message)
      throw this.#failure
    }
    if (this.#closed) return // #release has closed the journals, and the directory may have another session by now
    this.#durableSequence = Math.max(this.#durableSequence, through)
    for (const journal of this.#retiredJournals) closeQuietly(journal.descriptor) // one run at a time: nobody holds them
    this.#retiredJournals = []
    this.#removeForgotten()
  }

  /** Numbers of its descriptors may be those of other files once it is closed. */
  #requireOpen(): void {
    if (this.#closed) throw new FailedError('the session is closed')
  }

  #datasyncNewest(descriptor: number, through: number): void | Promise<void> {
    const startedMs = performance.now()
    if (this.#disk.datasyncAtOnce !== undefined && this.#quickSync.isDue(through - this.#durableSequence)) {
      this.#disk.datasyncAtOnce(descriptor)
      this.#quickSync.noteAtOnce(performance.now() - startedMs)
      return
    }
    return this.#disk.datasync(descriptor).then(() => {
      this.#quickSync.noteElsewhere(performance.now() - startedMs, this.#journalSync.isWantedAgain)
    })
  }

  /** Invariant 7. */
  #removeForgotten(): void {
    if (this.#removable.size === 0) return
    const gone = new Set<string>()
    for (const [key, { inode, region, sequence }] of this.#removable) {
      if (sequence > this.#durableSequence) continue
      this.#removable.delete(key)
      if (region === undefined) {
        gone.add(String(inode))
        this.lost.settle(inode)
      } else if (this.#isEmpty(inode, region)) this.#regions.remove(inode, region)
    }
    if (gone.size === 0) return
    try {
      for (const name of namesIn(this.#regions.directory)) {
        if (gone.has(name.split('-')[0] ?? ''))
          removeFileLater(path.join(this.#regions.directory, name), this.#directory)
      }
    } catch {
      // they take space until the session ends
    }
  }

  #isEmpty(inode: InodeId, region: number): boolean {
    const pages = this.namespace.get(inode)?.regions.get(region)
    return pages !== undefined && !anyBit(pages.valid)
  }

  #snapshotIfLong(): void {
    if (this.#journal.bytes < this.#journalBytesMax || this.#snapshot !== undefined) return
    this.#snapshot = this.#takeSnapshot()
      .catch(() => undefined) // the journals that it would have replaced stay
      .finally(() => (this.#snapshot = undefined))
  }

  /** State and switch of journals are one step; the rest may take its time while the new journal is written. */
  async #takeSnapshot(): Promise<void> {
    const state = encodeSnapshot(this.namespace, this.#file.salt)
    const old = this.#journal
    const number = old.number + 1
    this.#journal = Journal.create(this.#directory, number, this.#file.salt, old.position, this.#disk)
    this.#oldJournals.push(old)
    this.#namesChanged = true
    await this.#regions.syncAll()
    await this.#journalSync.run() // records that the state holds may be in old journals only, until it is durable itself
    if (this.#closed) return // the directory may have another session by now
    replaceFileDurably(path.join(this.#directory, snapshotName(number)), state)
    this.#retiredJournals.push(...this.#oldJournals)
    this.#oldJournals = []
    removeBefore(this.#directory, number)
    await this.#journalSync.run() // closes them
  }

  /**
   * What the killed process wrote may be in the page cache only, and nobody knows which of it: the next sync of a file
   * has to make all of it durable, and to vouch for its pages, before it may say so.
   */
  #distrustDisk({ uncovered }: Recovered): void {
    for (const [inode, sequence] of uncovered) this.#uncovered.set(inode, sequence)
    for (const inode of this.namespace.inodes()) {
      for (const region of inode.regions.keys()) this.#regions.distrust(inode.id, region)
    }
  }

  /** After recovery: no orphan, no bytes past an end, no file of an inode that is gone. */
  #tidy(): void {
    for (const inode of [...this.namespace.inodes()]) {
      if (inode.id !== ROOT_INODE && inode.parent === 0) this.record({ kind: 'forget', inode: inode.id })
      else if (inode.type === 'file') {
        this.#zeroTail(inode.id)
        this.#noteEmptyRegions(inode.id, 0, Infinity)
      }
    }
    const { sequence } = this.#journal.position
    for (const inode of this.lost.inodes()) {
      if (inode === ROOT_INODE || this.namespace.get(inode) !== undefined) continue
      this.lost.forget(inode)
      this.#noteRemovable({ inode, sequence })
    }
    const gone = new Set(namesIn(this.#regions.directory).map((name) => toInodeId(Number(name.split('-')[0]))))
    for (const inode of gone) {
      // the record that forgets it may be in the page cache only (invariant 7)
      if (this.namespace.get(inode) === undefined) this.#noteRemovable({ inode, sequence })
    }
  }
}

/** What is new in it is advice only, and must not stop a session from being opened, on a full disk for instance. */
function noteQuietly(directory: string, file: SessionFile): void {
  try {
    writeSessionFile(directory, file)
  } catch {
    // noted with whatever is written there next
  }
}

function removableKey(inode: InodeId, region: number | undefined): string {
  return `${String(inode)}-${String(region ?? '')}`
}

function blockInRegion(position: number): number {
  return Math.floor((position % REGION_BYTES) / BLOCK_BYTES)
}

function* indices(from: number, to: number): Generator<number> {
  for (let index = from; index < to; index++) yield index
}
