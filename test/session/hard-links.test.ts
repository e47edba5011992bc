/**
 * Files with several names in the session: the tree's operations in random order against a model of plain maps, across
 * kills, torn journals, power cuts, snapshots and manifests. Whatever happened, the session shows a state that the model has had.
 */
import fs from 'node:fs'
import path from 'node:path'
import test, { type ExecutionContext } from 'ava'
import { IntegrityError, PosixError } from '../../src/base/errors.js'
import { PAGE_BYTES, ROOT_INODE, toGeneration, toInodeId } from '../../src/base/units.js'
import { manifestEntries, sameEntries } from '../../src/commit/manifest-of.js'
import { encodeManifest, manifestPaths, manifestVersion, parseManifest } from '../../src/format/manifest.js'
import { baseImageOf } from '../../src/image/base-image.js'
import { ByteReader, ByteWriter } from '../../src/session/bytes.js'
import { Namespace } from '../../src/session/namespace.js'
import type { Inode } from '../../src/session/namespace-types.js'
import { type Disk, realDisk } from '../../src/session/disk.js'
import { JOURNAL_HEADER_BYTES } from '../../src/session/frame.js'
import { decodeRecord, encodeRecord } from '../../src/session/record-codec.js'
import { Session } from '../../src/session/session.js'
import { decodeSnapshot, encodeSnapshot } from '../../src/session/snapshot.js'
import { Tree } from '../../src/tree/tree.js'
import { base, crash, create, FILE, identity, powerCut } from '../support/session-bed.js'
import { temporaryDirectory } from '../support/make-vm.js'
import { Random } from '../support/random.js'
import { MemoryImage, MemorySession } from '../tree/stand-in.js'

const ROUNDS = Number(process.env['ISRFS_LINK_ROUNDS'] ?? 4)
const STEPS = 120
const DIRECTORIES = ['', 'd', 'e']
const NAMES = ['a', 'b', 'c', 'f']
const ME = { mode: 0o644, uid: 0, gid: 0 }

/** Every name with the number of its file and what is in it; and that the inodes know the same of themselves. */
function stateOf(session: { readonly namespace: Namespace; read?: Session['read'] }): Map<string, string> {
  const { namespace } = session
  const state = new Map<string, string>()
  const found = new Map<Inode, string[]>()
  const walk = (directory: Inode, above: string): void => {
    for (const [name, id] of directory.children ?? []) {
      const inode = namespace.get(id)
      if (inode === undefined) throw new Error(`${above}${name} leads nowhere`)
      found.set(inode, [...(found.get(inode) ?? []), `${String(directory.id)}/${name}`])
      state.set(`${above}${name}`, `${String(id)} ${String(valueOf(session, inode))}`)
      if (inode.children !== undefined) walk(inode, `${above}${name}/`)
    }
  }
  const root = namespace.get(ROOT_INODE)
  if (root !== undefined) walk(root, '')
  for (const inode of namespace.inodes()) {
    if (inode.id === ROOT_INODE) continue
    const known = inode.parent === 0 ? [] : [inode, ...inode.otherNames.map((other) => ({ ...other }))]
    const names = known.map(({ parent, name }) => `${String(parent)}/${name}`).sort()
    if (names.join() !== (found.get(inode) ?? []).sort().join()) {
      throw new Error(`inode ${String(inode.id)} believes in ${names.join()}; found ${String(found.get(inode))}`)
    }
    if (inode.parent === 0 && inode.otherNames.length > 0) throw new Error('a nameless inode with names')
  }
  return state
}

function valueOf({ read }: { read?: Session['read'] }, inode: Inode): number {
  if (inode.type !== 'file' || inode.sizeBytes === 0 || read === undefined) return 0
  const page = Buffer.alloc(PAGE_BYTES)
  read(inode, page, 0)
  return page.readUInt32LE(0)
}

function viewOf(session: Session): Parameters<typeof stateOf>[0] {
  return { namespace: session.namespace, read: (inode, into, offset) => session.read(inode, into, offset) }
}

const text = (state: Map<string, string>): string => [...state].sort().join(' | ')

