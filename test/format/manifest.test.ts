import fs from 'node:fs'
import path from 'node:path'
import { execFile } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import test from 'ava'
import { FailedError, IntegrityError, NotPublishedError, ShareError } from '../../src/base/errors.js'
import { toGeneration } from '../../src/base/units.js'
import {
  findSession,
  listGenerations,
  publishGeneration,
  readGeneration,
  readNewestGeneration
} from '../../src/format/generations.js'
import {
  encodeManifest,
  type Manifest,
  manifestPaths,
  manifestVersion,
  parseManifest,
  whyNameIsRefused
} from '../../src/format/manifest.js'
import { newVmDescriptor, readVmDescriptor, writeVmDescriptor } from '../../src/format/vm.js'
import { Share } from '../../src/share/share.js'
import { makeVm, temporaryDirectory } from '../support/make-vm.js'

const run = promisify(execFile)
const { generation, share } = makeVm(
  path.join(temporaryDirectory('manifest'), 'vm'),
  new Map([['disk', Buffer.from('content')]])
)
const { manifest } = generation

/** The manifest with its second entry changed as a hostile share could. */
function hostile(changes: object, index = 1): Buffer {
  const copy = JSON.parse(encodeManifest(manifest).toString()) as { entries: object[] }
  copy.entries[index] = { ...copy.entries[index], ...changes }
  return Buffer.from(JSON.stringify(copy))
}

test('a manifest comes back as it was written', (t) => {
  t.deepEqual(parseManifest(encodeManifest(manifest), 'it'), manifest)
})

test('hard links come back as they were written, also in directories that come later; the version says that there are some', (t) => {
  const linked = {
    ...file,
    otherNames: [
      { parent: 1, name: 'b' },
      { parent: 3, name: 'disk' }
    ]
  }
  const entries = [manifest.entries[0], linked, directory] as Manifest['entries']
  t.is(manifestVersion(manifest.entries), 1)
  t.is(manifestVersion(entries), 2)
  const written = { ...manifest, version: 2 as const, nextInode: 4, entries }
  const parsed = parseManifest(encodeManifest(written), 'it')
  t.deepEqual(parsed, written)
  t.deepEqual(
    [...manifestPaths(parsed.entries)].map(([name, { inode }]) => [name, inode]),
    [
      ['', 1],
      ['disk', 2],
      ['b', 2],
      ['late/disk', 2],
      ['late', 3]
    ]
  )
  const names = manyNames(64_999)
  t.is(parseManifest(withNames(names), 'it').entries[1]?.otherNames?.length, 64_999)
})

/** The whole manifest changed. */
function changed(changes: object): Buffer {
  return Buffer.from(JSON.stringify({ ...manifest, ...changes }))
}

/** The manifest with a third entry, in the root directory unless it says otherwise. */
function withEntry(entry: object): Buffer {
  const { size: _size, dataBlocks: _dataBlocks, map: _map, ...attributes } = manifest.entries[1] as FileEntry
  const added = { ...attributes, inode: 3, name: 'third', ...entry }
  return changed({ nextInode: 4, entries: [...manifest.entries, added] })
}

/** The manifest with other names for an entry. */
function withNames(otherNames: object[], version = 2, index = 1): Buffer {
  const entries = manifest.entries.map((entry, at) => (at === index ? { ...entry, otherNames } : entry))
  return changed({ version, entries })
}

function manyNames(count: number): object[] {
  return Array.from({ length: count }, (_, index) => ({ parent: 1, name: `name ${String(index)}` }))
}

type FileEntry = Extract<Manifest['entries'][number], { type: 'file' }>
const file = manifest.entries[1] as FileEntry
const directory = { ...manifest.entries[0], inode: 3, name: 'late', parent: 1 }
const parent = { generation: 1, digest: generation.digest }

