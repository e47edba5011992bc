/** Names of the files of a log. Apart from log-file.ts, because command lines that start a daemon need no logger. */

/** Number 0 is the current file. */
export function olderLog(path: string, number: number): string {
  return number === 0 ? path : `${path}.${String(number)}`
}
