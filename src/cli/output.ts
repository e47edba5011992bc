/** Results go to stdout, everything said to a person goes to stderr. */
import { EXIT_CODES, IsrfsError } from '../base/errors.js'

export function result(text: string): void {
  process.stdout.write(`${text}\n`)
}

export function notice(text: string): void {
  process.stderr.write(`isrfs: ${text}\n`)
}

/** Tells what happened and what to do next, never a stack (ISRFS_DEBUG=1 shows it). Returns the exit code. */
export function report(error: unknown): number {
  if (process.env['ISRFS_DEBUG'] === '1' && error instanceof Error) process.stderr.write(`${error.stack ?? ''}\n`)
  if (error instanceof IsrfsError) {
    notice(error.message)
    if (error.hint !== undefined) notice(`  ${error.hint}`)
    return EXIT_CODES[error.code]
  }
  notice(error instanceof Error ? error.message : String(error))
  return EXIT_CODES.FAILED
}
