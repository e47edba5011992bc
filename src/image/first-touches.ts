/**
 * The order in which blocks of the base were first read in this mount: what a profile is made of. Bounded: what comes
 * after PROFILE_BLOCKS_MAX blocks is not remembered.
 */
import { getBit, setBit } from '../base/bits.js'
import { BLOCKS_PER_REGION, type InodeId } from '../base/units.js'
import { PROFILE_BLOCKS_MAX } from '../format/profile.js'

/** Blocks of one file, one after another. */
export interface BlockRun {
  readonly inode: InodeId
  readonly first: number
  readonly count: number
}

export class FirstTouches {
  readonly #runs: { inode: InodeId; first: number; count: number }[] = []
  readonly #touched = new Map<string, Uint32Array>()
  #count = 0

  /** False when it is known already, or when nothing more is remembered. */
  add(inode: InodeId, block: number): boolean {
    if (this.#count >= PROFILE_BLOCKS_MAX) return false
    const key = `${String(inode)}:${String(Math.floor(block / BLOCKS_PER_REGION))}`
    let bits = this.#touched.get(key)
    if (bits === undefined) this.#touched.set(key, (bits = new Uint32Array(BLOCKS_PER_REGION / 32)))
    if (getBit(bits, block % BLOCKS_PER_REGION)) return false
    setBit(bits, block % BLOCKS_PER_REGION)
    this.#count++
    const last = this.#runs.at(-1)
    if (last?.inode === inode && last.first + last.count === block) last.count++
    else this.#runs.push({ inode, first: block, count: 1 })
    return true
  }

  has(inode: InodeId, block: number): boolean {
    const bits = this.#touched.get(`${String(inode)}:${String(Math.floor(block / BLOCKS_PER_REGION))}`)
    return bits !== undefined && getBit(bits, block % BLOCKS_PER_REGION)
  }

  get count(): number {
    return this.#count
  }

  /** In the order in which they were first read. */
  get runs(): readonly BlockRun[] {
    return this.#runs
  }
}
