/**
 * A block on its way into a region file of the cache, written by the thread that has fetched and verified it, or put it together for a
 * suspend: its bytes cross no other thread, and the one that serves FUSE does not write them.
 *
 * Invariants:
 * 1. Only the owner of the cache begins and ends a landing (Cache), one for a block at a time. Until it has ended the block is not
 *    present, so nobody believes what is being written, and nobody else writes the block.
 * 2. A landing does not count when the region's file was lost during it, or another version of the block was to be kept. Nobody
 *    knows then what the file has of the block, and nothing claims it.
 * 3. No thread writes after the gate was closed and its writers have gone. That is when the cache may become another process's.
 */
import fs from 'node:fs'
import { closeQuietly } from '../base/close-quietly.js'
import { isOwnFile } from '../base/own-directory.js'
import { REGION_BYTES } from '../base/units.js'
import { writeBlock } from './region-file.js'

/** Plain data, for a thread. */
export interface Landing {
  /** the region file, which is there already, and its inode number */
  readonly file: string
  readonly ino: number
  /** of the block within it, in bytes */
  readonly offset: number
  /** the file has nothing at this place, so zero pages need not be written */
  readonly isHole: boolean
  /** shared: how many threads write now, and whether the gate is closed */
  readonly gate: Int32Array
}

const WRITERS = 0
const IS_CLOSED = 1

export function createGate(): Int32Array {
  return new Int32Array(new SharedArrayBuffer(2 * Int32Array.BYTES_PER_ELEMENT))
}

export function closeGate(gate: Int32Array): void {
  Atomics.store(gate, IS_CLOSED, 1)
}

export function hasWriters(gate: Int32Array): boolean {
  return Atomics.load(gate, WRITERS) > 0
}

/** Writes the block. Returns the bytes that it took on the disk; undefined: it is not there, and its bytes go to the owner. */
export function landBlock({ file, ino, offset, isHole, gate }: Landing, plain: Uint8Array): number | undefined {
  let fd: number | undefined
  Atomics.add(gate, WRITERS, 1)
  try {
    if (Atomics.load(gate, IS_CLOSED) === 1) return undefined
    const { O_RDWR, O_NOFOLLOW, O_NONBLOCK } = fs.constants
    fd = fs.openSync(file, O_RDWR | O_NOFOLLOW | O_NONBLOCK)
    const found = fs.fstatSync(fd)
    // behind the end of a file that somebody has cut, the block would make holes of blocks that are present
    if (!isOwnFile(fd) || found.ino !== ino || found.size < REGION_BYTES) return undefined
    return writeBlock(fd, plain, offset, isHole)
  } catch {
    return undefined // evicted meanwhile, or the disk is full: the owner sees to it
  } finally {
    if (fd !== undefined) closeQuietly(fd)
    Atomics.sub(gate, WRITERS, 1)
  }
}
