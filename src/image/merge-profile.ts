/**
 * The profile for the next mount: what this one read first, in its order, then what earlier ones did and this one did not.
 * Blocks that two mounts in a row have not read drop out.
 */
import { toInodeId } from '../base/units.js'
import { type Profile, PROFILE_BLOCKS_MAX, type ProfileRun } from '../format/profile.js'
import type { FirstTouches } from './first-touches.js'

const MISSES_MAX = 2
/** a mount that read less than this part of a profile was no resume (somebody looked around): it tells nothing */
const TELLING_PART = 0.25

export function mergeProfile(old: Profile | undefined, touches: FirstTouches): Profile {
  const oldRuns = old?.runs ?? []
  const isTelling = usedBlocks(oldRuns, touches) >= TELLING_PART * countBlocks(oldRuns)
  const known = new Set(
    isTelling ? [] : oldRuns.flatMap((run) => [...blocksOf(run)].map((block) => keyOf(run.inode, block)))
  )
  const runs = new Runs()
  // somebody who looked around must not push what a resume needs to the end
  if (!isTelling) for (const run of oldRuns) runs.addRun(run, run.missed)
  for (const run of touches.runs) {
    for (let block = run.first; block < run.first + run.count; block++) {
      if (!known.has(keyOf(run.inode, block))) runs.add(run.inode, block, 0)
    }
  }
  if (isTelling) {
    for (const run of oldRuns) {
      if (run.missed + 1 >= MISSES_MAX) continue
      for (const block of blocksOf(run)) {
        if (!touches.has(toInodeId(run.inode), block)) runs.add(run.inode, block, run.missed + 1)
      }
    }
  }
  return { runs: runs.all }
}

class Runs {
  readonly all: { inode: number; first: number; count: number; missed: number }[] = []
  #blocks = 0

  addRun(run: ProfileRun, missed: number): void {
    for (const block of blocksOf(run)) this.add(run.inode, block, missed)
  }

  add(inode: number, block: number, missed: number): void {
    if (this.#blocks >= PROFILE_BLOCKS_MAX) return
    this.#blocks++
    const last = this.all.at(-1)
    const continues = last?.inode === inode && last.missed === missed && last.first + last.count === block
    if (continues) last.count++
    else this.all.push({ inode, first: block, count: 1, missed })
  }
}

function countBlocks(runs: readonly ProfileRun[]): number {
  return runs.reduce((blocks, { count }) => blocks + count, 0)
}

function usedBlocks(runs: readonly ProfileRun[], touches: FirstTouches): number {
  let used = 0
  for (const run of runs) for (const block of blocksOf(run)) if (touches.has(toInodeId(run.inode), block)) used++
  return used
}

function keyOf(inode: number, block: number): string {
  return `${String(inode)}:${String(block)}`
}

function* blocksOf({ first, count }: ProfileRun): Generator<number> {
  for (let block = first; block < first + count; block++) yield block
}
