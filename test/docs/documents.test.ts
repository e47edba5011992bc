/** Links lead somewhere, and what the documentation lets people type is understood. */
import fs from 'node:fs'
import path from 'node:path'
import test from 'ava'
import { parseConfiguration } from '../../src/cli/configuration/file.js'
import { commandFirst } from '../../src/cli/arguments.js'
import { buildProgram } from '../../src/cli/program.js'
import { documents, ROOT } from './generated.js'

const textOf = (name: string): string => fs.readFileSync(path.join(ROOT, name), 'utf8')
const withoutCode = (text: string): string => text.replace(/^```[^]*?^```/gm, '').replace(/`[^`\n]*`/g, '')

/** As GitHub makes them. */
function anchorsOf(text: string): Set<string> {
  const headings = [...text.matchAll(/^#{1,6} (.*)$/gm)].map(([, heading = '']) => heading)
  return new Set(
    headings.map((heading) =>
      heading
        .toLowerCase()
        .replace(/[^\p{L}\p{N}\s_-]/gu, '')
        .replace(/ /g, '-')
    )
  )
}

for (const name of documents()) {
  test(`links of ${name} lead to files and headings that there are`, (t) => {
    for (const [, target = ''] of withoutCode(textOf(name)).matchAll(/\]\(([^)\s]+)\)/g)) {
      if (/^[a-z]+:/.test(target)) continue
      const [file = '', anchor] = target.split('#')
      const place = path.join(path.dirname(name), file)
      t.true(file === '' || fs.existsSync(path.join(ROOT, place)), `${name}: ${target}`)
      if (anchor === undefined) continue
      t.true(anchorsOf(textOf(file === '' ? name : place)).has(anchor), `${name}: ${target}`)
    }
    t.pass()
  })
}

/** Lines of isrfs in code blocks, fenced or indented, and in words of code that begin with it. */
function linesOf(text: string): string[] {
  const blocks = [...text.matchAll(/^```(sh|console)\n([^]*?)^```/gm)].map(([, , block = '']) => block)
  const indented = text.split('\n').filter((line) => /^ {4,}\S/.test(line))
  const lines = [...blocks.flatMap((block) => block.split('\n')), ...indented]
  return lines
    .map((line) => /^\s*(?:\$ |npx )?(isrfs [^#|>&]*)/.exec(line)?.[1]?.trim() ?? '')
    .filter((line) => line !== '')
}

/** Whether commander takes the line; placeholders such as <vm> are words like others. */
async function isUnderstood(line: string): Promise<boolean> {
  const program = buildProgram('0').configureOutput({ writeErr: () => undefined, writeOut: () => undefined })
  let ran = false
  for (const command of program.commands) {
    command.configureOutput({ writeErr: () => undefined, writeOut: () => undefined }).action(() => void (ran = true))
  }
  const words = line.split(/\s+/).slice(1)
  const names = program.commands.flatMap((command) => [command.name(), ...command.aliases()])
  try {
    await program.parseAsync(
      commandFirst(
        words,
        (word) => names.includes(word),
        () => false
      ),
      { from: 'user' }
    )
  } catch {
    return false
  }
  return ran
}

test('every line of isrfs in a code block is one that isrfs understands', async (t) => {
  let count = 0
  for (const name of documents().filter((one) => !/CHANGELOG|reference\.md/.test(one))) {
    for (const line of linesOf(textOf(name))) {
      if (/\[|\.\.\./.test(line)) continue // a synopsis
      count++
      t.true(await isUnderstood(line), `${name}: ${line}`)
    }
  }
  t.true(count >= 20, String(count))
  t.false(await isUnderstood('isrfs mont a b'))
  t.false(await isUnderstood('isrfs mount a b --sideways'))
})

test('commands and options that are named in running text exist', (t) => {
  const program = buildProgram('0')
  const names = new Set(program.commands.flatMap((command) => [command.name(), ...command.aliases()]))
  for (const name of documents().filter((one) => !one.startsWith('CHANGELOG'))) {
    for (const [, word = ''] of textOf(name).matchAll(/`isrfs ([a-z][a-z-]*)/g))
      t.true(names.has(word), `${name}: isrfs ${word}`)
  }
})

test('blocks of TOML, JSON and shell are right', (t) => {
  for (const name of documents()) {
    for (const [, language, block = ''] of textOf(name).matchAll(/^```(toml|json)\n([^]*?)^```/gm)) {
      if (language === 'json') t.notThrows(() => JSON.parse(block) as unknown, name)
      else t.notThrows(() => parseConfiguration(name, block), name)
    }
  }
  t.pass()
})

test('every command is in the table of the README', (t) => {
  const readme = textOf('README.md')
  for (const command of buildProgram('0').commands) {
    if (command.name() !== 'manual') t.regex(readme, new RegExp(`^\\| \`isrfs ${command.name()}\\b`, 'm'))
  }
})

test('the tests that docs/durability.md names exist, with those titles', (t) => {
  const files = fs.readdirSync(path.join(ROOT, 'test'), { recursive: true }).map((name) => `test/${String(name)}`)
  const rows = textOf('docs/durability.md')
    .split('\n')
    .filter((line) => /^\| \d+ \|/.test(line))
  t.true(rows.length > 30)
  for (const row of rows) {
    const named = [...row.matchAll(/`([\w./-]+\.test\.ts)`((?:,? "[^"]+")*)/g)]
    t.true(named.length > 0, row)
    for (const [, name = '', titles = ''] of named) {
      const found = files.filter((file) => file === name || file.endsWith(`/${name}`))
      t.is(found.length, 1, name)
      const text = textOf(found[0] ?? '')
      for (const [, title = ''] of titles.matchAll(/"([^"]+)"/g)) t.true(text.includes(title), `${name}: ${title}`)
    }
  }
})
