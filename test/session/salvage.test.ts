/** Damaged copies of sessions, cut so far that they can be opened: what was before the damage is there. */
import fs from 'node:fs'
import path from 'node:path'
import { crc32 } from 'node:zlib'
import test from 'ava'
import { FailedError, IntegrityError } from '../../src/base/errors.js'
import { PAGE_BYTES, ROOT_INODE, toInodeId } from '../../src/base/units.js'
import { salvageSnapshot } from '../../src/session/damaged-snapshot.js'
import { findFrames } from '../../src/session/frame.js'
import { readSessionFile } from '../../src/session/identity.js'
import { Namespace } from '../../src/session/namespace.js'
import { salvageCopy } from '../../src/session/salvage.js'
import { Session } from '../../src/session/session.js'
import { encodeSnapshot } from '../../src/session/snapshot.js'
import { Random } from '../support/random.js'
import { base, crash, create, FILE, fileOf, powerCut } from '../support/session-bed.js'

const page = (fill: number): Buffer => Buffer.alloc(PAGE_BYTES, fill)

function flip(file: string, at: number): void {
  const bytes = fs.readFileSync(file)
  bytes[at] = (bytes[at] ?? 0) ^ 1
  fs.writeFileSync(file, bytes)
}

/** Where a change begins in journal-0. */
function frameAt(directory: string, number: number): number {
  const salt = readSessionFile(directory)?.salt ?? 0
  const frames = [...findFrames(fs.readFileSync(path.join(directory, 'journal-0')), 0, salt)]
  const frame = frames.find(({ sequence }) => sequence === number)
  return (frame?.payloadStart ?? 0) - 36
}

/** The first bytes of the pages of the file. */
function pagesOf(session: Session): number[] {
  const file = fileOf(session)
  return Array.from({ length: file.sizeBytes / PAGE_BYTES }, (_, index) => {
    const bytes = Buffer.alloc(PAGE_BYTES)
    session.read(file, bytes, index * PAGE_BYTES)
    return bytes[0] ?? 0
  })
}

test('what is before a damaged frame stays, what comes after it is told', async (t) => {
  const { directory, session, file } = create()
  for (const fill of [1, 2, 3, 4]) {
    session.write(file, page(fill), (fill - 1) * PAGE_BYTES)
    await session.sync(file)
  }
  for (const copy of [crash(directory), powerCut(directory)]) {
    flip(path.join(copy, 'journal-0'), frameAt(copy, 5) + 40) // the third write: each is a change and a barrier
    t.throws(() => Session.open(copy, base), { instanceOf: IntegrityError, message: /journal-0 is damaged/ })
    const lost = salvageCopy(copy, base)
    t.is(lost.length, 1)
    t.regex(lost[0] ?? '', /journal-0 is damaged behind change 4 .* 1 later changes .* of: disk, were left out/)
    const salvaged = Session.open(copy, base)
    t.deepEqual(pagesOf(salvaged), [1, 2])
    await salvaged.close()
    t.deepEqual(salvageCopy(copy, base), [], 'it is whole now')
  }
  await session.close()
})

test('after a power cut a sync that came after the damage still vouches for pages before it', async (t) => {
  const { directory, session, file } = create({ journaledPagesMax: 0 })
  session.write(file, page(1), 0)
  session.write(file, page(2), PAGE_BYTES)
  session.record({ kind: 'size', inode: FILE, sizeBytes: 3 * PAGE_BYTES, baseLimitBytes: 0 })
  session.write(file, page(7), 0) // the page is valid: no record, and its checksum is that of what it was
  await session.sync(file)
  session.record({ kind: 'size', inode: FILE, sizeBytes: 4 * PAGE_BYTES, baseLimitBytes: 0 })
  await session.sync(file)
  const copy = powerCut(directory)
  flip(path.join(copy, 'journal-0'), frameAt(copy, 3) + 40)
  t.is(salvageCopy(copy, base).length, 1)
  const salvaged = Session.open(copy, base)
  t.is(salvaged.recovered?.droppedPages, 0)
  t.deepEqual(pagesOf(salvaged), [7, 2])
  await salvaged.close()
  await session.close()
})

test('a journal whose beginning is damaged loses nothing, one that is missing what was in it', async (t) => {
  const { directory, session, file } = create()
  session.write(file, page(1), 0)
  await session.sync(file)
  const mended = crash(directory)
  flip(path.join(mended, 'journal-0'), 20)
  t.regex(salvageCopy(mended, base).join(), /beginning of journal-0 .* nothing of it is lost/)
  const salvaged = Session.open(mended, base)
  t.deepEqual(pagesOf(salvaged), [1])
  await salvaged.close()
  const missing = crash(directory)
  fs.rmSync(path.join(missing, 'journal-0'))
  t.regex(salvageCopy(missing, base).join(), /journal-0 is damaged behind change 0/)
  const empty = Session.open(missing, base)
  t.deepEqual(pagesOf(empty), [])
  await empty.close()
  await session.close()
})

