/**
 * Plain bytes that a cache of this client may still have of a VM, by their digest: for the repair of a share. Only reads, and
 * believes nothing: what is found is compared with its digest. Caches of other VMs are not looked at: a share that names
 * their blocks' digests must not be given them.
 */
import fs from 'node:fs'
import path from 'node:path'
import { sha256 } from '../base/digest.js'
import { BLOCK_BYTES, BLOCKS_PER_REGION } from '../base/units.js'
import { closeQuietly } from '../base/close-quietly.js'
import { digestAt, readFooter } from './region-file.js'

export class CachedBytes {
  readonly #slots: readonly string[]
  readonly #blocks = new Map<string, { readonly file: string; readonly block: number }[]>()

  /** `directory` holds a directory for each VM, by its id, with one for each slot in it. */
  constructor(directory: string, vmId: string) {
    this.#slots = namesIn(path.join(directory, vmId)).map((slot) => path.join(directory, vmId, slot))
    for (const slot of this.#slots) {
      for (const name of namesIn(slot)) if (/^\d+-\d+$/.test(name)) this.#addRegion(path.join(slot, name))
    }
  }

  /** All bytes of a block; undefined when no cache has it. */
  block(digestHex: string): Buffer | undefined {
    for (const { file, block } of this.#blocks.get(digestHex) ?? []) {
      const plain = readBlock(file, block)
      if (plain !== undefined && sha256(plain).toString('hex') === digestHex) return plain
    }
    return undefined
  }

  /** All bytes of a map page or root. */
  mapObject(digestHex: string): Buffer | undefined {
    for (const slot of this.#slots) {
      try {
        const plain = fs.readFileSync(path.join(slot, 'maps', digestHex))
        if (sha256(plain).toString('hex') === digestHex) return plain
      } catch {
        // not in this one
      }
    }
    return undefined
  }

  #addRegion(file: string): void {
    const digests = withFile(file, readFooter)
    if (digests === undefined) return
    for (let block = 0; block < BLOCKS_PER_REGION; block++) {
      const digest = digestAt(digests, block)
      if (digest.every((byte) => byte === 0)) continue
      const key = digest.toString('hex')
      const known = this.#blocks.get(key)
      if (known === undefined) this.#blocks.set(key, [{ file, block }])
      else known.push({ file, block })
    }
  }
}

function readBlock(file: string, block: number): Buffer | undefined {
  const plain = Buffer.alloc(BLOCK_BYTES)
  const count = withFile(file, (fd) => fs.readSync(fd, plain, 0, BLOCK_BYTES, block * BLOCK_BYTES))
  return count === BLOCK_BYTES ? plain : undefined
}

/** undefined when the file cannot be read: a mount may be evicting it. */
function withFile<Result>(file: string, use: (fd: number) => Result): Result | undefined {
  let fd: number | undefined
  try {
    fd = fs.openSync(file, fs.constants.O_RDONLY | fs.constants.O_NOFOLLOW)
    return use(fd)
  } catch {
    return undefined
  } finally {
    if (fd !== undefined) closeQuietly(fd)
  }
}

function namesIn(directory: string): string[] {
  try {
    return fs.readdirSync(directory)
  } catch {
    return []
  }
}