/** Remembers how much of each journal is known to be on the disk. */
class JournalDisk implements Disk {
  readonly synced = new Map<string, number>()
  /** a session that was killed may still have a sync under way, which does not count */
  directory = ''
  readonly write = realDisk.write

  async datasync(descriptor: number): Promise<void> {
    const file = fs.readlinkSync(`/proc/self/fd/${String(descriptor)}`)
    const end = file.includes('/journal-') ? endOf(fs.readFileSync(file)) : 0
    await realDisk.datasync(descriptor)
    if (path.dirname(file) === this.directory) this.synced.set(path.basename(file), end)
  }
}

/** Space is reserved behind what was appended. */
function endOf(bytes: Buffer): number {
  let end = bytes.length
  while (end > 0 && bytes[end - 1] === 0) end--
  return end
}

/** What the names are, without a tree: path -> file, file -> value. */
class Model {
  readonly names = new Map<string, number>()
  readonly values = new Map<number, number>()

  text(directories: ReadonlyMap<string, number>): string {
    const state = new Map<string, string>()
    for (const [name, id] of directories) if (name !== '') state.set(name, `${String(id)} 0`)
    for (const [name, id] of this.names) state.set(name, `${String(id)} ${String(this.values.get(id) ?? 0)}`)
    return text(state)
  }

  linksOf(id: number): number {
    return [...this.names.values()].filter((each) => each === id).length
  }
}

interface Place {
  readonly parent: number
  readonly name: string
  readonly path: string
}

function errnoOf(action: () => unknown): string {
  try {
    action()
    return 'ok'
  } catch (error) {
    if (error instanceof PosixError) return error.errno
    throw error
  }
}

/** One random operation on both; they have to agree about its answer. */
function step(t: ExecutionContext, random: Random, tree: Tree, model: Model, pick: () => Place, why: string): void {
  const [from, to] = [pick(), pick()]
  const [source, target] = [model.names.get(from.path), model.names.get(to.path)]
  const at = [toInodeId(from.parent), toInodeId(to.parent)] as const
  switch (random.below(6)) {
    case 0: {
      const answer = errnoOf(() => {
        const { inode } = tree.create(at[0], from.name, ME)
        model.names.set(from.path, inode)
      })
      t.is(answer, source === undefined ? 'ok' : 'EEXIST', why)
      return
    }
    case 1:
    case 2: {
      if (source === undefined) return
      const answer = errnoOf(() => tree.link(toInodeId(source), at[1], to.name))
      t.is(answer, target === undefined ? 'ok' : 'EEXIST', why)
      if (answer === 'ok') model.names.set(to.path, source)
      break
    }
    case 3: {
      const answer = errnoOf(() => tree.unlink(at[0], from.name))
      t.is(answer, source === undefined ? 'ENOENT' : 'ok', why)
      model.names.delete(from.path)
      break
    }
    default: {
      const flags = random.below(3)
      const answer = errnoOf(() => tree.rename(at[0], from.name, at[1], to.name, flags))
      const expected =
        source === undefined
          ? 'ENOENT'
          : flags === 1 && target !== undefined
            ? 'EEXIST'
            : flags === 2 && target === undefined
              ? 'ENOENT'
              : 'ok'
      t.is(answer, expected, why)
      if (answer !== 'ok' || source === undefined || source === target) break
      model.names.delete(from.path)
      if (flags === 2 && target !== undefined) model.names.set(from.path, target)
      model.names.set(to.path, source)
    }
  }
  for (const id of [source, target]) {
    if (id !== undefined && model.linksOf(id) > 0) t.is(tree.getattr(toInodeId(id)).nlink, model.linksOf(id), why)
  }
}

