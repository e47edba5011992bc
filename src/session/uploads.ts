/**
 * Places of blocks that an interrupted commit has made durable on the share, by the digest of their plain bytes: the
 * next try sends only what is not here. One line of JSON each; a line that is not whole is ignored.
 */
import fs from 'node:fs'
import { z } from 'zod'
import { BLOCK_BYTES, CHUNK_BYTES_MAX } from '../base/units.js'
import type { BlockPlace } from '../format/place.js'
import { readIfThere } from './durable-file.js'

const digest = z.string().regex(/^[0-9a-f]{64}$/)
const lineSchema = z.object({
  digest,
  chunk: digest,
  encoding: z.enum(['raw', 'zstd']),
  offset: z.number().int().nonnegative().max(CHUNK_BYTES_MAX),
  storedBytes: z.number().int().positive().max(BLOCK_BYTES)
})

export class Uploads {
  readonly #file: string
  readonly #places = new Map<string, BlockPlace>()

  constructor(file: string) {
    this.#file = file
    for (const line of readIfThere(file)?.toString('utf8').split('\n') ?? []) this.#read(line)
  }

  get(digestHex: string): BlockPlace | undefined {
    return this.#places.get(digestHex)
  }

  entries(): IterableIterator<[string, BlockPlace]> {
    return this.#places.entries()
  }

  /** Durable when it returns. */
  add(places: readonly BlockPlace[]): void {
    const lines = places.map((place) => `${JSON.stringify({ ...place, digest: place.digest.toString('hex') })}\n`)
    const descriptor = fs.openSync(this.#file, 'a', 0o600)
    try {
      // a line that a crash has torn ends here
      fs.writeSync(descriptor, `\n${lines.join('')}`)
      fs.fdatasyncSync(descriptor)
    } finally {
      fs.closeSync(descriptor)
    }
    for (const place of places) this.#places.set(place.digest.toString('hex'), place)
  }

  #read(line: string): void {
    if (line === '') return
    try {
      const place = lineSchema.parse(JSON.parse(line))
      this.#places.set(place.digest, { ...place, digest: Buffer.from(place.digest, 'hex') })
    } catch {
      // torn by a crash: the block is sent again
    }
  }
}
