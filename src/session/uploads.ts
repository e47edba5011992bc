/**
 * Places of blocks that an interrupted commit, or a trickle before it, has made durable on the share, by the digest of their
 * plain bytes: the next try sends only what is not here. One line of JSON each; a line that is not whole is ignored.
 */
import fs from 'node:fs'
import * as z from 'zod'
import { BLOCK_BYTES, CHUNK_BYTES_MAX } from '../base/units.js'
import type { BlockPlace } from '../format/place.js'
import { readIfThere, replaceFileDurably } from './durable-file.js'

const digest = z.string().regex(/^[0-9a-f]{64}$/)
const lineSchema = z.object({
  digest,
  chunk: digest,
  encoding: z.enum(['raw', 'zstd']),
  offset: z.number().int().nonnegative().max(CHUNK_BYTES_MAX),
  storedBytes: z.number().int().positive().max(BLOCK_BYTES)
})

/** lines that say nothing any more are taken out when there are more of them than others, and more than these */
const STALE_LINES_MAX = 4096

export class Uploads {
  readonly #file: string
  readonly #places = new Map<string, BlockPlace>()
  #staleLines = 0
  #adding: Promise<void> = Promise.resolve()

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
    const descriptor = fs.openSync(this.#file, 'a', 0o600)
    try {
      fs.writeSync(descriptor, linesOf(places))
      fs.fdatasyncSync(descriptor)
    } finally {
      fs.closeSync(descriptor)
    }
    this.#remember(places)
  }

  /** The same without waiting for the disk on this thread: durable when it resolves. */
  addLater(places: readonly BlockPlace[]): Promise<void> {
    const added = this.#adding.then(() => this.#addLater(places))
    this.#adding = added.catch(() => undefined)
    return added
  }

  /** The block has other bytes now: nobody will ask for these. */
  forget(digestHex: string): void {
    if (this.#places.delete(digestHex)) this.#staleLines++
  }

  async #addLater(places: readonly BlockPlace[]): Promise<void> {
    this.#compactIfStale()
    const handle = await fs.promises.open(this.#file, 'a', 0o600)
    try {
      await handle.appendFile(linesOf(places))
      await handle.datasync()
    } finally {
      await handle.close()
    }
    this.#remember(places)
  }

  #compactIfStale(): void {
    if (this.#staleLines <= Math.max(STALE_LINES_MAX, this.#places.size)) return
    this.#staleLines = 0
    replaceFileDurably(this.#file, Buffer.from(linesOf([...this.#places.values()])))
  }

  #remember(places: readonly BlockPlace[]): void {
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

/** A line that a crash has torn ends at the first of these. */
function linesOf(places: readonly BlockPlace[]): string {
  return `\n${places.map((place) => `${JSON.stringify({ ...place, digest: place.digest.toString('hex') })}\n`).join('')}`
}
