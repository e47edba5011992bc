/** What a suspend would take now. */
import { BLOCK_BYTES } from '../base/units.js'

/** blocks that have to have come before their size on the share says what others will need */
const TELLING_BLOCKS_MIN = 16
/** bytes on the share for a byte of a block, while nothing better is known */
const USUAL_RATIO = 0.5
/** how long transfers have to have run before they say how fast the share is */
const TELLING_SECONDS_MIN = 0.2
/** what a suspend takes beside its bytes */
const SUSPEND_SECONDS_MIN = 1
/** reading, hashing and keeping a changed block, whether it has to be sent or not: 64 MiB a second, on two busy processors */
const SECONDS_PER_BLOCK = 0.002

export interface Fetched {
  readonly fetchedBytes: number
  readonly fetchedBlocks: number
  readonly busySeconds: number
}

export interface SuspendEstimate {
  readonly bytes: number
  readonly seconds: number | null
}

/** Blocks with changes, and of these those that the share does not have yet. */
export interface ChangedBlocks {
  readonly changed: number
  readonly unsent: number
}

export interface Sent {
  readonly bytes: number
  readonly seconds: number
}

/**
 * How much a suspend would send now, and how long that would take: blocks are taken to be as compressible as what was fetched in this
 * mount, and the share as fast as it was when changes were sent ahead, or, while none were, when blocks were fetched; every changed block is looked at. `seconds` is null
 * while too little was transferred to tell.
 */
export function estimateSuspend({ changed, unsent }: ChangedBlocks, fetched: Fetched, sent: Sent): SuspendEstimate {
  const { fetchedBytes, fetchedBlocks, busySeconds } = fetched
  const ratio =
    fetchedBlocks < TELLING_BLOCKS_MIN ? USUAL_RATIO : Math.min(1, fetchedBytes / (fetchedBlocks * BLOCK_BYTES))
  const bytes = Math.ceil(unsent * BLOCK_BYTES * ratio)
  const lookSeconds = SUSPEND_SECONDS_MIN + changed * SECONDS_PER_BLOCK
  if (bytes === 0) return { bytes, seconds: lookSeconds }
  const speed = speedOf(sent) ?? speedOf({ bytes: fetchedBytes, seconds: busySeconds })
  return { bytes, seconds: speed === undefined ? null : lookSeconds + bytes / speed }
}

/** Bytes a second; undefined: not known. */
function speedOf({ bytes, seconds }: Sent): number | undefined {
  return bytes > 0 && seconds >= TELLING_SECONDS_MIN ? bytes / seconds : undefined
}
