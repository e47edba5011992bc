/** Which bytes of which files of a session's base are lost, collected block by block. */
import { BLOCK_BYTES } from '../base/units.js'
import { pathOfInode } from '../session/inode-path.js'
import type { Namespace } from '../session/namespace.js'
import type { Inode } from '../session/namespace-types.js'

/** Bytes [from, to) of a file. */
export interface LostRange {
  readonly path: string
  readonly from: number
  readonly to: number
  /** how they read from now on: as an error, or, next to accepted bytes in one block, as zeros */
  readonly how: 'unreadable' | 'zeros'
}

export class LostRanges {
  readonly #namespace: Namespace
  readonly #ranges: { -readonly [Key in keyof LostRange]: LostRange[Key] }[] = []

  constructor(namespace: Namespace) {
    this.#namespace = namespace
  }

  /** Blocks [from, to) of a file; in ascending order for each file. */
  add(inode: Inode, firstBlock: number, endBlock: number, how: LostRange['how']): void {
    const from = firstBlock * BLOCK_BYTES
    const to = Math.min(endBlock * BLOCK_BYTES, inode.sizeBytes)
    if (from >= to) return
    const path = pathOfInode(this.#namespace, inode)
    const last = this.#ranges.at(-1)
    if (last?.path === path && last.how === how && last.to === from) last.to = to
    else this.#ranges.push({ path, from, to, how })
  }

  all(): readonly LostRange[] {
    return this.#ranges
  }
}

export function describeLost({ path, from, to, how }: LostRange): string {
  const becomes = how === 'zeros' ? ' (would read as zeros: changes lie in the same block)' : ''
  return `${path}, bytes ${String(from)} to ${String(to)}${becomes}`
}
