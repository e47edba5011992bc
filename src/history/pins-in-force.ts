/**
 * Which pins hold a prune back, and what to tell a person of them.
 *
 * A pin of a mount counts while its beats come. They come every few seconds, but the share may be slow and a client's view
 * of it old: so no grace, however short, makes one count for less than `SILENT_MS_MAX`. A pin of a session whose lease was
 * broken has no beats and counts until it is removed. All times are the server's.
 */
import { type PinState, readPins } from '../share/pin.js'
import type { Share } from '../share/share.js'

/** of a mount that may be alive still: many intervals of its beats */
export const SILENT_MS_MAX = 5 * 60_000

/** A pin that keeps prune from removing chunks. */
export interface HeldBack {
  /** of the pin, on the share */
  readonly path: string
  readonly why: string
}

export function isInForce(share: Share, pin: PinState, graceMs: number): boolean {
  if (pin.isOfSession) return true
  const modifiedMs = share.modifiedMs(`${pin.name}/beat.json`) ?? share.modifiedMs(pin.name)
  return modifiedMs !== undefined && share.serverNowMs() - modifiedMs < Math.max(graceMs, SILENT_MS_MAX)
}

/**
 * Pins of which nobody can tell which chunks they need: those of sessions, which may have sent some that no generation has
 * yet, and those of generations that are not among the ones that stay.
 */
export function pinsOfUnknownChunks(share: Share, staying: ReadonlySet<number>, graceMs: number): HeldBack[] {
  return readPins(share)
    .filter((pin) => pin.isOfSession || (isInForce(share, pin, graceMs) && !staying.has(pin.generation)))
    .map((pin) => ({ path: share.pathOf(pin.name), why: describePin(share, pin) }))
}

export function describePin(share: Share, { name, holder, taken, isOfSession }: PinState): string {
  const what = isOfSession
    ? `${holder.host} may have changes that are not published, made under a lease that was broken, since ${taken}; isrfs recover ${share.root} there publishes them as a branch, or drops them`
    : `in use by ${holder.host}, ${holder.mountpoint}, since ${taken}`
  return `${what}; when that client is gone for good: rm -r ${share.pathOf(name)}`
}
