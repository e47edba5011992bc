/** Results go to stdout, everything said to a person goes to stderr. */
import { EXIT_CODES, IsrfsError } from '../base/errors.js'
import { coloured } from './colour.js'

// A reader that has gone (isrfs logs ... | head) is no failure; a result that could not be written (a full disk) is one.
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  if (error.code === 'EPIPE') return
  notice(`the result cannot be written: ${error.message}`)
  process.on('exit', (code) => {
    if (code === 0) process.exitCode = EXIT_CODES.FAILED
  })
})
process.stderr.on('error', () => undefined) // nobody listens

export function result(text: string): void {
  process.stdout.write(`${text}\n`)
}

/** The result for a program (--json: one line) or for a person. */
export function resultAs(json: boolean | undefined, value: unknown, text: () => string): void {
  result(json === true ? JSON.stringify(value) : text())
}

export function notice(text: string): void {
  process.stderr.write(`isrfs: ${text}\n`)
}

/** Tells what happened and what to do next, never a stack (ISRFS_DEBUG=1 shows it). Returns the exit code. */
export function report(error: unknown): number {
  if (process.env['ISRFS_DEBUG'] === '1' && error instanceof Error) process.stderr.write(`${error.stack ?? ''}\n`)
  if (error instanceof IsrfsError) {
    process.stderr.write(`${coloured(['bold', 'red'], 'isrfs:', process.stderr)} ${error.message}\n`)
    if (error.hint !== undefined) notice(`  ${error.hint}`)
    return EXIT_CODES[error.code]
  }
  notice(error instanceof Error ? error.message : String(error))
  return EXIT_CODES.FAILED
}
