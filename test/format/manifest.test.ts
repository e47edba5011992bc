import fs from 'node:fs'
import path from 'node:path'
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
import { encodeManifest, parseManifest, whyNameIsRefused } from '../../src/format/manifest.js'
import { newVmDescriptor, readVmDescriptor, writeVmDescriptor } from '../../src/format/vm.js'
import { Share } from '../../src/share/share.js'
import { makeVm, temporaryDirectory } from '../support/make-vm.js'

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

const refused: [string, Buffer, RegExp][] = [
  ['"/" in a name', hostile({ name: 'a/b' }), /name with "\/"/],
  ['".."', hostile({ name: '..' }), /means a directory/],
  ['no name', hostile({ name: '' }), /means a directory/],
  ['a zero byte', hostile({ name: 'a\0b' }), /zero byte/],
  ['a long name', hostile({ name: 'ä'.repeat(128) }), /255 bytes/],
  ['a name that is not UTF-8', hostile({ name: 'a\uFFFD' }), /UTF-8/],
  ['a parent that is no directory', hostile({ parent: 2 }), /no directory/],
  ['a parent that does not exist', hostile({ parent: 77 }), /no directory/],
  ['an inode number past the next one', hostile({ inode: 1000 }), /cannot have/],
  ["the root's inode number", hostile({ inode: 1 }), /cannot have/],
  ['a size over 16 TiB', hostile({ size: 2 ** 45 }), /damaged/],
  ['a negative size', hostile({ size: -1 }), /damaged/],
  ['more blocks than the size allows', hostile({ dataBlocks: 5 }), /more blocks/],
  ['blocks without a map', hostile({ map: null }), /block map/],
  ['a mode with type bits', hostile({ mode: 0o100644 }), /damaged/],
  ['an unknown type', hostile({ type: 'door' }), /damaged/],
  ['an empty link', hostile({ type: 'symlink', target: '' }), /target/],
  ['a root that is a file', hostile({ type: 'file', size: 0, dataBlocks: 0, map: null }, 0), /root directory/],
  [
    'another version',
    Buffer.from(encodeManifest(manifest).toString().replace('"version": 1', '"version": 2')),
    /version 2/
  ],
  ['no JSON', Buffer.from('{'), /not JSON/],
  ['a prototype', Buffer.from('{"__proto__": {"format": "isrfs-manifest", "version": 1}}'), /damaged/]
]
for (const [title, bytes, message] of refused) {
  test(`refused: ${title}`, (t) => {
    t.throws(() => parseManifest(bytes, 'generation 1'), { instanceOf: IntegrityError, message })
  })
}

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