test('names, renames and removals of hard links survive kills, torn journals, power cuts and snapshots', async (t) => {
  const random = new Random()
  t.log(`seed ${String(random.seed)}`)
  let linked = 0
  let torn = 0
  for (let round = 0; round < ROUNDS; round++) {
    const disk = new JournalDisk()
    const options = { disk, journalBytesMax: random.pick([2000, 20_000, 2 ** 26]) }
    let directory = temporaryDirectory('links')
    disk.directory = directory
    let session = Session.create(directory, identity, base, options)
    const treeOf = (): Tree =>
      new Tree(session, new MemoryImage(new MemorySession()), { readOnly: false, writeback: true })
    let tree = treeOf()
    const directories = new Map<string, number>([['', ROOT_INODE]])
    for (const name of DIRECTORIES.slice(1)) directories.set(name, tree.mkdir(ROOT_INODE, name, ME).inode)
    const model = new Model()
    model.names.set('disk', FILE)
    const pick = (): Place => {
      const above = random.pick(DIRECTORIES)
      const name = random.pick(NAMES)
      return { parent: directories.get(above) ?? 1, name, path: above === '' ? name : `${above}/${name}` }
    }
    await session.sync()
    const had = [model.text(directories)]
    let value = 0
    for (let index = 0; index < STEPS; index++) {
      const why = `seed ${String(random.seed)}, round ${String(round)}, step ${String(index)}`
      if (random.below(4) > 0) step(t, random, tree, model, pick, why)
      else if (model.names.size > 0) {
        const id = random.pick([...model.names.values()])
        const file = session.namespace.get(toInodeId(id))
        if (file === undefined) throw new Error(why)
        const bytes = Buffer.alloc(PAGE_BYTES)
        bytes.writeUInt32LE(++value)
        session.write(file, bytes, 0)
        model.values.set(id, value)
      }
      t.is(text(stateOf(viewOf(session))), model.text(directories), why)
      had.push(model.text(directories))
      linked += Math.max(0, model.names.size - new Set(model.names.values()).size)
      const event = random.below(12)
      if (event === 0) {
        directory = crash(directory)
        disk.directory = directory
        session = Session.open(directory, base, options)
        tree = treeOf()
        t.is(text(stateOf(viewOf(session))), model.text(directories), `${why}: killed`)
      } else if (event === 1) {
        await session.sync()
        const again = Session.open(powerCut(directory), base)
        t.is(text(stateOf(viewOf(again))), model.text(directories), `${why}: power cut`)
        again.destroy()
      } else if (event === 2 && index > 20) {
        const copy = crash(directory)
        const journals = fs.readdirSync(copy).filter((name) => name.startsWith('journal-'))
        const newest = `journal-${String(Math.max(...journals.map((name) => Number(name.slice(8)))))}`
        const end = endOf(fs.readFileSync(path.join(copy, newest)))
        const synced = disk.synced.get(newest) ?? JOURNAL_HEADER_BYTES
        fs.truncateSync(path.join(copy, newest), synced + random.below(end - synced + 1))
        const again = Session.open(copy, base)
        const seen = text(stateOf(viewOf(again)))
        // bytes of a page may be newer than the record that tells of its file: compare names
        const names = (state: string): string => state.replaceAll(/ \d+(?= \||$)/g, '')
        if (!had.map(names).includes(names(seen))) t.fail(`${why}: torn\n${seen}\n${had.slice(-8).join('\n')}`)
        again.destroy()
        torn++
      } else if (event === 3) {
        const entries = manifestEntries(session.namespace, new Map())
        const [root] = entries
        if (root === undefined) throw new Error(why)
        const manifest = parseManifest(
          encodeManifest({ ...manifestOf(entries), nextInode: session.namespace.nextInode }),
          why
        )
        const copy = new Namespace(baseImageOf(manifest))
        t.deepEqual([...stateOf({ namespace: copy }).keys()].sort(), [...stateOf(viewOf(session)).keys()].sort(), why)
        t.true(sameEntries(manifestEntries(copy, new Map()), entries), why)
        t.deepEqual(
          [...manifestPaths(manifest.entries)]
            .map(([name]) => name)
            .filter((name) => name !== '')
            .sort(),
          [...stateOf(viewOf(session)).keys()].sort(),
          why
        )
      }
    }
    session.destroy()
  }
  t.true(linked > ROUNDS * 20)
  t.true(torn > 0)
  t.log(`${String(torn)} torn journals`)
})

