/**
 * Power loss, simulated: a disk that remembers what each file held when it was last synced. After the cut a page of a
 * region file is what was synced or what was written later, at random, and the journal is its synced part and any
 * part of the rest. What a sync has accepted must be there, other pages are old or new, never anything else.
 */
import { createHash } from 'node:crypto'
import fs from 'node:fs'
import path from 'node:path'
import test from 'ava'
import { highWord, lowWord, writeShared } from '../../src/base/region-table.js'
import { BLOCK_BYTES, PAGE_BYTES, ROOT_INODE } from '../../src/base/units.js'
import { SharedRegions } from '../../src/image/shared-regions.js'
import { type Disk, realDisk } from '../../src/session/disk.js'
import type { Inode } from '../../src/session/namespace-types.js'
import { QuickSync } from '../../src/session/quick-sync.js'
import { Session } from '../../src/session/session.js'
import { temporaryDirectory } from '../support/make-vm.js'
import { Random } from '../support/random.js'
import { base, copyOfSession, crash, FILE, identity } from '../support/session-bed.js'

const ROUNDS = Number(process.env['ISRFS_POWER_ROUNDS'] ?? 20)
const STEPS = 60
const PAGES = 12
const ALWAYS_AT_ONCE = { isDue: () => true, noteAtOnce: () => undefined, noteElsewhere: () => undefined }

/** Keeps a copy of every file as it was when it was last synced. */
class RememberingDisk implements Disk {
  readonly synced = new Map<string, Buffer>()
  readonly write = realDisk.write
  /** what a process that was killed may still have under way elsewhere does not count */
  directory = ''

  async datasync(descriptor: number): Promise<void> {
    const before = this.#read(descriptor) // what is written while the sync runs may not be part of it
    await realDisk.datasync(descriptor)
    this.#keep(before)
  }

  datasyncAtOnce(descriptor: number): void {
    this.#keep(this.#read(descriptor))
  }

  #keep({ file, content }: { file: string; content: Buffer }): void {
    if (file.startsWith(this.directory)) this.synced.set(path.basename(file), content)
  }

  #read(descriptor: number): { file: string; content: Buffer } {
    const file = fs.readlinkSync(`/proc/self/fd/${String(descriptor)}`)
    const { blocks, size } = fs.fstatSync(descriptor)
    const bytes = Buffer.alloc(blocks === 0 ? 0 : Math.min(size, 64 * PAGE_BYTES)) // these tests use no more of a region
    fs.readSync(descriptor, bytes, 0, bytes.length, 0)
    return { file, content: file.includes('regions') ? bytes : fs.readFileSync(`/proc/self/fd/${String(descriptor)}`) }
  }
}

/** What the disk may hold after the cut. Files that are written durably at once (session.json, snapshots) stay. */
function cutPower(directory: string, disk: RememberingDisk, random: Random): string {
  const copy = path.join(temporaryDirectory('power'), 'session')
  copyOfSession(directory, copy)
  for (const name of fs.readdirSync(path.join(copy, 'regions'))) {
    const file = path.join(copy, 'regions', name)
    const old = disk.synced.get(name) ?? Buffer.alloc(0)
    const fd = fs.openSync(file, 'r+')
    for (let page = 0; page < 64; page++) {
      if (random.below(2) === 0) continue
      const bytes = Buffer.alloc(PAGE_BYTES)
      old.subarray(page * PAGE_BYTES, (page + 1) * PAGE_BYTES).copy(bytes) // a file that was never synced has none
      fs.writeSync(fd, bytes, 0, PAGE_BYTES, page * PAGE_BYTES)
    }
    fs.closeSync(fd)
  }
  // Of the last journal at least the synced part is there; a journal that has a successor may have lost its end with it.
  const journals = fs.readdirSync(copy).filter((name) => name.startsWith('journal-'))
  for (const name of journals) {
    const file = path.join(copy, name)
    const synced = disk.synced.get(name) ?? fs.readFileSync(file).subarray(0, name === 'journal-0' ? 40 : 0)
    if (fs.readFileSync(file).equals(synced)) continue
    const written = fs.readFileSync(file)
    let from = 0
    while (from < synced.length && written[from] === synced[from]) from++
    const cut = from + random.below(lastByte(written) - from + 1) // space may be reserved: the synced part is zeros from there on
    const rest = cut < synced.length ? synced.subarray(cut) : Buffer.alloc(0)
    fs.writeFileSync(file, Buffer.concat([written.subarray(0, cut), rest]))
  }
  const identityFile = path.join(copy, 'session.json')
  const content = JSON.parse(fs.readFileSync(identityFile, 'utf8')) as object
  fs.writeFileSync(identityFile, JSON.stringify({ ...content, boot: `boot ${String(random.below(1e9))}` }))
  return copy
}

