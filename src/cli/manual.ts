/**
 * The commands as man pages and as docs/reference.md: written from what commander knows, so that neither can say something else than
 * --help does.
 */
import type { Argument, Command, Option } from 'commander'
import { environmentName, SETTINGS } from './configuration/settings.js'
import { EXAMPLES } from './examples.js'

interface Page {
  readonly name: string
  readonly usage: string
  readonly description: string
  readonly arguments: readonly Described[]
  readonly options: readonly Described[]
  readonly examples: readonly { readonly line: string; readonly what: string }[]
}

interface Described {
  readonly term: string
  readonly text: string
}

export const EXIT_CODE_TEXTS: readonly Described[] = [
  { term: '0', text: 'done' },
  { term: '1', text: 'failed; the message names the path and the next step' },
  { term: '2', text: 'wrong usage or configuration' },
  { term: '3', text: 'another client holds the lease' },
  { term: '4', text: 'data is damaged' },
  { term: '5', text: 'not published; the changes are safe, on this client or as a branch that the message names' },
  { term: '6', text: 'the mountpoint is busy' }
]

/** File name -> text of every man page. */
export function manPages(program: Command): ReadonlyMap<string, string> {
  const pages = new Map([['isrfs.1', overviewPage(program)]])
  for (const page of pagesOf(program)) pages.set(`isrfs-${page.name}.1`, commandPage(page, program))
  return pages
}

export function referenceText(program: Command): string {
  const globals = program.options.filter(isShown).map((option) => describedOption(option))
  const parts = pagesOf(program).map((page) => {
    const names = page.name === 'unmount' ? 'Also `isrfs umount`. ' : ''
    const lines = [`## isrfs ${page.name}`, `\`\`\`\n${page.usage}\n\`\`\``, `${names}${sentence(page.description)}`]
    const terms = [...page.arguments, ...page.options]
    if (terms.length > 0) lines.push(terms.map(({ term, text }) => `- \`${term}\`: ${text}`).join('\n'))
    lines.push(`\`\`\`sh\n${page.examples.map(({ line, what }) => `# ${what}\n${line}`).join('\n')}\n\`\`\``)
    return lines.join('\n\n')
  })
  const all = ['## All commands', globals.map(({ term, text }) => `- \`${term}\`: ${text}`).join('\n')]
  const codes = ['## Exit codes', EXIT_CODE_TEXTS.map(({ term, text }) => `- ${term}: ${text}`).join('\n')]
  return [...parts, ...all, ...codes].join('\n\n')
}

function pagesOf(program: Command): Page[] {
  const visible = program.createHelp().visibleCommands(program)
  return visible.filter((command) => program.commands.includes(command)).map((command) => pageOf(command)) // not `help`
}

function pageOf(command: Command): Page {
  return {
    name: command.name(),
    usage: `isrfs ${command.name()} ${command.usage()}`.trim(),
    description: command.description(),
    arguments: command.registeredArguments
      .map((argument) => ({ term: argumentTerm(argument), text: argument.description }))
      .filter(({ text }) => text !== ''),
    options: command.options.filter(isShown).map((option) => describedOption(option)),
    examples: EXAMPLES[command.name()] ?? []
  }
}

function isShown(option: Option): boolean {
  return !option.hidden
}

function describedOption(option: Option): Described {
  return { term: option.flags, text: optionText(option) }
}

/** With its default and its variable. */
export function optionText(option: Option): string {
  const setting = SETTINGS.find(
    (one) => one.name.slice(one.name.indexOf('.') + 1) === option.name() && !option.isBoolean()
  )
  const notes = [
    ...(option.defaultValue === undefined || option.isBoolean() ? [] : [`default: ${String(option.defaultValue)}`]),
    ...(setting === undefined ? [] : [environmentName(setting)])
  ]
  return notes.length === 0 ? option.description : `${option.description} (${notes.join('; ')})`
}

function argumentTerm(argument: Argument): string {
  const name = `${argument.name()}${argument.variadic ? '...' : ''}`
  return argument.required ? `<${name}>` : `[${name}]`
}

function overviewPage(program: Command): string {
  const commands = pagesOf(program).map(({ name, description }) => ({ term: `isrfs-${name}(1)`, text: description }))
  const globals = program.options.filter(isShown).map((option) => describedOption(option))
  const settings = SETTINGS.map((setting) => ({
    term: `${setting.name}, ${environmentName(setting)}`,
    text: `${setting.description} (default: ${String(setting.default ?? setting.otherwise ?? 'none')})`
  }))
  return [
    header('isrfs', program),
    section('NAME', `isrfs \\- ${roff(program.description())}`),
    section('SYNOPSIS', '.B isrfs\n.I command\n[options] [arguments]'),
    section('COMMANDS', terms(commands)),
    section('OPTIONS OF ALL COMMANDS', terms(globals)),
    section(
      'CONFIGURATION',
      `${roff('Options count more than the environment, that more than ~/.config/isrfs/config.toml, that more than /etc/isrfs.toml. isrfs config prints what is in force. Names in a file, before the dot the table, and variables:')}\n${terms(settings)}`
    ),
    section('EXIT STATUS', terms(EXIT_CODE_TEXTS)),
    section('SEE ALSO', roff('fusermount3(1), mount(8); the documentation in lib/isrfs/docs of the installation'))
  ].join('\n')
}

function commandPage(page: Page, program: Command): string {
  const examples = page.examples.map(
    ({ line, what }) => `.PP\n${roff(sentence(what))}\n.PP\n.nf\n.RS\n${roff(line)}\n.RE\n.fi`
  )
  return [
    header(`isrfs-${page.name}`, program),
    section('NAME', `isrfs-${page.name} \\- ${roff(page.description)}`),
    section('SYNOPSIS', `.B ${roff(page.usage)}`),
    ...(page.arguments.length === 0 ? [] : [section('ARGUMENTS', terms(page.arguments))]),
    ...(page.options.length === 0 ? [] : [section('OPTIONS', terms(page.options))]),
    section('EXAMPLES', examples.join('\n')),
    section('EXIT STATUS', terms(EXIT_CODE_TEXTS)),
    section('SEE ALSO', 'isrfs(1)')
  ].join('\n')
}

function header(name: string, program: Command): string {
  return `.TH ${name.toUpperCase()} 1 "" "isrfs ${program.version() ?? ''}" "isrfs"`
}

function section(title: string, text: string): string {
  return `.SH ${title}\n${text}`
}

function terms(described: readonly Described[]): string {
  return described.map(({ term, text }) => `.TP\n.B ${roff(term)}\n${roff(text)}`).join('\n')
}

function roff(text: string): string {
  return text
    .replace(/\\/g, '\\e')
    .replace(/-/g, '\\-')
    .replace(/’/g, "'")
    .replace(/^([.'])/gm, '\\&$1')
}

function sentence(text: string): string {
  return `${text.charAt(0).toUpperCase()}${text.slice(1)}${/[.?]$/.test(text) ? '' : '.'}`
}
