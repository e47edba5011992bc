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

export interface Fetched {
  readonly fetchedBytes: number
  readonly fetchedBlocks: number
  readonly busySeconds: number
}

export interface SuspendEstimate {
  readonly bytes: number
  readonly seconds: number | null
}

export interface Sent {
  readonly bytes: number
  readonly seconds: number
}

/**
 * How much a suspend would send now, and how long that would take: blocks are taken to be as compressible as what was fetched in this
 * mount, and the share as fast as it was when changes were sent ahead, or, while none were, when blocks were fetched. `seconds` is null
 * while too little was transferred to tell.
 */
export function estimateSuspend(unsentBlocks: number, fetched: Fetched, sent: Sent): SuspendEstimate {
  const { fetchedBytes, fetchedBlocks, busySeconds } = fetched
  const ratio =
    fetchedBlocks < TELLING_BLOCKS_MIN ? USUAL_RATIO : Math.min(1, fetchedBytes / (fetchedBlocks * BLOCK_BYTES))
  const bytes = Math.ceil(unsentBlocks * BLOCK_BYTES * ratio)
  if (bytes === 0) return { bytes, seconds: SUSPEND_SECONDS_MIN }
  const speed = speedOf(sent) ?? speedOf({ bytes: fetchedBytes, seconds: busySeconds })
  return { bytes, seconds: speed === undefined ? null : SUSPEND_SECONDS_MIN + bytes / speed }
}

/** Bytes a second; undefined: not known. */
function speedOf({ bytes, seconds }: Sent): number | undefined {
  return bytes > 0 && seconds >= TELLING_SECONDS_MIN ? bytes / seconds : undefined
}