function lastByte(bytes: Buffer): number {
  let end = bytes.length
  while (end > 0 && bytes[end - 1] === 0) end--
  return end
}

class Model {
  /** per page: values that may be there; the first is the one that was accepted last */
  readonly pages = Array.from({ length: PAGES }, () => [0])

  written(page: number, value: number): void {
    this.pages[page]?.push(value)
  }

  /** What was written before the sync began is accepted when it ends; what came meanwhile may be there. */
  syncing(): () => void {
    const counts = this.pages.map((values) => values.length)
    return () => {
      for (const [page, values] of this.pages.entries()) values.splice(0, (counts[page] ?? 1) - 1)
      counts.fill(1)
    }
  }
}

/** Blocks that were sent to the share before the suspend; the share is one that keeps everything. */
class UploadedBytes {
  readonly #chunks = new Map<string, Buffer>()

  /** The file's one block as it is now. */
  async upload(session: Session, file: Inode): Promise<void> {
    const pages = file.regions.get(0)?.valid[0] ?? 0
    if (pages === 0) return
    const plain = Buffer.alloc(BLOCK_BYTES)
    for (let page = 0; page < PAGES; page++) {
      const bytes = plain.subarray(page * PAGE_BYTES, (page + 1) * PAGE_BYTES)
      if (((pages >>> page) & 1) === 1) session.read(file, bytes, page * PAGE_BYTES)
      else this.read(file, bytes, page)
    }
    const digest = createHash('sha256').update(plain).digest()
    const chunk = digest.toString('hex')
    this.#chunks.set(chunk, plain)
    const place = { encoding: 'raw' as const, chunk, offset: 0, storedBytes: BLOCK_BYTES, digest }
    session.record({
      kind: 'uploaded',
      inode: file.id,
      region: 0,
      blocks: new Map([[0, { place, limitBytes: BLOCK_BYTES }]])
    })
    await session.dropEmptyRegions()
  }

  read(file: Inode | undefined, into: Buffer, page: number): void {
    const chunk = file?.uploaded.get(0)?.place?.chunk
    if (chunk !== undefined) this.#chunks.get(chunk)?.copy(into, 0, page * PAGE_BYTES, (page + 1) * PAGE_BYTES)
  }
}

function check(session: Session, inode: Inode, model: Model, uploads: UploadedBytes): string[] {
  const file = session.namespace.get(inode.id)
  const wrong: string[] = []
  for (const [page, allowed] of model.pages.entries()) {
    const valid = (((file?.regions.get(0)?.valid[0] ?? 0) >>> page) & 1) === 1
    const bytes = Buffer.alloc(PAGE_BYTES)
    if (file !== undefined && valid) session.read(file, bytes, page * PAGE_BYTES)
    else uploads.read(file, bytes, page)
    const value = bytes.readUInt32LE(0)
    const whole = bytes.equals(fill(value))
    if (!whole || !allowed.includes(value))
      wrong.push(`${file?.name ?? 'gone'} page ${String(page)}: ${String(value)}, allowed ${allowed.join()}`)
  }
  return wrong
}

/** Request threads: their writes come between any two steps of the owner. */
function shareRegions(session: Session): SharedRegions {
  const nothing = { share: () => undefined, knownRegion: () => undefined, markUsed: () => undefined, pathOf: () => '' }
  return new SharedRegions({ session, cache: nothing, mayWrite: true, regionsMax: 4 })
}