function manifestOf(entries: ReturnType<typeof manifestEntries>): Parameters<typeof encodeManifest>[0] {
  return {
    format: 'isrfs-manifest',
    version: manifestVersion(entries),
    vm: '0123456789abcdef',
    generation: toGeneration(1),
    parent: null,
    session: 'abcdef0123456789',
    created: '2026-11-23T00:00:00.000Z',
    client: { id: '0123456789abcdef', host: 'box' },
    changedBytes: 0,
    sentBytes: 0,
    nextInode: 100,
    entries
  }
}

test('a record of a hard link has a number of its own, which an isrfs that knows none of them refuses', (t) => {
  const writer = new ByteWriter(64)
  const record = { kind: 'link', parent: ROOT_INODE, name: 'b', inode: FILE } as const
  encodeRecord(writer, record)
  encodeRecord(writer, { ...record, hardLink: true })
  t.is(writer.bytes[0], 2)
  t.is(writer.bytes[writer.length / 2], 9)
  const reader = new ByteReader(writer.bytes, 0, writer.length)
  t.deepEqual(decodeRecord(reader), record)
  t.deepEqual(decodeRecord(reader), { ...record, hardLink: true })
})

test('a snapshot has the old version while no file has two names, and keeps the order of names when one has', (t) => {
  const { session, file } = create()
  t.is(encodeSnapshot(session.namespace, 7).readUInt32LE(10), 2)
  for (const name of ['z', 'a', 'm']) {
    session.record({ kind: 'link', parent: ROOT_INODE, name, inode: FILE, hardLink: true })
  }
  const bytes = encodeSnapshot(session.namespace, 7)
  t.is(bytes.readUInt32LE(10), 3)
  const again = new Namespace(decodeSnapshot(bytes, 7, base))
  t.deepEqual(again.get(FILE)?.otherNames, file.otherNames)
  t.deepEqual(
    file.otherNames.map(({ name }) => name),
    ['z', 'a', 'm']
  )
  for (const name of ['a', 'disk']) session.record({ kind: 'unlink', parent: ROOT_INODE, name })
  t.is(file.name, 'z')
  session.record({ kind: 'unlink', parent: ROOT_INODE, name: 'm' })
  t.is(encodeSnapshot(session.namespace, 7).readUInt32LE(10), 2)
  session.destroy()
})

test('a journal that gives a directory two names, or a name to two files, is damage', (t) => {
  for (const [name, message] of [
    ['other', /a directory with two names/],
    ['disk', /a name that is taken/]
  ] as const) {
    const { directory, session } = create()
    const id = session.namespace.allocateInode()
    const attributes = { mode: 0o755, uid: 0, gid: 0, atimeNs: 0n, mtimeNs: 0n, ctimeNs: 0n, rdev: 0, target: '' }
    session.record(
      { kind: 'inode', inode: id, type: 'directory', ...attributes },
      { kind: 'link', parent: ROOT_INODE, name: 'directory', inode: id }
    )
    t.throws(() => session.record({ kind: 'link', parent: ROOT_INODE, name, inode: id, hardLink: true }), { message })
    const error = t.throws(() => Session.open(crash(directory), base), { instanceOf: IntegrityError })
    t.regex(error.message, /does not fit/)
  }
})

test('a file that lost one of its names keeps its bytes, also after the next start', async (t) => {
  const { directory, session, file } = create()
  session.write(file, Buffer.alloc(PAGE_BYTES, 7), 0)
  session.record({ kind: 'link', parent: ROOT_INODE, name: 'second', inode: FILE, hardLink: true })
  session.record({ kind: 'unlink', parent: ROOT_INODE, name: 'disk' })
  await session.sync()
  const again = Session.open(powerCut(directory), base)
  const kept = again.namespace.get(FILE)
  t.is(kept?.name, 'second')
  const page = Buffer.alloc(PAGE_BYTES)
  if (kept !== undefined) again.read(kept, page, 0)
  t.true(page.equals(Buffer.alloc(PAGE_BYTES, 7)))
  t.true(fs.existsSync(again.regionPath(FILE, 0)))
  again.destroy()
})
