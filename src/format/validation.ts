/** What everything read from the share has in common: JSON that is bounded, parsed and checked before use. */
import * as z from 'zod'
import { CHUNK_BYTES_MAX } from '../base/units.js'
import { count, digestHex, positive } from '../share/fields.js'
import { OBJECT_BYTES_MAX } from './block-codec.js'

export { count, digestHex, identifier, label, positive, timestamp } from '../share/fields.js'
export { parseVersioned, toShareJson as toJson } from '../share/json.js'

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