/** False when it has to be done by the owner. */
function threadWrite({ table }: SharedRegions, { id }: Inode, bytes: Buffer, page: number): boolean {
  const write = (fd: number, from: Uint8Array, at: number, length: number, position: number): boolean =>
    fs.writeSync(fd, from, at, length, position) === length
  return writeShared(table, lowWord(id), highWord(id), bytes, 0, page * PAGE_BYTES, PAGE_BYTES, write)
}

function fill(value: number): Buffer {
  const bytes = Buffer.alloc(PAGE_BYTES)
  for (let at = 0; at < PAGE_BYTES; at += 4) bytes.writeUInt32LE(value, at)
  return bytes
}

test('what was synced survives power cuts, whatever was synced, snapshot and killed in between', async (t) => {
  const random = new Random()
  t.log(`seed ${String(random.seed)}`)
  let value = 0
  let uploaded = 0
  let byThreads = 0
  for (let round = 0; round < ROUNDS; round++) {
    const disk = new RememberingDisk()
    const uploads = new UploadedBytes()
    const options = {
      disk,
      journalBytesMax: 300 + random.below(random.pick([3000, 300_000])),
      journaledPagesMax: random.pick([0, 1, 16]),
      quickSync: random.pick([ALWAYS_AT_ONCE, new QuickSync()])
    }
    let directory = temporaryDirectory('session')
    disk.directory = `${directory}/`
    let session = Session.create(directory, identity, base, options)
    let shared = shareRegions(session)
    const otherId = session.namespace.allocateInode()
    const attributes = { mode: 0o644, uid: 0, gid: 0, atimeNs: 1n, mtimeNs: 1n, ctimeNs: 1n, rdev: 0, target: '' }
    session.record(
      { kind: 'inode', inode: otherId, type: 'file', ...attributes },
      { kind: 'link', parent: ROOT_INODE, name: 'other', inode: otherId }
    )
    await session.sync()
    const ids = [FILE, otherId]
    const models = new Map(ids.map((id) => [id, new Model()]))
    for (let step = 0; step < STEPS; step++) {
      const id = random.pick(ids)
      const file = session.namespace.get(id)
      const model = models.get(id)
      if (file === undefined || model === undefined) throw new Error('a file is gone')
      const action = random.below(22)
      if (action < 14) {
        const page = random.below(Math.min(PAGES, file.sizeBytes / PAGE_BYTES + 1))
        if (threadWrite(shared, file, fill(++value), page)) byThreads++
        else session.write(file, fill(value), page * PAGE_BYTES)
        model.written(page, value)
      } else if (action < 18) {
        const accept = model.syncing()
        const syncing = session.sync(file)
        if (random.below(2) === 0 && file.sizeBytes > 0) {
          session.write(file, fill(++value), 0) // while the sync is under way
          model.written(0, value)
          if (threadWrite(shared, file, fill(++value), 0)) model.written(0, value)
        }
        await syncing
        accept()
      } else if (action === 18) {
        const accepts = [...models.values()].map((each) => each.syncing())
        await session.sync()
        for (const accept of accepts) accept()
      } else if (action === 19) {
        await uploads.upload(session, file)
        uploaded++
      } else {
        directory = crash(directory) // killed, and mounted again in the same boot
        disk.directory = `${directory}/`
        shared.stop()
        session = Session.open(directory, base, options)
        shared = shareRegions(session)
      }
    }
    const again = Session.open(cutPower(directory, disk, random), base)
    shared.stop()
    for (const id of ids) {
      const inode = session.namespace.get(id)
      const model = models.get(id)
      if (inode === undefined || model === undefined) throw new Error('a file is gone')
      t.deepEqual(check(again, inode, model, uploads), [], `seed ${String(random.seed)}, round ${String(round)}`)
    }
    again.destroy()
  }
  t.true(uploaded > ROUNDS)
  t.log(`${String(byThreads)} writes by threads`)
  t.true(byThreads > ROUNDS)
})
