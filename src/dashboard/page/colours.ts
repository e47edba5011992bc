/** Colours of the states of blocks, for light and dark pages alike, told apart by brightness too. */
import type { Cells } from './api.js'

export type StateName = keyof Cells['states'] | 'absent'

export const COLOURS: Readonly<Record<StateName, readonly [number, number, number]>> = {
  absent: [176, 184, 196],
  empty: [236, 239, 243],
  present: [58, 145, 92],
  foretold: [52, 120, 196],
  dirty: [208, 52, 74],
  sent: [140, 96, 190],
  inFlight: [245, 176, 30]
}

export const STATE_TEXTS: readonly (readonly [StateName, string])[] = [
  ['absent', 'absent: on the share only'],
  ['present', 'present: on this disk'],
  ['foretold', 'present because of the profile'],
  ['inFlight', 'in flight'],
  ['dirty', 'changed'],
  ['sent', 'changed, and sent already'],
  ['empty', 'no bytes']
]

export function css(state: StateName): string {
  return `rgb(${COLOURS[state].join(' ')})`
}