test('a torn tail is no damage, and an unknown version none either', async (t) => {
  const { directory, session, file } = create()
  session.write(file, page(1), 0)
  await session.sync(file)
  session.write(file, page(2), PAGE_BYTES)
  const torn = crash(directory)
  flip(path.join(torn, 'journal-0'), frameAt(torn, 3) + 40)
  t.deepEqual(salvageCopy(torn, base), [])
  const newer = powerCut(directory)
  await Session.open(newer, base).close() // takes a snapshot
  const snapshot = path.join(newer, 'snapshot-1')
  const { salt = 0 } = readSessionFile(newer) ?? {}
  fs.writeFileSync(snapshot, withVersion(encodeSnapshot(new Namespace(base), salt), 9))
  t.throws(() => salvageCopy(newer, base), { instanceOf: FailedError, message: /version 9/ })
  await session.close()
})

test('of a damaged snapshot all is taken that makes sense, wherever the damage is', async (t) => {
  const { directory, session, file } = create()
  session.record(
    {
      kind: 'inode',
      inode: toInodeId(3),
      type: 'file',
      mode: 0o644,
      uid: 0,
      gid: 0,
      atimeNs: 1n,
      mtimeNs: 1n,
      ctimeNs: 1n,
      rdev: 0,
      target: ''
    },
    { kind: 'link', parent: ROOT_INODE, inode: toInodeId(3), name: 'new' }
  )
  session.write(file, page(1), 0)
  await session.sync()
  const cut = powerCut(directory)
  const opened = Session.open(cut, base) // takes a snapshot
  opened.write(fileOf(opened), page(2), PAGE_BYTES)
  await opened.sync()
  await opened.close()
  const size = fs.statSync(path.join(cut, 'snapshot-1')).size
  const random = new Random()
  t.log(`seed ${String(random.seed)}`)
  let whole = 0
  for (let round = 0; round < 60; round++) {
    const copy = crash(cut)
    flip(path.join(copy, 'snapshot-1'), random.below(size))
    t.throws(() => Session.open(copy, base), { instanceOf: IntegrityError, message: /snapshot-1 is damaged/ })
    t.regex(salvageCopy(copy, base).join(), /snapshot-1 is damaged, nobody knows where/)
    const salvaged = Session.open(copy, base)
    if (salvaged.namespace.get(FILE) !== undefined && pagesOf(salvaged).join() === '1,2') whole++
    await salvaged.close()
  }
  t.true(whole > 30, `one bit costs little: ${String(whole)}`)
  await session.close()
})

test('inodes without a place in the tree get one, and files that a cut snapshot did not come to are those of the base', (t) => {
  const namespace = new Namespace(base)
  const bytes = encodeSnapshot(namespace, 1)
  const { image, isComplete } = salvageSnapshot(bytes.subarray(0, bytes.length - 60), base)
  t.false(isComplete)
  t.deepEqual(
    [...image.inodes].map(({ name }) => name),
    ['', 'disk']
  )
  const [root, disk] = base.inodes as [never, object]
  const odd = { nextInode: 9, inodes: [root, { ...disk, parent: toInodeId(7) }] as never[] }
  const damaged = Buffer.from(encodeSnapshotOf(odd))
  const { image: placed, moved } = salvageSnapshot(damaged, base)
  t.deepEqual(moved, ['salvaged-2'])
  t.notThrows(() => new Namespace(placed))
})

/** A snapshot of a tree that no namespace would hold. */
function encodeSnapshotOf({ inodes, nextInode }: { inodes: readonly never[]; nextInode: number }): Buffer {
  const plain = inodes.map((inode: object) => ({
    otherNames: [],
    regions: new Map(),
    uploaded: new Map(),
    baseLimitBytes: 0,
    ...inode
  }))
  return encodeSnapshot({ inodes: () => plain.values(), nextInode } as never, 1)
}

/** With another version, and the checksum that goes with it. */
function withVersion(snapshot: Buffer, version: number): Buffer {
  const bytes = Buffer.from(snapshot)
  bytes.writeUInt32LE(version, 2 + 'ISRFSNAP'.length)
  bytes.writeUInt32LE(crc32(bytes.subarray(0, -4)), bytes.length - 4)
  return bytes
}
