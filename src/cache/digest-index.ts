/**
 * Where blocks may lie, by their digest, in 8 bytes for each: a table of a fixed size. What it answers is a guess: others may
 * have the same first 64 bits, and the block may have gone. Whoever reads it compares the digest.
 */

const PROBES_MAX = 16

export class DigestIndex {
  readonly #mask: number
  /** bits 32 to 63 of the digest */
  readonly #digests: Uint32Array
  /** 0: none */
  readonly #locations: Uint32Array

  /** A power of two, about twice as many as there will be. Memory is used as it is filled. */
  constructor(slots: number) {
    this.#mask = slots - 1
    this.#digests = new Uint32Array(slots)
    this.#locations = new Uint32Array(slots)
  }

  /** `location` is 1 and more. The first one stays; in a crowd (somebody may have made one) the block is left out. */
  add(digest: Buffer, location: number): void {
    const slot = this.#slotOf(digest)
    if (slot === undefined || this.#locations[slot] !== 0) return
    this.#digests[slot] = digest.readUInt32LE(4)
    this.#locations[slot] = location
  }

  find(digest: Buffer): number | undefined {
    const slot = this.#slotOf(digest)
    const location = slot === undefined ? 0 : this.#locations[slot]
    return location === 0 ? undefined : location
  }

  /** Its own, or the one that it would get. */
  #slotOf(digest: Buffer): number | undefined {
    const start = digest.readUInt32LE(0)
    const rest = digest.readUInt32LE(4)
    for (let probe = 0; probe < PROBES_MAX; probe++) {
      const slot = (start + probe) & this.#mask
      if (this.#locations[slot] === 0 || this.#digests[slot] === rest) return slot
    }
    return undefined
  }
}
