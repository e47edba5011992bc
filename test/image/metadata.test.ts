/** Tables of sparse disks are here before part of one is written. */
import fs from 'node:fs'
import test, { type ExecutionContext } from 'ava'
import { BLOCK_BYTES } from '../../src/base/units.js'
import { SharePool } from '../../src/fetch/share-pool.js'
import { Images } from '../../src/image/images.js'
import { METADATA_BYTES_MAX, metadataOf } from '../../src/image/metadata.js'
import { CommitBed } from '../commit/commit-bed.js'
import { Random } from '../support/random.js'

const BLOCKS = 12

/** Header of a sparse extent whose tables take so many sectors. */
function vmdk(overheadSectors: number): Buffer {
  const bytes = new Random(1).bytes(BLOCKS * BLOCK_BYTES)
  bytes.write('KDMV', 0, 'latin1')
  bytes.writeBigUInt64LE(BigInt(overheadSectors), 64)
  return bytes
}

/** L1 in block 2, naming an L2 table in block 7; refcount table in block 1, naming a refcount block in block 9. */
function qcow2(): Buffer {
  const bytes = new Random(2).bytes(BLOCKS * BLOCK_BYTES)
  bytes.fill(0, 0, 3 * BLOCK_BYTES)
  bytes.write('QFI\xfb', 0, 'latin1')
  bytes.writeUInt32BE(16, 20)
  bytes.writeUInt32BE(4, 36)
  bytes.writeBigUInt64BE(BigInt(2 * BLOCK_BYTES), 40)
  bytes.writeBigUInt64BE(BigInt(BLOCK_BYTES), 48)
  bytes.writeUInt32BE(1, 56)
  bytes.writeBigUInt64BE((1n << 63n) | BigInt(7 * BLOCK_BYTES), 2 * BLOCK_BYTES)
  bytes.writeBigUInt64BE(BigInt(9 * BLOCK_BYTES), BLOCK_BYTES)
  return bytes
}

function open(t: ExecutionContext, files: Record<string, Buffer>): { bed: CommitBed; images: Images } {
  const bed = new CommitBed(files)
  const pool = new SharePool(bed.root, { threads: 1 })
  const images = new Images({
    session: bed.session,
    cache: bed.openCache(),
    pool,
    onDamage: () => undefined,
    onWarning: () => undefined
  })
  t.teardown(async () => {
    images.stop()
    await pool.close()
    await bed.destroy()
  })
  return { bed, images }
}

/** Blocks of which part can be written while the share is away. */
function writableBlocks({ bed, images }: { bed: CommitBed; images: Images }, name: string): number[] {
  const found: number[] = []
  for (let block = 0; block < BLOCKS; block++) {
    const written = images.write(bed.file(name), Buffer.from('four'), block * BLOCK_BYTES + 100)
    if (typeof written === 'number') found.push(block)
    else written.catch(() => undefined) // it waits
  }
  return found
}

test('after the tables of its disks were fetched, a few bytes written there wait for no share', async (t) => {
  const disks = {
    'split-s001.vmdk': vmdk(600),
    'disk.qcow2': qcow2(),
    'plain.vmdk': new Random(3).bytes(BLOCKS * BLOCK_BYTES)
  }
  const opened = open(t, { ...disks, 'testvm-flat.vmdk': vmdk(600), other: vmdk(600) })
  await opened.images.fetchMetadata()
  t.is(opened.images.ahead.touches.count, 0, 'nobody has read them')
  fs.renameSync(opened.bed.root, `${opened.bed.root}.away`)
  t.deepEqual(writableBlocks(opened, 'split-s001.vmdk'), [0, 1, 2])
  t.deepEqual(writableBlocks(opened, 'disk.qcow2'), [0, 1, 2, 7, 9])
  t.deepEqual(writableBlocks(opened, 'plain.vmdk'), [0])
  t.deepEqual(writableBlocks(opened, 'testvm-flat.vmdk'), [])
  t.deepEqual(writableBlocks(opened, 'other'), [])
})

test('a disk that tells tales of its tables is bounded', (t) => {
  const read = (bytes: Buffer) => (start: number, length: number) =>
    start + length > bytes.length ? undefined : bytes.subarray(start, start + length)
  const huge = vmdk(0)
  huge.writeBigUInt64LE(2n ** 64n - 1n, 64)
  t.deepEqual(metadataOf(read(huge)), [{ start: 0, end: METADATA_BYTES_MAX }])
  const wild = qcow2()
  wild.writeBigUInt64BE(2n ** 64n - 1n, 40)
  wild.writeUInt32BE(2 ** 32 - 1, 56)
  t.true(metadataOf(read(wild)).every(({ start, end }) => end - start <= METADATA_BYTES_MAX))
  wild.writeUInt32BE(63, 20)
  t.deepEqual(metadataOf(read(wild)), [])
  t.deepEqual(metadataOf(read(Buffer.alloc(100))), [])
})
