/**
 * The worked example of docs/format.md, made by the real code: a VM with one file of five bytes. test/format compares
 * the document with it; `node build/test/support/format-example.js` prints what belongs in there.
 */
import { BLOCK_BYTES, toGeneration } from '../../src/base/units.js'
import { sha256Hex } from '../../src/base/digest.js'
import { encodeBlock } from '../../src/format/block-codec.js'
import { encodeMapPage, encodeMapRoot } from '../../src/format/block-map.js'
import { blockPlace, ChunkBuilder, writeObjects } from '../../src/format/chunk.js'
import { encodeManifest } from '../../src/format/manifest.js'
import { newVmDescriptor, vmDescriptorBytes } from '../../src/format/vm.js'
import { toShareJson } from '../../src/share/json.js'
import { leaseBytes, releaseBytes } from '../../src/share/lease-record.js'
import { pinBytes } from '../../src/share/pin.js'
import { Share } from '../../src/share/share.js'
import { fileURLToPath } from 'node:url'
import { temporaryDirectory } from './make-vm.js'

export function formatExample(): ReadonlyMap<string, string> {
  const share = new Share(temporaryDirectory('example'))
  const descriptor = vmDescriptorBytes({
    ...newVmDescriptor(),
    vm: '00112233445566778899aabbccddeeff',
    nonce: '102132435465768798a9bacbdcedfe0f',
    created: '2026-11-23T00:00:00.000Z'
  })
  const plain = Buffer.alloc(BLOCK_BYTES)
  plain.write('hello')
  const block = encodeBlock(plain)
  const builder = new ChunkBuilder()
  builder.add(block)
  const { chunk, offsets } = builder.write(share)
  const place = blockPlace(chunk, offsets[0] ?? 0, block, plain)
  const page = encodeMapPage([place])
  if (page === undefined) throw new Error('no page')
  const [pagePlace] = writeObjects(share, [page]).places
  if (pagePlace === undefined) throw new Error('no place')
  const root = encodeMapRoot(new Map([[0, pagePlace]]))
  const [rootPlace] = writeObjects(share, [root]).places
  if (rootPlace === undefined) throw new Error('no place')
  const times = { atime: '1000000000000000000', mtime: '1100000000123456789', ctime: '1200000000000000000' }
  const manifest = encodeManifest({
    format: 'isrfs-manifest',
    version: 1,
    vm: '00112233445566778899aabbccddeeff',
    generation: toGeneration(1),
    parent: null,
    session: 'ffeeddccbbaa99887766554433221100',
    created: '2026-11-23T00:00:00.000Z',
    client: { id: '0123456789abcdef0123456789abcdef', host: 'box' },
    changedBytes: BLOCK_BYTES,
    sentBytes: 0,
    nextInode: 3,
    entries: [
      { inode: 1, parent: 0, name: '', type: 'directory', mode: 0o755, uid: 0, gid: 0, ...times },
      {
        inode: 2,
        parent: 1,
        name: 'greeting',
        type: 'file',
        mode: 0o644,
        uid: 0,
        gid: 0,
        ...times,
        size: 5,
        dataBlocks: 1,
        map: rootPlace
      }
    ]
  })
  const holder = {
    client: '0123456789abcdef0123456789abcdef',
    host: 'box',
    user: 'joe',
    pid: 4711,
    boot: '5e0b7a52-7a33-4c0e-9f0d-0a1b2c3d4e5f',
    mountpoint: '/mnt/testvm'
  }
  const time = '2026-11-23T00:01:00.000Z'
  const newest = { number: 1, digest: sha256Hex(manifest) }
  return new Map([
    ['vm.json', json(descriptor)],
    ['block digest', place.digest.toString('hex')],
    ['chunk', dump(block.bytes)],
    ['chunk name', chunk],
    ['map page', dump(page)],
    ['map root', dump(root)],
    ['manifest', json(manifest)],
    ['manifest digest', sha256Hex(manifest)],
    ['lease.json', json(leaseBytes({ number: 2, token: '0f'.repeat(16), taken: time, holder, generation: newest }))],
    ['beat.json', json(toShareJson({ count: 3, time }))],
    ['released.json', json(releaseBytes({ time, by: 'holder', who: '', generation: newest }))],
    ['pin.json', json(pinBytes(holder, 1, time))]
  ])
}

function json(bytes: Buffer): string {
  return bytes.toString('utf8').trimEnd()
}

function dump(bytes: Buffer): string {
  const lines: string[] = []
  for (let at = 0; at < bytes.length; at += 16) {
    const part = bytes.subarray(at, at + 16)
    lines.push(
      `${at.toString(16).padStart(4, '0')}  ${[...part].map((byte) => byte.toString(16).padStart(2, '0')).join(' ')}`
    )
  }
  return lines.join('\n')
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  for (const [title, text] of formatExample()) process.stdout.write(`### ${title}\n\n${text}\n\n`)
}
