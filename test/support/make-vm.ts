/** Builds a VM on a share straight through src/format, for tests below the command line. */
import fs from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { BLOCK_BYTES, BLOCKS_PER_MAP_PAGE, toGeneration } from '../../src/base/units.js'
import { encodeBlock, isZeroBlock } from '../../src/format/block-codec.js'
import { encodeMapPage, encodeMapRoot } from '../../src/format/block-map.js'
import { blockPlace, ChunkBuilder, writeObjects } from '../../src/format/chunk.js'
import { publishGeneration, type PublishedGeneration } from '../../src/format/generations.js'
import type { Manifest } from '../../src/format/manifest.js'
import type { BlockPlace, ObjectPlace } from '../../src/format/place.js'
import { newVmDescriptor, writeVmDescriptor } from '../../src/format/vm.js'
import { Share } from '../../src/share/share.js'

/** Removed when the test process ends. */
export function temporaryDirectory(name: string): string {
  const directory = fs.mkdtempSync(path.join(os.tmpdir(), `isrfs-${name}-`))
  process.once('exit', () => {
    fs.rmSync(directory, { recursive: true, force: true })
  })
  return directory
}
process.setMaxListeners(0) // one for each temporary directory

/** Generation 1 with these files in the root directory, as inodes 2, 3, ... in the order of the map. */
export function makeVm(
  root: string,
  files: ReadonlyMap<string, Buffer>
): { share: Share; generation: PublishedGeneration } {
  fs.mkdirSync(root, { recursive: true })
  const share = new Share(root)
  const descriptor = newVmDescriptor()
  const attributes = { uid: 0, gid: 0, atime: '1', mtime: '2', ctime: '3' }
  const entries: Manifest['entries'] = [
    { ...attributes, inode: 1, parent: 0, name: '', type: 'directory', mode: 0o755 }
  ]
  for (const [name, content] of files) {
    const { map, dataBlocks } = writeFile(share, content)
    entries.push({
      ...attributes,
      inode: entries.length + 1,
      parent: 1,
      name,
      type: 'file',
      mode: 0o644,
      size: content.length,
      dataBlocks,
      map
    })
  }
  const generation = publishGeneration(share, {
    format: 'isrfs-manifest',
    version: 1,
    vm: descriptor.vm,
    generation: toGeneration(1),
    parent: null,
    session: 'abcdef0123456789',
    created: new Date().toISOString(),
    client: { id: '0123456789abcdef', host: 'test' },
    changedBytes: 0,
    sentBytes: 0,
    nextInode: entries.length + 1,
    entries
  })
  writeVmDescriptor(share, descriptor)
  return { share, generation }
}

export function writeFile(share: Share, content: Buffer): { map: ObjectPlace | null; dataBlocks: number } {
  const places: (BlockPlace | undefined)[] = []
  for (let start = 0; start < content.length; start += 128 * BLOCK_BYTES) {
    const builder = new ChunkBuilder()
    const waiting: { index: number; encoded: ReturnType<typeof encodeBlock>; plain: Buffer }[] = []
    for (let offset = start; offset < Math.min(content.length, start + 128 * BLOCK_BYTES); offset += BLOCK_BYTES) {
      const plain = Buffer.alloc(BLOCK_BYTES)
      content.copy(plain, 0, offset, offset + BLOCK_BYTES)
      places.push(undefined)
      if (isZeroBlock(plain)) continue
      const encoded = encodeBlock(plain)
      builder.add(encoded)
      waiting.push({ index: places.length - 1, encoded, plain })
    }
    if (waiting.length === 0) continue
    const { chunk, offsets } = builder.write(share)
    for (const [position, { index, encoded, plain }] of waiting.entries()) {
      places[index] = blockPlace(chunk, offsets[position] ?? 0, encoded, plain)
    }
  }
  const pages = new Map<number, Buffer>()
  for (let first = 0; first < places.length; first += BLOCKS_PER_MAP_PAGE) {
    const page = encodeMapPage(places.slice(first, first + BLOCKS_PER_MAP_PAGE))
    if (page !== undefined) pages.set(first / BLOCKS_PER_MAP_PAGE, page)
  }
  if (pages.size === 0) return { map: null, dataBlocks: 0 }
  const written = writeObjects(share, [...pages.values()]).places
  const root = new Map([...pages.keys()].map((page, index) => [page, written[index] as ObjectPlace])) // one place for each page
  const [map] = writeObjects(share, [encodeMapRoot(root)]).places
  return { map: map ?? null, dataBlocks: places.filter((place) => place !== undefined).length }
}
