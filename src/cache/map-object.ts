/** Map pages and roots as worker threads read them: the cache's file if it is that object, else the share. */
import fs from 'node:fs'
import { sha256Hex } from '../base/digest.js'
import { decodeObject } from '../format/block-codec.js'
import { readStored } from '../format/chunk.js'
import type { ObjectPlace } from '../format/place.js'
import type { Share } from '../share/share.js'

/** Verified plain bytes, and how many encoded bytes of a chunk were read for them. */
export interface ReadObject {
  readonly bytes: Uint8Array
  readonly encodedBytes: number
}

/** `candidate` is a local file that may hold the plain bytes; it counts when its digest is right. */
export function readMapObject(share: Share, place: ObjectPlace, candidate: string | undefined): ReadObject {
  const cached = candidate === undefined ? undefined : readCached(candidate)
  if (cached?.length === place.plainBytes && sha256Hex(cached) === place.digest)
    return { bytes: cached, encodedBytes: 0 }
  const stored = readStored(share, place)
  return { bytes: decodeObject(stored, place), encodedBytes: stored.length }
}

function readCached(candidate: string): Buffer | undefined {
  try {
    return fs.readFileSync(candidate)
  } catch {
    return undefined // the cache is disposable: the share has it
  }
}
