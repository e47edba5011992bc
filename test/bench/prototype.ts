/**
 * The least that a FUSE file system in JavaScript can do: threads that read requests from the kernel and pass them through to one file. No
 * owner, no checks, no format, and no native code. What isrfs costs beside it is what its guarantees cost; rows 6 to 9, 12a and 15 to 17
 * measure both. It is the program that src/fuse/direct/ began with, kept bare: protocol 7.31 of linux/fuse.h, little-endian.
 *
 *     node build/test/bench/prototype.js FILE MOUNTPOINT     as root; shows FILE as disk.raw until it is unmounted
 */
import { spawnSync } from 'node:child_process'
import fs from 'node:fs'
import { isMainThread, Worker, workerData } from 'node:worker_threads'
import { tuneMount } from '../../src/fuse/kernel-tuning.js'
import { FILE } from './files.js'

const THREADS = 2
const IO_BYTES_MAX = 2 ** 20
const PROTOCOL_MINOR = 31
/** async read, big writes, async direct I/O, writeback cache, max pages */
const FLAGS = (1 << 0) | (1 << 5) | (1 << 15) | (1 << 16) | (1 << 22)
const ROOT = 1n
const DISK = 2n
const ENOENT = 2
const ENOSYS = 38
const VALID_SECONDS = 86_400n
const KEEP_CACHE = 2
/** of fuse_in_header and of fuse_out_header */
const [BODY, OUT_BODY] = [40, 16]
const WRITE_IN_BYTES = 40

const OPCODES = {
  lookup: 1,
  forget: 2,
  getattr: 3,
  setattr: 4,
  open: 14,
  read: 15,
  write: 16,
  release: 18,
  fsync: 20,
  flush: 25,
  init: 26,
  opendir: 27,
  readdir: 28,
  releasedir: 29,
  interrupt: 36,
  batchForget: 42
} as const

interface ThreadData {
  readonly connection: number
  readonly file: number
  readonly fileBytes: number
}

if (isMainThread) mount(process.argv[2] ?? '', process.argv[3] ?? '')
else serve(workerData as ThreadData) // what mount() starts it with

function mount(path: string, mountpoint: string): void {
  const connection = fs.openSync('/dev/fuse', 'r+')
  const file = fs.openSync(path, 'r+')
  const options = `fd=3,rootmode=40000,user_id=0,group_id=0,default_permissions,max_read=${IO_BYTES_MAX}`
  const { status } = spawnSync('mount', ['-i', '-n', '-t', 'fuse', '-o', options, 'prototype', mountpoint], {
    stdio: ['ignore', 'inherit', 'inherit', connection]
  })
  if (status !== 0) throw new Error(`cannot mount on ${mountpoint}`)
  const data: ThreadData = { connection, file, fileBytes: fs.fstatSync(file).size }
  for (let thread = 0; thread < THREADS; thread++) new Worker(new URL(import.meta.url), { workerData: data })
  tuneMount(mountpoint) // reads ahead as far as isrfs
}

