/** Colours of the states of blocks, told apart by brightness too. Where nothing is, the page shows through, light or dark. */
import type { Cells } from './api.js'

export type StateName = keyof Cells['states'] | 'absent'

export type Colours = Readonly<Record<StateName, readonly [number, number, number]>>

const LIGHT: Colours = {
  absent: [176, 184, 196],
  empty: [236, 239, 243],
  present: [58, 145, 92],
  foretold: [52, 120, 196],
  dirty: [208, 52, 74],
  sent: [140, 96, 190],
  inFlight: [245, 176, 30]
}

const DARK: Colours = { ...LIGHT, absent: [98, 108, 122], empty: [42, 50, 59] }

const dark = window.matchMedia('(prefers-color-scheme: dark)')

/** As the page is now. */
export function colours(): Colours {
  return dark.matches ? DARK : LIGHT
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
  return `rgb(${colours()[state].join(' ')})`
}
