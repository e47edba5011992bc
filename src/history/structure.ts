/**
 * What a VM's directories say about each other, for `check`: every number up to the newest one is there (as a generation or
 * its tombstone), every generation was made from the one that it names, the newest is the one that the lease promises, and
 * lease and pins can be read. Looks at names and small files only.
 */
import { IntegrityError, messageOf } from '../base/errors.js'
import { toGeneration } from '../base/units.js'
import { digestOfGeneration, generationName, listGenerations, UNKNOWN_DIGEST } from '../format/generations.js'
import { type GenerationReference, newestKnown, readLease } from '../share/lease.js'
import { listPins, readPin } from '../share/pin.js'
import type { Share } from '../share/share.js'
import type { LiveGeneration } from './references.js'

/** Something that is not as it has to be. */
export interface Flaw {
  /** path on the share */
  readonly path: string
  readonly why: string
  /** generations and branches that cannot be read because of it */
  readonly generations: readonly string[]
}

/** What the lease promises: read before the generations are listed, so that a mount that ends meanwhile is no flaw. */
export function readPromise(share: Share): { readonly promised: GenerationReference | null; readonly flaws: Flaw[] } {
  try {
    return { promised: newestKnown(readLease(share)), flaws: [] }
  } catch (error) {
    return { promised: null, flaws: [flawOf(share.pathOf('leases'), error)] }
  }
}

export function findFlaws(share: Share, live: readonly LiveGeneration[], promised: GenerationReference | null): Flaw[] {
  const flaws = [...missingNumbers(share, promised), ...brokenChains(share, live)]
  for (const name of listPins(share)) {
    try {
      readPin(share, name)
    } catch (error) {
      flaws.push(flawOf(share.pathOf(name), error))
    }
  }
  return flaws
}

/** Numbers are given out without gaps, and prune leaves a tombstone in each. */
function missingNumbers(share: Share, promised: GenerationReference | null): Flaw[] {
  const numbers = new Set<number>(listGenerations(share))
  const newest = Math.max(0, ...numbers)
  const flaws: Flaw[] = []
  const add = (number: number, why: string): void => {
    flaws.push({ path: share.pathOf(generationName(number)), why, generations: [String(number)] })
  }
  // A hostile number would make a list without end: a run of missing ones is one flaw.
  let expected = 1
  for (const number of [...numbers].sort((first, second) => first - second)) {
    const last = number - 1
    if (last >= expected) add(last, last === expected ? 'it is missing' : `${rangeOf(expected, last)} are missing`)
    expected = number + 1
  }
  if (promised === null) return flaws
  if (promised.number > newest) {
    const hint = `when it is gone for good: isrfs rollback ${share.root} <n> --accept-rollback`
    add(promised.number, `it is missing, although ${leasesOf(share)} name it as published; ${hint}`)
  } else if (promised.number === newest && digestOrNothing(share, newest) !== promised.digest) {
    add(newest, `it is not the one that ${leasesOf(share)} name as published`)
  }
  return flaws
}

function brokenChains(share: Share, live: readonly LiveGeneration[]): Flaw[] {
  return live.flatMap(({ name, published }) => {
    const { parent } = published.manifest
    if (parent === null) return []
    const digest = digestOrNothing(share, parent.generation)
    if (digest === undefined || digest === UNKNOWN_DIGEST || digest === parent.digest) return []
    const why = `generation ${name} was made from another generation ${String(parent.generation)} than this one`
    return [{ path: share.pathOf(generationName(parent.generation)), why, generations: [] }]
  })
}

/** undefined for one that is missing or damaged, which is a flaw of its own. */
function digestOrNothing(share: Share, number: number): string | undefined {
  try {
    return digestOfGeneration(share, toGeneration(number))
  } catch (error) {
    if (error instanceof IntegrityError) return undefined
    throw error
  }
}

/** Throws what says nothing of the object: trouble of the share. */
function flawOf(path: string, error: unknown): Flaw {
  if (!(error instanceof IntegrityError)) throw error
  const hint = error.hint === undefined ? '' : `; ${error.hint}`
  return { path, why: `${messageOf(error)}${hint}`, generations: [] }
}

function rangeOf(first: number, last: number): string {
  return `generations ${String(first)} to ${String(last)}`
}

function leasesOf(share: Share): string {
  return share.pathOf('leases')
}
