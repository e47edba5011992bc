/** Where a benchmark works: a directory of its own, commands with their time, and everything undone at the end. */
import { execFile } from 'node:child_process'
import { createCipheriv, createHash } from 'node:crypto'
import fs from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { promisify } from 'node:util'

const run = promisify(execFile)
export const CLI = path.resolve('dist/cli/main.js')
const MIB = 2 ** 20

export class Place {
  readonly root: string
  readonly seed: string
  readonly #undo: (() => unknown)[] = []
  #serial = 0

  constructor(seed: string) {
    this.seed = seed
    this.root = fs.mkdtempSync(path.join(process.env['ISRFS_BENCH_DIR'] ?? os.tmpdir(), 'isrfs-bench-'))
  }

  path(...parts: string[]): string {
    return path.join(this.root, ...parts)
  }

  /** A new empty directory with a name of its own. */
  directory(name: string): string {
    const directory = this.path(`${name}-${this.#serial++}`)
    fs.mkdirSync(directory, { recursive: true })
    return directory
  }

  /** Runs a program; its standard output. Rejects with what it said when it fails. */
  async run(program: string, args: readonly string[]): Promise<string> {
    const { stdout } = await run(program, args, { maxBuffer: 64 * MIB })
    return stdout
  }

  shell(command: string): Promise<string> {
    return this.run('sh', ['-c', command])
  }

  isrfs(client: string, ...args: string[]): Promise<string> {
    return this.run(process.execPath, [CLI, '--client-dir', client, ...args])
  }

  async status(client: string, mountpoint: string): Promise<Record<string, number>> {
    return JSON.parse(await this.isrfs(client, 'status', mountpoint, '--json')) as Record<string, number>
  }

  /** At the end of the row, last first. */
  defer(undo: () => unknown): void {
    this.#undo.push(undo)
  }

  async remove(): Promise<void> {
    await this.#undoAll()
    fs.rmSync(this.root, { recursive: true, force: true })
  }

  async #undoAll(): Promise<void> {
    for (const undo of this.#undo.splice(0).reverse()) {
      try {
        await undo()
      } catch (error) {
        process.stderr.write(`bench: ${String(error)}\n`)
      }
    }
  }

  /** Also of the files below a mount: everything comes from the disk again. */
  async dropCaches(): Promise<void> {
    await this.run('sync', [])
    fs.writeFileSync('/proc/sys/vm/drop_caches', '3')
  }

  /** A file whose pages are half random, half text: it compresses to about half. The same for the same seed. */
  writeFile(file: string, bytes: number, salt = file): void {
    const key = createHash('sha256')
      .update(`${this.seed}/${path.basename(salt)}`)
      .digest()
      .subarray(0, 16)
    const cipher = createCipheriv('aes-128-ctr', key, Buffer.alloc(16))
    const text = Buffer.alloc(2048, 'The lid opens, and the machine goes on where it was. ')
    const out = fs.openSync(file, 'w')
    const zeros = Buffer.alloc(MIB / 2)
    for (let done = 0; done < bytes; done += MIB) {
      const random = cipher.update(zeros)
      const piece = Buffer.alloc(MIB)
      for (let page = 0; page < 256; page++) {
        random.copy(piece, page * 4096, page * 2048, (page + 1) * 2048)
        text.copy(piece, page * 4096 + 2048)
      }
      fs.writeSync(out, piece, 0, Math.min(MIB, bytes - done))
    }
    fs.closeSync(out)
  }
}

export async function seconds(work: () => Promise<unknown>): Promise<number> {
  const startedNs = process.hrtime.bigint()
  await work()
  return Number(process.hrtime.bigint() - startedNs) / 1e9
}
