/** The first bytes of one file of a generation, verified, without a mount: for commands that look into a VM. */
import { BLOCK_BYTES, BLOCKS_PER_MAP_PAGE } from '../base/units.js'
import { BaseMaps } from '../cache/base-maps.js'
import { readMapObject } from '../cache/map-object.js'
import { decodeBlock } from '../format/block-codec.js'
import { readStored } from '../format/chunk.js'
import type { Manifest } from '../format/manifest.js'
import type { Share } from '../share/share.js'

type FileEntry = Extract<Manifest['entries'][number], { type: 'file' }>

/** At most `bytesMax` bytes from the start. Throws IntegrityError and ShareError. */
export async function readFileHead(share: Share, entry: FileEntry, bytesMax: number): Promise<Buffer> {
  const maps = new BaseMaps((place) => Promise.resolve(Buffer.from(readMapObject(share, place, undefined).bytes)))
  const head = Buffer.alloc(Math.min(entry.size, bytesMax))
  for (let block = 0; block * BLOCK_BYTES < head.length; block++) {
    const page = await maps.page(entry.map, Math.floor(block / BLOCKS_PER_MAP_PAGE))
    const place = page?.place(block % BLOCKS_PER_MAP_PAGE)
    if (place !== undefined) decodeBlock(readStored(share, place), place).copy(head, block * BLOCK_BYTES)
  }
  return head
}
