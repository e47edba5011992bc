/** What everything read from the share has in common: JSON that is bounded, parsed and checked before use. */
import { z } from 'zod'
import { CHUNK_BYTES_MAX } from '../base/units.js'
import { OBJECT_BYTES_MAX } from './block-codec.js'

export const digestHex = z.string().regex(/^[0-9a-f]{64}$/)
export const identifier = z.string().regex(/^[0-9a-f]{8,64}$/)
export const count = z.number().int().nonnegative().max(Number.MAX_SAFE_INTEGER)
export const positive = z.number().int().positive().max(Number.MAX_SAFE_INTEGER)
/** a name of a host, user or the like, for people */
export const label = z.string().max(256)
export const timestamp = z.string().max(40)

export const objectPlaceSchema = z
  .object({
    encoding: z.enum(['raw', 'zstd']),
    chunk: digestHex,
    offset: count.max(CHUNK_BYTES_MAX),
    storedBytes: positive.max(CHUNK_BYTES_MAX),
    plainBytes: positive.max(OBJECT_BYTES_MAX),
    digest: digestHex
  })
  .refine((place) => place.offset + place.storedBytes <= CHUNK_BYTES_MAX, 'reaches past the end of a chunk')

export { parseShareJson as parseJson, toShareJson as toJson } from '../share/json.js'
