/** Pages of a write: which are valid, what they look like to the journal. */
import { crc32 } from 'node:zlib'
import { getBit } from '../base/bits.js'
import { PAGE_BYTES, PAGES_PER_REGION, REGION_BYTES } from '../base/units.js'
import type { ByteWriter } from './bytes.js'
import type { Inode, RegionPages } from './namespace-types.js'
import { encodePagesHead } from './record-codec.js'

export const ZEROS = Buffer.alloc(PAGE_BYTES)

/** Whether the page at a byte offset of the file has its bytes in the session. */
export function isValid(inode: Inode, position: number): boolean {
  const pages = inode.regions.get(Math.floor(position / REGION_BYTES))
  return pages !== undefined && getBit(pages.valid, Math.floor(position / PAGE_BYTES) % PAGES_PER_REGION)
}

/** Where the last valid page of a region ends, in bytes of the region; 0 when there is none. */
export function endOfPages(pages: RegionPages | undefined): number {
  let word = (pages?.valid.length ?? 0) - 1
  while (word >= 0 && pages?.valid[word] === 0) word--
  if (pages === undefined || word < 0) return 0
  return ((word + 1) * 32 - Math.clz32(pages.valid[word] ?? 0)) * PAGE_BYTES
}

/** CRC-32 of the page that begins at `start` of the bytes, with zeros where they end before it does. */
function checksumOf(bytes: Uint8Array, start: number): number {
  const page = bytes.subarray(start, start + PAGE_BYTES)
  const checksum = crc32(page)
  return page.length === PAGE_BYTES ? checksum : crc32(ZEROS.subarray(page.length), checksum)
}

/** Encodes records for the pages in [from, stop) that are not valid yet, neighbours together. Returns how many. */
export function encodeNewPages(
  writer: ByteWriter,
  inode: Inode,
  write: { readonly bytes: Uint8Array; readonly offset: number },
  from: number,
  stop: number
): number {
  let records = 0
  const lastPage = Math.ceil(stop / PAGE_BYTES)
  for (let page = Math.floor(from / PAGE_BYTES); page < lastPage;) {
    let end = page
    while (end < lastPage && !isValid(inode, end * PAGE_BYTES)) end++
    if (end > page) {
      const region = Math.floor((page * PAGE_BYTES) / REGION_BYTES)
      encodePagesHead(writer, inode.id, region, page % PAGES_PER_REGION, end - page)
      for (let index = page; index < end; index++)
        writer.u32(checksumOf(write.bytes, index * PAGE_BYTES - write.offset))
      records++
    }
    page = end + 1
  }
  return records
}
