/**
 * `check --cache`: compares every cached block with the digest that its region's footer claims, and drops the bad ones.
 * Nothing depends on it: a block counts only after it was compared in the mount that reads it. Slots that a mount uses are
 * left alone.
 */
import fs from 'node:fs'
import path from 'node:path'
import { sha256 } from '../base/digest.js'
import { errnoOf } from '../base/errors.js'
import { DirectoryLock } from '../base/file-lock.js'
import { BLOCK_BYTES, BLOCKS_PER_REGION } from '../base/units.js'
import { digestAt, readFooter, writeFooter } from './region-file.js'

export interface CheckedCache {
  readonly blocks: number
  /** dropped: "<region file>, block <n>" */
  readonly bad: readonly string[]
  /** directories that a mount is using */
  readonly inUse: readonly string[]
}

/** `directory` holds a directory for each VM, with one for each slot in it. */
export function checkCache(directory: string): CheckedCache {
  const bad: string[] = []
  const inUse: string[] = []
  let blocks = 0
  for (const slot of namesIn(directory).flatMap((vm) =>
    namesIn(path.join(directory, vm)).map((name) => path.join(directory, vm, name))
  )) {
    const lock = DirectoryLock.tryAcquire(path.join(slot, 'lock'))
    if (lock === undefined) {
      inUse.push(slot)
      continue
    }
    try {
      for (const name of namesIn(slot).filter((each) => /^\d+-\d+$/.test(each))) {
        blocks += checkRegion(path.join(slot, name), bad)
      }
    } finally {
      lock.release()
    }
  }
  return { blocks, bad, inUse }
}

function checkRegion(file: string, bad: string[]): number {
  const fd = fs.openSync(file, fs.constants.O_RDWR | fs.constants.O_NOFOLLOW)
  try {
    const digests = Buffer.from(readFooter(fd))
    const block = Buffer.alloc(BLOCK_BYTES)
    let blocks = 0
    let dropped = false
    for (let index = 0; index < BLOCKS_PER_REGION; index++) {
      const digest = digestAt(digests, index)
      if (digest.every((byte) => byte === 0)) continue
      blocks++
      const count = fs.readSync(fd, block, 0, BLOCK_BYTES, index * BLOCK_BYTES)
      if (count === BLOCK_BYTES && sha256(block).equals(digest)) continue
      bad.push(`${file}, block ${String(index)}`)
      digest.fill(0)
      dropped = true
    }
    if (dropped) writeFooter(fd, digests)
    return blocks
  } finally {
    fs.closeSync(fd)
  }
}

function namesIn(directory: string): string[] {
  try {
    return fs.readdirSync(directory)
  } catch (error) {
    if (errnoOf(error) === 'ENOENT' || errnoOf(error) === 'ENOTDIR') return []
    throw error
  }
}
