/** Man pages: one for each command, of words that man understands. */
import { execFileSync } from 'node:child_process'
import fs from 'node:fs'
import path from 'node:path'
import test from 'ava'
import { EXIT_CODES } from '../../src/base/errors.js'
import { completionScript } from '../../src/cli/completion.js'
import { EXIT_CODE_TEXTS, manPages } from '../../src/cli/manual.js'
import { buildProgram } from '../../src/cli/program.js'
import { Bed, CLI } from '../support/bed.js'

test('every command has a page with its options, and what begins a request of roff is escaped', (t) => {
  const program = buildProgram('1.2')
  const pages = manPages(program)
  for (const command of program.commands.filter((one) => one.name() !== 'manual')) {
    const page = pages.get(`isrfs-${command.name()}.1`) ?? ''
    for (const { long } of command.options)
      t.true(page.includes((long ?? '').replaceAll('-', '\\-')), `${command.name()} ${String(long)}`)
    for (const heading of ['NAME', 'SYNOPSIS', 'EXAMPLES', 'EXIT STATUS'])
      t.true(page.includes(`.SH ${heading}\n`), command.name())
  }
  for (const [name, page] of pages) {
    for (const line of page.split('\n'))
      t.regex(line, /^(\.(TH|SH|TP|B|I|PP|nf|fi|RS|RE)( |$)|[^.'])/, `${name}: ${line}`)
  }
  t.false(pages.has('isrfs-manual.1'))
  for (const shell of ['bash', 'zsh', 'fish'] as const) t.notRegex(completionScript(shell, program), /manual/)
})

test('all exit codes are told of', (t) => {
  const codes = [...new Set([0, ...Object.values(EXIT_CODES)])].sort().map(String)
  t.deepEqual(
    EXIT_CODE_TEXTS.map(({ term }) => term),
    codes
  )
  const table = fs.readFileSync('docs/operations.md', 'utf8')
  for (const code of codes) t.regex(table, new RegExp(`^\\| ${code} \\|`, 'm'))
})

test('the program writes them, and groff has nothing to complain of', async (t) => {
  const bed = new Bed('manual')
  try {
    execFileSync(process.execPath, [CLI, 'manual', bed.root])
    const names = fs.readdirSync(bed.root).filter((name) => name.endsWith('.1'))
    t.true(names.length > 15)
    for (const name of names) {
      const { stderr } = await bed.command('groff', ['-man', '-Tutf8', '-ww', path.join(bed.root, name)])
      t.is(stderr, '', name)
    }
  } finally {
    await bed.destroy()
  }
})
