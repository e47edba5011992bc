/**
 * Looks at a share, in a process of its own that can be killed when the share does not answer. Prints what it found as one JSON
 * object. Started by doctor/share.ts with the VM's directory.
 */
import fs from 'node:fs'
import path from 'node:path'

const ROUNDS = 10
const READ_BYTES_MAX = 48 * 1024 * 1024
/** less tells nothing about a bandwidth */
const READ_BYTES_MIN = 8 * 1024 * 1024
const FILES_MAX = 64

export interface Probed {
  /** of a small file: made, synced, renamed, removed; null: this user may not write there */
  readonly writeMs: number | null
  /** how far the server's clock is ahead */
  readonly clockAheadMs: number | null
  /** to read the beginning of a chunk; null: there is none */
  readonly readMs: number | null
  /** null: there is too little to tell */
  readonly bytesPerSecond: number | null
  readonly freeBytes: number
}

function probe(directory: string): Probed {
  const { bavail, bsize } = fs.statfsSync(directory)
  return { ...readChunks(directory), ...writeFiles(directory), freeBytes: bavail * bsize }
}

function writeFiles(directory: string): Pick<Probed, 'writeMs' | 'clockAheadMs'> {
  const inVm = path.join(directory, 'tmp')
  const place = path.join(fs.existsSync(inVm) ? inVm : directory, `.doctor-${String(process.pid)}`)
  try {
    const begunMs = performance.now()
    let clockAheadMs = 0
    for (let round = 0; round < ROUNDS; round++) {
      const fd = fs.openSync(place, 'wx', 0o600)
      fs.writeSync(fd, 'x')
      fs.fsyncSync(fd)
      clockAheadMs = fs.fstatSync(fd).mtimeMs - Date.now()
      fs.closeSync(fd)
      fs.renameSync(place, `${place}.renamed`)
      fs.rmSync(`${place}.renamed`)
    }
    return { writeMs: (performance.now() - begunMs) / ROUNDS, clockAheadMs }
  } catch {
    fs.rmSync(place, { force: true })
    return { writeMs: null, clockAheadMs: null }
  }
}

/** Chunks from all over, so that few of them are in the kernel's memory. */
function readChunks(directory: string): Pick<Probed, 'readMs' | 'bytesPerSecond'> {
  const chunks = listChunks(path.join(directory, 'chunks'))
  const into = Buffer.alloc(1024 * 1024)
  let readBytes = 0
  let firstMs = 0
  let files = 0
  const begunMs = performance.now()
  while (chunks.length > 0 && readBytes < READ_BYTES_MAX && files < FILES_MAX) {
    const [chunk = ''] = chunks.splice(Math.floor(Math.random() * chunks.length), 1)
    const fd = fs.openSync(chunk, 'r')
    const openedMs = performance.now()
    let count = fs.readSync(fd, into, 0, 4096, 0)
    firstMs += performance.now() - openedMs
    files++
    for (let at = count; count > 0; at += count) {
      count = fs.readSync(fd, into, 0, into.length, at)
      readBytes += count
    }
    fs.closeSync(fd)
  }
  if (files === 0) return { readMs: null, bytesPerSecond: null }
  if (readBytes < READ_BYTES_MIN) return { readMs: firstMs / files, bytesPerSecond: null }
  return { readMs: firstMs / files, bytesPerSecond: (readBytes * 1000) / (performance.now() - begunMs) }
}

function listChunks(directory: string): string[] {
  if (!fs.existsSync(directory)) return []
  return fs
    .readdirSync(directory)
    .flatMap((folder) => fs.readdirSync(path.join(directory, folder)).map((name) => path.join(directory, folder, name)))
}

process.stdout.write(JSON.stringify(probe(process.argv[2] ?? '')))
