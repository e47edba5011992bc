/**
 * Numbered directories (generations, leases): eight decimal digits, the highest counts, none is used again. Numbers are
 * found by listing only. A name that was probed before it existed stays "no such file" in NFS clients for up to a
 * minute; a listing is right.
 */
import { FailedError } from '../base/errors.js'
import type { Share } from './share.js'

const NUMBER_PATTERN = /^\d{8}$/
const NUMBER_MAX = 99_999_999

export function numberedName(folder: string, number: number): string {
  // Nine digits would not be listed: whoever made such a directory could not find it again.
  if (number > NUMBER_MAX) throw new FailedError(`${folder} has no number left after ${String(NUMBER_MAX)}`)
  return `${folder}/${String(number).padStart(8, '0')}`
}

/** All numbers in a folder, ascending, from a fresh listing. */
export function listNumbers(share: Share, folder: string): number[] {
  return share
    .list(folder)
    .filter((name) => NUMBER_PATTERN.test(name))
    .map(Number)
    .sort((first, second) => first - second)
}
