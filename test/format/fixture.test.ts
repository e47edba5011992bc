/** A VM in format version 1 as it was written when the version was made: every later isrfs must read it. */
import { execFileSync } from 'node:child_process'
import fs from 'node:fs'
import path from 'node:path'
import test from 'ava'
import { sha256Hex } from '../../src/base/digest.js'
import { BLOCK_BYTES, BLOCKS_PER_MAP_PAGE, toGeneration } from '../../src/base/units.js'
import { exportGeneration } from '../../src/commit/export.js'
import { decodeBlock, decodeObject } from '../../src/format/block-codec.js'
import { decodeMapRoot, MapPage } from '../../src/format/block-map.js'
import { chunkName } from '../../src/format/chunk.js'
import { listGenerations, readGeneration, readNewestGeneration } from '../../src/format/generations.js'
import { type ManifestEntry, manifestPaths, parseManifest } from '../../src/format/manifest.js'
import type { BlockPlace, ObjectPlace } from '../../src/format/place.js'
import { readVmDescriptor } from '../../src/format/vm.js'
import { readLease } from '../../src/share/lease.js'
import { Share } from '../../src/share/share.js'
import { fixtureFiles } from '../support/make-fixture.js'
import { temporaryDirectory } from '../support/make-vm.js'

const share = new Share(path.resolve('test/fixtures/vm-v1'))

function readPlace(place: BlockPlace | ObjectPlace): Buffer {
  return share.readRange(chunkName(place.chunk), place.offset, place.storedBytes)
}

/** A file's content, read through src/format alone. */
function contentOf(entry: Extract<ManifestEntry, { type: 'file' }>): { content: Buffer; encodings: string[] } {
  const content = Buffer.alloc(Math.ceil(entry.size / BLOCK_BYTES) * BLOCK_BYTES)
  const encodings: string[] = []
  const root = entry.map === null ? new Map() : decodeMapRoot(decodeObject(readPlace(entry.map), entry.map))
  for (const [pageIndex, pagePlace] of root) {
    const page = new MapPage(decodeObject(readPlace(pagePlace), pagePlace))
    for (let index = 0; index < BLOCKS_PER_MAP_PAGE; index++) {
      const place = page.place(index)
      if (place === undefined) continue
      encodings.push(place.encoding)
      decodeBlock(readPlace(place), place).copy(content, (pageIndex * BLOCKS_PER_MAP_PAGE + index) * BLOCK_BYTES)
    }
  }
  return { content: content.subarray(0, entry.size), encodings }
}

test('every byte of every file is read from the blocks, pages and roots of the fixture', (t) => {
  const { entries } = readNewestGeneration(share).manifest
  const expected = fixtureFiles()
  const used = new Set<string>()
  let files = 0
  for (const entry of entries) {
    if (entry.type !== 'file') continue
    const name = entry.parent === 2 ? `logs/${entry.name}` : entry.name
    const { content, encodings } = contentOf(entry)
    t.true(content.equals(expected.get(name) ?? Buffer.from('missing')), name)
    t.is(entry.dataBlocks, encodings.length, name)
    for (const encoding of encodings) used.add(encoding)
    files++
  }
  t.is(files, expected.size)
  t.deepEqual([...used].sort(), ['raw', 'zstd'])
})

test('everything else of the fixture is read: attributes, generations, lease, names of chunks', (t) => {
  const descriptor = readVmDescriptor(share)
  t.is(descriptor.vm, '0123456789abcdef0123456789abcdef')
  t.deepEqual(listGenerations(share), [toGeneration(1), toGeneration(2)])
  const first = readGeneration(share, toGeneration(1))
  const { manifest } = readNewestGeneration(share)
  t.deepEqual(manifest.parent, { generation: 1, digest: first.digest })
  const entry = (name: string): ManifestEntry | undefined => manifest.entries.find((one) => one.name === name)
  t.like(entry('current.vmx'), { type: 'symlink', target: '../elsewhere/testvm.vmx', mode: 0o777 })
  t.like(entry('logs'), { type: 'directory', inode: 2, mode: 0o2750, uid: 1000, gid: 1001, ctime: '-1' })
  t.like(entry('ttyS0 ä'), { type: 'character-device', rdev: 1088 })
  t.like(entry('monitor'), { type: 'fifo', mtime: '1767323046000000001' })
  t.like(entry('nul.bin'), { size: 300_000, dataBlocks: 0, map: null })
  t.like(readLease(share), {
    lease: { number: 1, holder: { host: 'box' } },
    released: { by: 'holder', generation: { number: 2 } }
  })
  for (const folder of share.list('chunks')) {
    for (const chunk of share.list(`chunks/${folder}`)) {
      t.is(sha256Hex(share.read(chunkName(chunk), 16 * 2 ** 20)), chunk)
      t.is(folder, chunk.slice(0, 2))
    }
  }
})

test('an export of the fixture is what it was made from', async (t) => {
  const work = temporaryDirectory('fixture')
  fs.cpSync(share.root, path.join(work, 'vm'), { recursive: true })
  const destination = path.join(work, 'exported')
  await exportGeneration({
    vmPath: path.join(work, 'vm'),
    destination,
    onProgress: () => undefined,
    onWarning: () => undefined
  })
  const list = path.resolve('test/fixtures/vm-v1.sha256')
  t.notThrows(() => execFileSync('sha256sum', ['--check', '--quiet', list], { cwd: destination }))
  t.is(fs.readlinkSync(path.join(destination, 'current.vmx')), '../elsewhere/testvm.vmx')
  t.is(fs.statSync(path.join(destination, 'testvm.vmx'), { bigint: true }).mtimeNs, 1767323046000000001n)
})

test('a manifest of version 2, with hard links, is read as it was written when the version was made', (t) => {
  const { version, entries } = parseManifest(fs.readFileSync('test/fixtures/manifest-v2.json'), 'it')
  t.is(version, 2)
  t.deepEqual(
    [...manifestPaths(entries)].filter(([, { inode }]) => inode === 3 || inode === 14).map(([name]) => name),
    ['current.vmx', 'logs/current.vmx', 'testvm.vmem', 'before.vmem', 'logs/testvm.vmem']
  )
})
