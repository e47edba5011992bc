/** What people ask of a mount, answered in a few words: the same in `isrfs status` and `isrfs top`. */
import type { Status } from '../daemon/messages.js'
import { bytes, duration, percent } from './figures.js'

/** "139 MiB of 178 MiB" of what has bytes at all: holes of a disk are neither here nor there. */
export function presentText({ presentBytes, dataBytes, warm }: Status): string {
  return warm || presentBytes > dataBytes
    ? `${bytes(presentBytes)}${warm ? ', all' : ''}`
    : `${bytes(presentBytes)} of ${bytes(dataBytes)}`
}

/** Below 100 % until it is known that everything is here: some of what is present may be out of date, or be there twice. */
export function presentPercent({ presentBytes, dataBytes, warm }: Status): string {
  return warm || dataBytes === 0 ? '100 %' : percent(Math.min(presentBytes, dataBytes * 0.99), dataBytes)
}

/** How long will the suspend take? */
export function suspendText({ readOnly, discard, state, suspendBytes, suspendSeconds }: Status): string {
  if (readOnly || discard) return 'nothing to suspend: changes are not kept'
  if (state !== 'mounted') return 'on its way to the share'
  const time = suspendSeconds === null ? 'how long is not known yet' : `about ${duration(suspendSeconds)}`
  return `suspend now: ${bytes(suspendBytes)}, ${time}`
}

/** May I pull the cable? What was changed is safe on this client either way. */
export function cableText({ warm, shareAnswers }: Status): string {
  if (!shareAnswers) {
    return warm ? 'the share is away; everything is here' : 'the share is away: reads of what is not here wait for it'
  }
  return warm ? 'may be pulled: everything is here' : 'leave it in: isrfs warm fetches what is not here'
}
