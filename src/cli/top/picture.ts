/** A map of blocks in letters: one a cell, told apart without colour. */
import type { Cells } from '../../daemon/messages.js'

export type CellKind = 'dirty' | 'inFlight' | 'foretold' | 'present' | 'partly' | 'sent' | 'empty' | 'absent'

export const LETTERS: Readonly<Record<CellKind, string>> = {
  dirty: 'D',
  inFlight: '*',
  foretold: 'p',
  present: '#',
  partly: '+',
  sent: 's',
  empty: ' ',
  absent: '.'
}

export interface Run {
  readonly kind: CellKind
  readonly text: string
}

/** Rows of at most `width` cells, each as runs of one kind. */
export function pictureOf(cells: Cells, width: number): Run[][] {
  const rows: Run[][] = []
  const kinds = kindsOf(cells)
  for (let at = 0; at < kinds.length; at += width) {
    const runs: Run[] = []
    for (const kind of kinds.slice(at, at + width)) {
      const last = runs.at(-1)
      if (last?.kind === kind) runs[runs.length - 1] = { kind, text: last.text + LETTERS[kind] }
      else runs.push({ kind, text: LETTERS[kind] })
    }
    rows.push(runs)
  }
  return rows
}

/** What a cell shows: whatever is going on in it first, then what most of it is. */
function kindsOf({ cells, states }: Cells): CellKind[] {
  const bytes = Object.fromEntries(
    Object.entries(states).map(([state, text]) => [state, Buffer.from(text, 'base64')])
  ) as Record<keyof Cells['states'], Buffer>
  return Array.from({ length: cells }, (_none, cell) => {
    const share = (state: keyof Cells['states']): number => bytes[state][cell] ?? 0
    if (share('inFlight') > 0) return 'inFlight'
    if (share('dirty') > 0) return 'dirty'
    if (share('sent') > 0) return 'sent'
    const here = share('present') + share('foretold')
    if (here === 0) return share('empty') === 255 ? 'empty' : 'absent'
    if (here + share('empty') < 254) return 'partly'
    return share('foretold') > share('present') ? 'foretold' : 'present'
  })
}
