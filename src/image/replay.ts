/**
 * What a mount fetches on its own: the blocks that an earlier resume read, in that order, and memory images, which a VMM
 * reads nearly whole, from their beginning as soon as somebody reads one. Readers overtake both (fetch/share-pool.ts).
 */
import { BLOCK_BYTES, toInodeId } from '../base/units.js'
import type { Profile } from '../format/profile.js'
import type { Inode } from '../session/namespace-types.js'
import type { Session } from '../session/session.js'
import type { AheadPriority, FetchAhead } from './fetch-ahead.js'

/** asked for together, in the order of the file, so that neighbours travel together; 8 MiB */
const BATCH_BLOCKS = 64
/** memory of a suspended VM: VMware's .vmem and .vmss, snapshots' .vmsn */
const MEMORY_IMAGE_PATTERN = /\.(vmem|vmss|vmsn)$/i

export class Replay {
  readonly #session: Session
  readonly #ahead: FetchAhead
  readonly #streamed = new Set<Inode>()
  #stopped = false

  constructor(session: Session, ahead: FetchAhead) {
    this.#session = session
    this.#ahead = ahead
  }

  /** Resolves when all of the profile is here, or when it was stopped. Never rejects. */
  async run({ runs }: Profile): Promise<void> {
    let batch: { inode: number; block: number }[] = []
    for (const { inode, first, count } of runs) {
      for (let block = first; block < first + count; block++) {
        batch.push({ inode, block })
        if (batch.length < BATCH_BLOCKS) continue
        await this.#bring(batch)
        batch = []
      }
      if (this.#stopped) return
    }
    await this.#bring(batch)
  }

  /** Somebody waits for a block of this file. */
  noteMiss(inode: Inode): void {
    if (this.#streamed.has(inode) || !MEMORY_IMAGE_PATTERN.test(inode.name)) return
    this.#streamed.add(inode)
    void this.#stream(inode)
  }

  stop(): void {
    this.#stopped = true
  }

  async #stream(inode: Inode): Promise<void> {
    const end = (): number => Math.ceil(inode.baseLimitBytes / BLOCK_BYTES)
    for (let first = 0; first < end(); first += BATCH_BLOCKS) {
      const blocks = Array.from({ length: Math.min(BATCH_BLOCKS, end() - first) }, (_, index) => first + index)
      if (!(await this.#bringOf(inode, blocks, 'stream'))) return
    }
  }

  async #bring(batch: readonly { readonly inode: number; readonly block: number }[]): Promise<void> {
    const files = new Map<number, number[]>()
    for (const { inode, block } of batch) files.set(inode, [...(files.get(inode) ?? []), block])
    await Promise.all(
      [...files].map(async ([id, wanted]) => {
        const inode = this.#session.namespace.get(toInodeId(id))
        if (inode?.type !== 'file') return // deleted since, or a profile that tells tales
        const end = Math.ceil(inode.baseLimitBytes / BLOCK_BYTES)
        const blocks = wanted.filter((block) => block < end)
        await this.#bringOf(
          inode,
          [...new Set(blocks)].sort((first, second) => first - second),
          'profile'
        )
      })
    )
  }

  /** False when it makes no sense to go on. */
  async #bringOf(inode: Inode, blocks: readonly number[], priority: AheadPriority): Promise<boolean> {
    if (this.#stopped || this.#session.namespace.get(inode.id) !== inode) return false
    const { failure } = await this.#ahead.bring(inode, blocks, priority)
    return failure === undefined
  }
}