const refused: [string, Buffer, RegExp][] = [
  ['"/" in a name', hostile({ name: 'a/b' }), /name with "\/"/],
  ['".."', hostile({ name: '..' }), /means a directory/],
  ['"."', hostile({ name: '.' }), /means a directory/],
  ['no name', hostile({ name: '' }), /means a directory/],
  ['a zero byte', hostile({ name: 'a\0b' }), /name with a zero byte/],
  ['a long name', hostile({ name: 'ä'.repeat(128) }), /name of more than 255 bytes/],
  ['a name that is not UTF-8', hostile({ name: 'a\uFFFD' }), /not valid UTF-8/],
  ['a name with half of a surrogate pair', hostile({ name: 'a\uD800' }), /not valid UTF-8/],
  ['the same name twice', withEntry({ type: 'fifo', name: 'disk' }), /name of another one in its directory/],
  ['a parent that is no directory', withEntry({ type: 'fifo', parent: 2 }), /no directory that was named before it/],
  ['a parent that does not exist', hostile({ parent: 77 }), /no directory that was named before it/],
  ['itself as parent', withEntry({ type: 'directory', parent: 3 }), /no directory that was named before it/],
  [
    'a parent that comes later',
    changed({ nextInode: 4, entries: [manifest.entries[0], { ...file, parent: 3 }, directory] }),
    /no directory that was named before it/
  ],
  ['a second root', withEntry({ type: 'directory', parent: 0 }), /no directory that was named before it/],
  ['an inode number past the next one', hostile({ inode: 1000 }), /inode number that was never given out/],
  ['an inode number twice', withEntry({ type: 'fifo', inode: 2 }), /inode number of another one/],
  ["the root's inode number", hostile({ inode: 1 }), /inode number of another one/],
  ['inode number 0', hostile({ inode: 0 }), /damaged: .* at entries\.1\.inode/],
  ['a next inode number that no region can be named by', changed({ nextInode: 2 ** 40 }), /at nextInode/],
  ['a size over 16 TiB', hostile({ size: 2 ** 45 }), /at entries\.1\.size/],
  ['a negative size', hostile({ size: -1 }), /at entries\.1\.size/],
  ['a size that is no integer', hostile({ size: 0.5 }), /at entries\.1\.size/],
  ['more blocks than the size allows', hostile({ dataBlocks: 5 }), /more blocks than its size allows/],
  ['blocks without a map', hostile({ map: null }), /block map that does not fit its blocks/],
  ['a map without blocks', hostile({ dataBlocks: 0 }), /block map that does not fit its blocks/],
  ['a map past the end of a chunk', hostile({ map: { ...file.map, offset: 2 ** 24 } }), /past the end of a chunk/],
  ['a map of a gigabyte', hostile({ map: { ...file.map, plainBytes: 2 ** 30 } }), /at entries\.1\.map\.plainBytes/],
  ['a chunk name that is a path', hostile({ map: { ...file.map, chunk: '../../etc' } }), /at entries\.1\.map\.chunk/],
  ['a mode with type bits', hostile({ mode: 0o100644 }), /at entries\.1\.mode/],
  ['the owner that means "unchanged"', hostile({ uid: 0xffffffff }), /at entries\.1\.uid/],
  ['a time of more than 64 bits', hostile({ mtime: '9999999999999999999' }), /64-bit number at entries\.1\.mtime/],
  ['a time that is no number', hostile({ atime: 'now' }), /at entries\.1\.atime/],
  ['an unknown type', hostile({ type: 'door' }), /at entries\.1\.type/],
  ['a link without a target', withEntry({ type: 'symlink', target: '' }), /link without a target/],
  ['a link with a zero byte', withEntry({ type: 'symlink', target: 'a\0' }), /target has a zero byte/],
  ['a link that is too long', withEntry({ type: 'symlink', target: 'x'.repeat(4096) }), /target of more than 4095/],
  ['a root that is a file', hostile({ type: 'file', size: 0, dataBlocks: 0, map: null }, 0), /root directory/],
  ['a root with a name', hostile({ name: 'root' }, 0), /root directory/],
  ['no entries', changed({ entries: [] }), /at entries/],
  ['a parent that is not older', changed({ parent }), /parent that is not older/],
  ['generation 0', changed({ generation: 0 }), /at generation/],
  ['a digest that is none', changed({ generation: 2, parent: { ...parent, digest: 'AB' } }), /at parent\.digest/],
  ['another version', changed({ version: 3 }), /^generation 1 has format version 3; this isrfs reads version 1 and 2$/],
  ['hard links in a version that knows none', withNames([{ parent: 1, name: 'b' }], 1), /its version does not know/],
  ['other names that are none', withNames([]), /at entries\.1\.otherNames/],
  ['another name in a directory that does not exist', withNames([{ parent: 77, name: 'b' }]), /is in no directory/],
  ['another name in a file', withNames([{ parent: 2, name: 'b' }]), /is in no directory/],
  ['another name above the root', withNames([{ parent: 0, name: 'b' }]), /at entries\.1\.otherNames\.0\.parent/],
  ['another name that is taken', withNames([{ parent: 1, name: 'disk' }]), /name of another one in its directory/],
  [
    'another name twice',
    withNames([
      { parent: 1, name: 'b' },
      { parent: 1, name: 'b' }
    ]),
    /name of another one in its directory/
  ],
  ['another name with "/"', withNames([{ parent: 1, name: 'a/b' }]), /name with "\/"/],
  ['another name ".."', withNames([{ parent: 1, name: '..' }]), /means a directory/],
  ['another name that is too long', withNames([{ parent: 1, name: 'ä'.repeat(128) }]), /name of more than 255 bytes/],
  ['more names than a file may have', withNames(manyNames(65_000)), /at entries\.1\.otherNames/],
  ['a root with two names', withNames([{ parent: 1, name: 'b' }], 2, 0), /is a directory with several names/],
  [
    'a directory with two names, one of them in itself',
    changed({
      version: 2,
      nextInode: 4,
      entries: [...manifest.entries, { ...directory, otherNames: [{ parent: 3, name: 'b' }] }]
    }),
    /is a directory with several names/
  ],
  ['another format', changed({ format: 'tar' }), /at format/],
  ['no JSON', Buffer.from('{'), /it is not JSON/],
  ['nothing', Buffer.alloc(0), /it is not JSON/],
  ['a prototype', Buffer.from('{"__proto__": {"format": "isrfs-manifest", "version": 1}}'), /at format/]
]
for (const [title, bytes, message] of refused) {
  test(`refused: ${title}`, (t) => {
    const error = t.throws(() => parseManifest(bytes, 'generation 1'), { instanceOf: IntegrityError, message })
    t.regex(error.message, /^generation 1 /, 'says what was read')
  })
}

