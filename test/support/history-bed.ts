/** A VM with several generations on a share, for tests of what looks after them. */
import fs from 'node:fs'
import path from 'node:path'
import type { ExecutionContext } from 'ava'
import { BLOCK_BYTES, toGeneration } from '../../src/base/units.js'
import { exportGeneration } from '../../src/commit/export.js'
import { importDirectory } from '../../src/commit/import.js'
import { readGeneration } from '../../src/format/generations.js'
import { checkVm } from '../../src/history/check.js'
import { prune, type PruneOptions } from '../../src/history/prune.js'
import { rollBack } from '../../src/history/rollback.js'
import { Share } from '../../src/share/share.js'
import { temporaryDirectory } from './make-vm.js'
import { Random } from './random.js'

export const CLIENT = { id: '00112233445566778899aabbccddeeff', host: 'here' }
export const OTHER = { client: 'ab'.repeat(16), host: 'there', user: 'u', pid: 1, boot: 'b', mountpoint: '/m' }
export const ignore = (): void => undefined

export class History {
  readonly source = temporaryDirectory('source')
  readonly share = new Share(path.join(temporaryDirectory('share'), 'vm'))
  readonly contents: Buffer[] = []
  readonly #random = new Random()

  constructor(t: ExecutionContext) {
    t.log(`seed ${String(this.#random.seed)}`)
    fs.writeFileSync(path.join(this.source, 'disk'), this.#random.bytes(6 * BLOCK_BYTES))
    fs.writeFileSync(path.join(this.source, 'config'), 'one')
  }

  /** Publishes the source with one more changed block as the next generation. */
  async next(): Promise<void> {
    const isFirst = this.contents.length === 0
    const disk = fs.readFileSync(path.join(this.source, 'disk'))
    if (!isFirst) this.#random.bytes(BLOCK_BYTES).copy(disk, BLOCK_BYTES * (this.contents.length % 6))
    fs.writeFileSync(path.join(this.source, 'disk'), disk)
    this.contents.push(disk)
    await importDirectory({
      source: this.source,
      vmPath: this.share.root,
      update: !isFirst,
      joinPieces: false,
      client: CLIENT,
      onProgress: ignore,
      onWarning: ignore,
      threads: 1
    })
  }

  async contentOf(generation: number): Promise<Buffer> {
    const destination = path.join(temporaryDirectory('exported'), 'vm')
    const options = {
      vmPath: this.share.root,
      generation,
      destination,
      onProgress: ignore,
      onWarning: ignore,
      threads: 1
    }
    await exportGeneration(options)
    return fs.readFileSync(path.join(destination, 'disk'))
  }

  chunks(): string[] {
    const root = path.join(this.share.root, 'chunks')
    return fs
      .readdirSync(root)
      .flatMap((name) => fs.readdirSync(path.join(root, name)).map((chunk) => path.join(root, name, chunk)))
  }

  prune(options: Partial<PruneOptions> = {}): ReturnType<typeof prune> {
    return prune({ share: this.share, client: CLIENT, keep: 1, branches: [], graceMs: 0, yes: true, ...options })
  }

  /** Makes generation `name` the newest one. */
  rollBack(name: number, acceptMissing = false): ReturnType<typeof rollBack> {
    const source = readGeneration(this.share, toGeneration(name))
    return rollBack({ share: this.share, name: String(name), source, client: CLIENT, acceptMissing })
  }

  check(readData = true): ReturnType<typeof checkVm> {
    return checkVm({ share: this.share, readData, onProgress: ignore, threads: 1 })
  }
}

export async function historyOf(t: ExecutionContext, generations: number): Promise<History> {
  const history = new History(t)
  for (let count = 0; count < generations; count++) await history.next()
  return history
}
