/**
 * How test/fixtures/vm-v1 was made: `node build/test/support/make-fixture.js DIRECTORY` writes it anew, byte for byte
 * (another version of zstd may compress to other bytes). Kept as documentation. Once version 1 is released, the fixture
 * itself stays as it is.
 */
import fs from 'node:fs'
import path from 'node:path'
import { fileURLToPath } from 'node:url'
import { toGeneration } from '../../src/base/units.js'
import { encodeManifest, type Manifest, type ManifestEntry } from '../../src/format/manifest.js'
import { publishGeneration } from '../../src/format/generations.js'
import { type VmDescriptor, writeVmDescriptor } from '../../src/format/vm.js'
import { sha256Hex } from '../../src/base/digest.js'
import { leaseBytes, releaseBytes } from '../../src/share/lease-record.js'
import { toShareJson } from '../../src/share/json.js'
import { pinBytes } from '../../src/share/pin.js'
import { Share } from '../../src/share/share.js'
import { writeFile } from './make-vm.js'
import { Random } from './random.js'

const MIB = 2 ** 20
/** three map pages, of which the middle one is all zero; the last block is partial */
export const DISK_BYTES = 260 * MIB + 12_345

/** The plain content of each file in the newest generation, by its path. */
export function fixtureFiles(): ReadonlyMap<string, Buffer> {
  const disk = Buffer.alloc(DISK_BYTES)
  disk.write('KDMV', 0)
  disk.write('in the middle of the first page', 64 * MIB + 4096)
  disk.write('the last bytes of the disk', DISK_BYTES - 26)
  return new Map([
    ['empty.vmsd', Buffer.alloc(0)],
    [
      'logs/vmware.log',
      Buffer.from(Array.from({ length: 8000 }, (_, line) => `line ${String(line)}: the guest runs\n`).join(''))
    ],
    ['nul.bin', Buffer.alloc(300_000)],
    ['testvm-flat.vmdk', disk],
    ['testvm.vmem', new Random(1).bytes(125_000)],
    ['testvm.vmx', Buffer.from('displayName = "testvm"\nmemsize = "256"\n')]
  ])
}

export function makeFixture(root: string): void {
  const share = new Share(root)
  const descriptor: VmDescriptor = {
    format: 'isrfs',
    version: 1,
    vm: '0123456789abcdef0123456789abcdef',
    nonce: 'fedcba9876543210fedcba9876543210',
    blockBytes: 131_072,
    chunkBytesMax: 16 * MIB,
    compression: 'zstd',
    created: '2026-01-02T03:04:05.006Z'
  }
  const first = manifestOf(descriptor, entriesOf(share, 'displayName = "testvm"\n'))
  const digest = sha256Hex(encodeManifest(first))
  publishGeneration(share, first)
  const second: Manifest = {
    ...first,
    generation: toGeneration(2),
    parent: { generation: 1, digest },
    session: '2222222222222222',
    created: '2026-01-03T03:04:05.006Z',
    changedBytes: 131_072,
    sentBytes: 500,
    entries: entriesOf(share)
  }
  publishGeneration(share, second)
  makeLeaseAndPin(share, { number: 2, digest: sha256Hex(encodeManifest(second)) })
  writeVmDescriptor(share, descriptor)
  fs.rmSync(path.join(root, 'tmp'), { recursive: true })
}

function manifestOf(descriptor: VmDescriptor, entries: ManifestEntry[]): Manifest {
  return {
    format: 'isrfs-manifest',
    version: 1,
    vm: descriptor.vm,
    generation: toGeneration(1),
    parent: null,
    session: '1111111111111111',
    created: descriptor.created,
    client: { id: 'c0c0c0c0c0c0c0c0', host: 'box' },
    changedBytes: 8 * 131_072,
    sentBytes: 130_000,
    nextInode: 20,
    entries
  }
}

function entriesOf(share: Share, vmx?: string): ManifestEntry[] {
  const attributes = {
    parent: 1,
    mode: 0o644,
    uid: 1000,
    gid: 1001,
    atime: '1767323045123456789',
    mtime: '1767323046000000001',
    ctime: '-1'
  }
  const entries: ManifestEntry[] = [
    { ...attributes, inode: 1, parent: 0, name: '', type: 'directory', mode: 0o755 },
    { ...attributes, inode: 2, name: 'logs', type: 'directory', mode: 0o2750 },
    { ...attributes, inode: 3, name: 'current.vmx', type: 'symlink', mode: 0o777, target: '../elsewhere/testvm.vmx' },
    { ...attributes, inode: 4, name: 'monitor', type: 'fifo', mode: 0o600 },
    { ...attributes, inode: 5, name: 'ttyS0 ä', type: 'character-device', mode: 0o620, rdev: 4 * 256 + 64 }
  ]
  for (const [file, content] of fixtureFiles()) {
    const bytes = file === 'testvm.vmx' && vmx !== undefined ? Buffer.from(vmx) : content
    const { map, dataBlocks } = writeFile(share, bytes)
    const parent = path.dirname(file) === 'logs' ? 2 : 1
    const inode = entries.length + 5
    entries.push({
      ...attributes,
      inode,
      parent,
      name: path.basename(file),
      type: 'file',
      size: bytes.length,
      dataBlocks,
      map
    })
  }
  return entries
}

function makeLeaseAndPin(share: Share, generation: { number: number; digest: string }): void {
  const holder = {
    client: 'c0c0c0c0c0c0c0c0',
    host: 'box',
    user: 'joe',
    pid: 4711,
    boot: '5e0b7a52-7a33-4c0e-9f0d-0a1b2c3d4e5f',
    mountpoint: '/mnt/testvm'
  }
  const time = '2026-01-03T04:05:06.007Z'
  const lease = { number: 1, token: '0'.repeat(32), taken: time, holder, generation: null }
  share.createDirectory('leases/00000001', new Map([['lease.json', leaseBytes(lease)]]))
  share.write('leases/00000001/beat.json', toShareJson({ count: 3, time }))
  share.write('leases/00000001/released.json', releaseBytes({ time, by: 'holder', who: '', generation }))
  share.createDirectory('pins/c0c0c0c0c0c0c0c0-00112233', new Map([['pin.json', pinBytes(holder, 1, time)]]))
}

const [, script, destination] = process.argv
if (script === fileURLToPath(import.meta.url) && destination !== undefined) {
  fs.mkdirSync(destination)
  makeFixture(destination)
}