test('what is unknown is ignored, what steers a terminal is read as "?", nothing reaches a prototype', (t) => {
  const entries = manifest.entries.map((entry) => ({ ...entry, shoeSize: 42 }))
  t.deepEqual(parseManifest(changed({ more: 1, entries }), 'it'), manifest)
  const host = 'box\u001b]0;title\u0007\u202e'
  t.is(parseManifest(changed({ client: { ...manifest.client, host } }), 'it').client.host, 'box?]0;title??')
  const name = '__proto__'
  const parsed = parseManifest(withEntry({ type: 'symlink', name, target: '/etc/passwd' }), 'it')
  t.is(parsed.entries[2]?.name, name)
  const polluted = encodeManifest(manifest).toString().replace('{', '{"__proto__": {"isRoot": true},')
  t.is((parseManifest(Buffer.from(polluted), 'it') as { isRoot?: boolean }).isRoot, undefined)
})

test('names that are refused are refused everywhere by the same rule', (t) => {
  t.is(whyNameIsRefused('vmware.log'), undefined)
  t.truthy(whyNameIsRefused('..'))
})

test('a number is won once; the loser is told who has it, and a damaged generation is never shown', (t) => {
  const next = {
    ...manifest,
    generation: toGeneration(2),
    parent: { generation: 1, digest: generation.digest },
    session: '1111111111111111'
  }
  const second = publishGeneration(share, next)
  t.is(readNewestGeneration(share).digest, second.digest)
  t.is(publishGeneration(share, next).digest, second.digest, 'the same content is the same generation')
  t.throws(() => publishGeneration(share, { ...next, session: '2222222222222222' }), {
    instanceOf: NotPublishedError,
    message: /published by test/
  })
  t.deepEqual(listGenerations(share), [toGeneration(1), toGeneration(2)])
  t.is(findSession(share, '1111111111111111', 0)?.number, toGeneration(2))
  t.is(findSession(share, 'abcdef0123456789', 1), undefined)
  t.throws(() => readGeneration(share, toGeneration(5)), {
    instanceOf: FailedError,
    message: /there is no generation 5/
  })
  const file = share.pathOf('generations/00000002/manifest.json')
  fs.writeFileSync(file, fs.readFileSync(file, 'utf8').replace('"gid": 0', '"gid": 7'))
  t.throws(() => readGeneration(share, toGeneration(2)), {
    instanceOf: IntegrityError,
    message: /does not have its digest/
  })
  fs.writeFileSync(share.pathOf('generations/00000002/manifest.sha256'), 'nonsense')
  t.throws(() => readGeneration(share, toGeneration(2)), { instanceOf: IntegrityError, message: /is not a digest/ })
  fs.rmSync(share.pathOf('generations'), { recursive: true })
  t.throws(() => readNewestGeneration(share), { instanceOf: IntegrityError })
})

