#!/usr/bin/env node
/** isrfs: the command line. Results on stdout, words for people on stderr, exit codes as in docs/operations.md. */
import { CommanderError } from 'commander'
import fs from 'node:fs'
import { EXIT_CODES } from '../base/errors.js'
import { packageFile } from '../base/program-files.js'
import { commandFirst } from './arguments.js'
import { report } from './output.js'
import { buildProgram } from './program.js'

process.exitCode = await run(process.argv.slice(2))

async function run(words: readonly string[]): Promise<number> {
  const program = buildProgram(version())
  const commands = program.commands.flatMap((command) => [command.name(), ...command.aliases()])
  const withValue = [program, ...program.commands]
    .flatMap((command) => command.options)
    .filter((option) => option.required)
    .flatMap(({ long, short }) => [long, short])
  const ordered = commandFirst(
    words,
    (word) => commands.includes(word) || word === 'help',
    (option) => withValue.includes(option)
  )
  try {
    await program.parseAsync(ordered, { from: 'user' })
    return 0
  } catch (error) {
    if (!(error instanceof CommanderError)) return report(error)
    return error.exitCode === 0 ? 0 : EXIT_CODES.USAGE // commander has said what is wrong
  }
}

function version(): string {
  try {
    const text = fs.readFileSync(packageFile('package.json'), 'utf8')
    return (JSON.parse(text) as { version?: string }).version ?? '' // our own package.json
  } catch {
    return ''
  }
}
