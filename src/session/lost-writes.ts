/**
 * Writes that the kernel had accepted and that were lost all the same (a broken disk): `lost.json` in the session, by inode.
 * It outlives the daemon, so that no later fsync and no suspend can pretend that nothing happened: a person decides.
 */
import path from 'node:path'
import * as z from 'zod'
import { IntegrityError } from '../base/errors.js'
import { type InodeId, toInodeId } from '../base/units.js'
import { readIfThere, replaceFileDurably } from './durable-file.js'
import { salvageHint } from './journal.js'

export const LOST_FILE = 'lost.json'

const lostSchema = z.array(z.object({ inode: z.number().int().positive(), why: z.string() }))

export class LostWrites {
  readonly #file: string
  readonly #lost = new Map<number, string>()
  /** of files that are gone on purpose, until that is durable: a power cut may bring them back */
  readonly #leaving = new Map<number, string>()

  /** Throws IntegrityError when the file is there and cannot be read: nobody may take that for "nothing was lost". */
  constructor(directory: string) {
    this.#file = path.join(directory, LOST_FILE)
    const bytes = readIfThere(this.#file)
    if (bytes === undefined) return
    for (const { inode, why } of parse(this.#file, bytes)) this.#lost.set(inode, why)
  }

  get(inode: InodeId): string | undefined {
    return this.#lost.get(inode)
  }

  /** What was lost, for people. */
  all(): string[] {
    return [...this.#lost.values()]
  }

  /** Remembers the first loss of a file. A disk that cannot even note it keeps it in memory only. */
  add(inode: InodeId, why: string): void {
    if (this.#lost.has(inode)) return
    this.#lost.set(inode, why)
    this.#save()
  }

  /** Inodes that have lost something. */
  inodes(): InodeId[] {
    return [...this.#lost.keys()].map(toInodeId)
  }

  /** The file is gone on purpose, and what it lost with it. The file on the disk forgets it with settle(). */
  forget(inode: InodeId): void {
    const why = this.#lost.get(inode)
    if (why === undefined) return
    this.#lost.delete(inode)
    this.#leaving.set(inode, why)
  }

  /** It is durable that the file is gone. */
  settle(inode: InodeId): void {
    if (this.#leaving.delete(inode)) this.#save()
  }

  #save(): void {
    const content = [...this.#lost, ...this.#leaving].map(([inode, why]) => ({ inode, why }))
    try {
      replaceFileDurably(this.#file, Buffer.from(`${JSON.stringify(content, undefined, 1)}\n`))
    } catch {
      // the daemon still knows
    }
  }
}

function parse(file: string, bytes: Buffer): z.infer<typeof lostSchema> {
  try {
    return lostSchema.parse(JSON.parse(bytes.toString('utf8')))
  } catch (error) {
    throw new IntegrityError(`${file} is damaged: it says which accepted writes were lost, and cannot be read`, {
      hint: salvageHint(path.dirname(file)),
      cause: error
    })
  }
}