function serve({ connection, file, fileBytes }: ThreadData): void {
  const request = Buffer.alloc(IO_BYTES_MAX + 8192)
  const answer = Buffer.alloc(OUT_BODY + IO_BYTES_MAX)
  for (;;) {
    const lengthBytes = readRequest(connection, request)
    if (lengthBytes === undefined) return
    const bodyBytes = answerTo(lengthBytes)
    if (bodyBytes === undefined) continue
    answer.writeUInt32LE(OUT_BODY + Math.max(0, bodyBytes), 0)
    answer.writeInt32LE(Math.min(0, bodyBytes), 4)
    request.copy(answer, 8, 8, 16) // its number
    writeAnswer(connection, answer, OUT_BODY + Math.max(0, bodyBytes))
  }

  /** Bytes of the answer's body, an errno below 0, or undefined: no answer is wanted. */
  function answerTo(lengthBytes: number): number | undefined {
    const position = (): number => Number(request.readBigUInt64LE(BODY + 8))
    const bytes = (): number => request.readUInt32LE(BODY + 16)
    switch (request.readUInt32LE(4)) {
      case OPCODES.read:
        return fs.readSync(file, answer, OUT_BODY, bytes(), position())
      case OPCODES.write:
        fs.writeSync(file, request, BODY + WRITE_IN_BYTES, bytes(), position())
        answer.fill(0, OUT_BODY, OUT_BODY + 8).writeUInt32LE(bytes(), OUT_BODY)
        return 8
      case OPCODES.fsync:
        fs.fdatasyncSync(file)
        return 0
      case OPCODES.init:
        return init()
      case OPCODES.lookup:
        return request.toString('utf8', BODY, lengthBytes - 1) === FILE ? entry() : -ENOENT
      case OPCODES.getattr:
      case OPCODES.setattr:
        answer.fill(0, OUT_BODY, OUT_BODY + 16).writeBigUInt64LE(VALID_SECONDS, OUT_BODY)
        attributes(OUT_BODY + 16, request.readBigUInt64LE(16))
        return 104
      case OPCODES.open:
      case OPCODES.opendir:
        answer.fill(0, OUT_BODY, OUT_BODY + 16).writeUInt32LE(KEEP_CACHE, OUT_BODY + 8)
        return 16
      case OPCODES.readdir:
      case OPCODES.release:
      case OPCODES.releasedir:
      case OPCODES.flush:
        return 0
      case OPCODES.forget:
      case OPCODES.batchForget:
      case OPCODES.interrupt:
        return undefined
      default:
        return -ENOSYS
    }
  }

  function init(): number {
    answer.fill(0, OUT_BODY, OUT_BODY + 64)
    answer.writeUInt32LE(7, OUT_BODY)
    answer.writeUInt32LE(PROTOCOL_MINOR, OUT_BODY + 4)
    answer.writeUInt32LE(IO_BYTES_MAX, OUT_BODY + 8) // readahead
    answer.writeUInt32LE((FLAGS & request.readUInt32LE(BODY + 12)) >>> 0, OUT_BODY + 12)
    answer.writeUInt16LE(64, OUT_BODY + 16) // requests in the background, as isrfs
    answer.writeUInt16LE(48, OUT_BODY + 18)
    answer.writeUInt32LE(IO_BYTES_MAX, OUT_BODY + 20) // largest WRITE
    answer.writeUInt32LE(1, OUT_BODY + 24) // nanoseconds
    answer.writeUInt16LE(IO_BYTES_MAX / 4096, OUT_BODY + 28)
    return 64
  }

  function entry(): number {
    answer.fill(0, OUT_BODY, OUT_BODY + 40)
    answer.writeBigUInt64LE(DISK, OUT_BODY)
    for (const valid of [16, 24]) answer.writeBigUInt64LE(VALID_SECONDS, OUT_BODY + valid)
    attributes(OUT_BODY + 40, DISK)
    return 128
  }

  function attributes(at: number, node: bigint): void {
    answer.fill(0, at, at + 88)
    answer.writeBigUInt64LE(node, at)
    answer.writeBigUInt64LE(BigInt(node === ROOT ? 4096 : fileBytes), at + 8)
    answer.writeBigUInt64LE(BigInt(Math.ceil(fileBytes / 512)), at + 16)
    answer.writeUInt32LE(node === ROOT ? 0o40755 : 0o100644, at + 60)
    answer.writeUInt32LE(1, at + 64)
    answer.writeUInt32LE(4096, at + 80)
  }
}

/** undefined: unmounted. */
function readRequest(connection: number, into: Buffer): number | undefined {
  for (;;) {
    try {
      return fs.readSync(connection, into, 0, into.length, null)
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException // what readSync throws
      if (code === 'ENODEV') return undefined
      if (code !== 'EINTR' && code !== 'ENOENT' && code !== 'EAGAIN') throw error
    }
  }
}

function writeAnswer(connection: number, answer: Buffer, lengthBytes: number): void {
  try {
    fs.writeSync(connection, answer, 0, lengthBytes)
  } catch (error) {
    // ENOENT: the request was interrupted
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error
  }
}
