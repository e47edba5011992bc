/** Lines that are added to a file, also after it was replaced by a new one of its name or cut. */
import fs from 'node:fs'
import { StringDecoder } from 'node:string_decoder'

const POLL_MS = 250
const PIECE_BYTES = 64 * 1024

/** Calls `onLine` for each whole line from `offset` on, until the signal ends it. */
export async function followLines(
  file: string,
  offset: number,
  onLine: (line: string) => void,
  signal: AbortSignal
): Promise<void> {
  let tail = Tail.open(file, offset)
  try {
    while (!signal.aborted) {
      tail?.read(onLine)
      if (tail?.isReplaced() !== false) {
        const next = Tail.open(file, 0)
        if (next !== undefined) {
          tail?.read(onLine) // what came between
          tail?.close()
          tail = next
          continue
        }
      }
      await pause(signal)
    }
  } finally {
    tail?.close()
  }
}

class Tail {
  readonly #file: string
  readonly #fd: number
  readonly #inode: number
  readonly #decoder = new StringDecoder('utf8')
  #offset: number
  #rest = ''

  /** undefined while there is no such file. */
  static open(file: string, offset: number): Tail | undefined {
    try {
      return new Tail(file, fs.openSync(file, 'r'), offset)
    } catch {
      return undefined
    }
  }

  private constructor(file: string, fd: number, offset: number) {
    this.#file = file
    this.#fd = fd
    this.#inode = fs.fstatSync(fd).ino
    this.#offset = offset
  }

  read(onLine: (line: string) => void): void {
    if (fs.fstatSync(this.#fd).size < this.#offset) this.#offset = 0
    const piece = Buffer.allocUnsafe(PIECE_BYTES)
    for (;;) {
      const count = fs.readSync(this.#fd, piece, 0, PIECE_BYTES, this.#offset)
      if (count === 0) return
      this.#offset += count
      const lines = (this.#rest + this.#decoder.write(piece.subarray(0, count))).split('\n')
      this.#rest = lines.pop() ?? ''
      for (const line of lines) if (line !== '') onLine(line)
    }
  }

  isReplaced(): boolean {
    return fs.statSync(this.#file, { throwIfNoEntry: false })?.ino !== this.#inode
  }

  close(): void {
    fs.closeSync(this.#fd)
  }
}

function pause(signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const done = (): void => {
      clearTimeout(timer)
      signal.removeEventListener('abort', done)
      resolve()
    }
    const timer = setTimeout(done, POLL_MS)
    signal.addEventListener('abort', done)
  })
}