test('a generation that is listed but not whole is damage, an absent one is a wrong number', (t) => {
  for (const part of ['manifest.json', 'manifest.sha256']) {
    const vm = makeVm(path.join(temporaryDirectory('parts'), 'vm'), new Map())
    fs.rmSync(vm.share.pathOf(`generations/00000001/${part}`))
    const error = t.throws(() => readNewestGeneration(vm.share), { instanceOf: IntegrityError, message: /is missing/ })
    t.true(error.message.includes(part))
    t.regex(error.hint ?? '', /older generation/)
  }
  const vm = makeVm(path.join(temporaryDirectory('number'), 'vm'), new Map())
  fs.renameSync(vm.share.pathOf('generations/00000001'), vm.share.pathOf('generations/00000009'))
  t.throws(() => readNewestGeneration(vm.share), {
    instanceOf: IntegrityError,
    message: /says that it is generation 1/
  })
  for (const name of ['7', '000000010', 'abc', '0000001x']) fs.mkdirSync(vm.share.pathOf(`generations/${name}`))
  t.deepEqual(listGenerations(vm.share), [toGeneration(9)])
})

test('nothing is published that a reader would refuse, and no number that a listing would not show', (t) => {
  const next = { ...manifest, generation: toGeneration(2), parent }
  const entries = manifest.entries.map((entry) => (entry.inode === 2 ? { ...entry, name: 'a/b' } : entry))
  const vm = makeVm(path.join(temporaryDirectory('refused'), 'vm'), new Map())
  t.throws(() => publishGeneration(vm.share, { ...next, entries }), { instanceOf: IntegrityError })
  t.throws(() => publishGeneration(vm.share, { ...next, generation: 100_000_000 }), {
    instanceOf: FailedError,
    message: /no number left/
  })
  t.deepEqual(vm.share.list('generations'), ['00000001'])
})

test('of many processes that publish the same number exactly one does', async (t) => {
  const vm = makeVm(path.join(temporaryDirectory('race'), 'vm'), new Map())
  const script = fileURLToPath(new URL('../support/publish-generation.js', import.meta.url))
  for (const number of ['2', '3', '4']) {
    const sessions = ['aaaaaaaa', 'bbbbbbbb', 'cccccccc', 'dddddddd']
    const answers = await Promise.all(
      sessions.map(async (session) => (await run(process.execPath, [script, vm.share.root, number, session])).stdout)
    )
    const winners = sessions.filter((_, index) => answers[index] === 'won\n')
    t.is(winners.length, 1, answers.join())
    t.is(readNewestGeneration(vm.share).manifest.session, String(winners[0]))
    t.deepEqual(vm.share.list('tmp'), [])
  }
})

test('vm.json: missing, foreign, newer and damaged ones are told apart', (t) => {
  const other = new Share(temporaryDirectory('vm'))
  t.throws(() => readVmDescriptor(other), { instanceOf: FailedError, message: /there is no VM/ })
  const descriptor = newVmDescriptor()
  writeVmDescriptor(other, descriptor)
  t.deepEqual(readVmDescriptor(other), descriptor)
  other.write('vm.json', Buffer.from(JSON.stringify({ ...descriptor, version: 3 })))
  t.throws(() => readVmDescriptor(other), { instanceOf: IntegrityError, message: /version 3/ })
  other.write('vm.json', Buffer.from(JSON.stringify({ ...descriptor, blockBytes: 4096 })))
  t.throws(() => readVmDescriptor(other), { instanceOf: IntegrityError })
  other.write('vm.json', Buffer.alloc(100_000))
  t.throws(() => readVmDescriptor(other), { instanceOf: IntegrityError, message: /more than/ })
  fs.rmSync(other.pathOf('vm.json'))
  fs.symlinkSync('/etc/passwd', other.pathOf('vm.json'))
  t.throws(() => readVmDescriptor(other), { instanceOf: ShareError, message: /symbolic link/ })
})
