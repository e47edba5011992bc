/**
 * Parts of the documentation that are written from the program: between `<!-- generated: NAME (npm run docs) -->` and
 * `<!-- end -->`. `npm run docs` writes them, generated.test.ts finds those that are out of date.
 */
import fs from 'node:fs'
import path from 'node:path'
import * as z from 'zod'
import { referenceText } from '../../src/cli/manual.js'
import { buildProgram } from '../../src/cli/program.js'
import { JSON_SCHEMAS, STATUS_FIELDS } from '../../src/cli/json-schemas.js'
import { METRICS, TIMES_METRIC } from '../../src/daemon/metrics.js'
import { EVENTS } from '../../src/daemon/log-events.js'
import { environmentName, SETTINGS } from '../../src/cli/configuration/settings.js'

export const ROOT = path.resolve(import.meta.dirname, '../../..')

const SECTION = /(<!-- generated: ([a-z-]+) \(npm run docs\) -->\n)[^]*?(<!-- end -->)/g

const PARTS: Readonly<Record<string, () => string>> = {
  settings,
  'log-events': logEvents,
  metrics,
  json,
  reference,
  session
}

/** Every Markdown file of the repository that people read. */
export function documents(): string[] {
  const inFolder = (folder: string): string[] =>
    fs
      .readdirSync(path.join(ROOT, folder))
      .filter((name) => name.endsWith('.md'))
      .map((name) => path.join(folder, name))
  return ['.', 'docs', 'native-notes'].flatMap(inFolder)
}

/** The document with its generated parts as they should be. */
export function upToDate(text: string): string {
  return text.replace(SECTION, (_all, begin: string, name: string, end: string) => {
    const part = PARTS[name]
    if (part === undefined) throw new Error(`nothing generates ${name}`)
    return `${begin}${part().trimEnd()}\n${end}`
  })
}

export function markdownTable(titles: readonly string[], rows: readonly (readonly string[])[]): string {
  const line = (cells: readonly string[]): string =>
    `| ${cells.map((cell) => cell.replaceAll('|', '\\|')).join(' | ')} |`
  return [line(titles), `|${titles.map(() => '---').join('|')}|`, ...rows.map(line)].join('\n')
}

/** Recorded by test/docs/record-session. */
function session(): string {
  return `\`\`\`console\n${fs.readFileSync(path.join(ROOT, 'docs/session.txt'), 'utf8').trimEnd()}\n\`\`\``
}

function reference(): string {
  return referenceText(buildProgram(''))
}

interface JsonSchema {
  readonly type?: string
  readonly description?: string
  readonly const?: unknown
  readonly enum?: readonly unknown[]
  readonly items?: JsonSchema
  readonly anyOf?: readonly JsonSchema[]
  readonly properties?: Readonly<Record<string, JsonSchema>>
  readonly required?: readonly string[]
}

/** A heading for each command, a table for each form of its answer. */
function json(): string {
  const parts: string[] = []
  for (const [name, schema] of Object.entries(JSON_SCHEMAS)) {
    const described = z.toJSONSchema(schema, { unrepresentable: 'any' }) as JsonSchema
    parts.push(`### isrfs ${name} --json`)
    const value = described.items ?? described
    if (described.items !== undefined)
      parts.push(`An array. Each element${value.anyOf === undefined ? '' : ' is one of'}:`)
    else if (value.anyOf !== undefined) parts.push('One of:')
    for (const form of value.anyOf ?? [value])
      parts.push(markdownTable(['field', 'type', 'meaning'], fieldsOf(form, '')))
  }
  return `${parts.join('\n\n')}\n`
}

function fieldsOf({ properties = {}, required = [] }: JsonSchema, above: string): string[][] {
  return Object.entries(properties).flatMap(([name, field]) => {
    const meaning = field.description ?? (above === '' ? STATUS_FIELDS[name] : undefined) ?? ''
    const optional = required.includes(name) ? '' : ', may be absent'
    const row = [`\`${above}${name}\``, `${typeOf(field)}${optional}`, meaning]
    const inner =
      field.items?.properties === undefined || name === 'mounts' ? [] : fieldsOf(field.items, `${above}${name}[].`)
    return [row, ...inner]
  })
}

function typeOf(field: JsonSchema): string {
  if (field.const !== undefined) return `\`${JSON.stringify(field.const).replaceAll('"', '')}\``
  if (field.enum !== undefined) return field.enum.map((word) => `\`${String(word)}\``).join(', ')
  if (field.anyOf !== undefined) return [...new Set(field.anyOf.map(typeOf))].join(' or ')
  if (field.items !== undefined) return `array of ${typeOf(field.items)}s`
  return field.type === 'integer' ? 'number' : (field.type ?? 'any')
}

function metrics(): string {
  const rows = [TIMES_METRIC, ...METRICS].map(({ name, type, label, help }) => [
    `\`${name}\``,
    type,
    label === undefined ? '' : `\`${label}\``,
    help
  ])
  return markdownTable(['metric', 'type', 'label', 'meaning'], rows)
}

function logEvents(): string {
  const rows = Object.entries(EVENTS).map(([name, { what, fields }]) => [`\`${name}\``, what, fields])
  return markdownTable(['event', 'when', 'fields'], rows)
}

function settings(): string {
  return markdownTable(
    ['setting', 'written as', 'default', 'environment', 'what'],
    SETTINGS.map((setting) => [
      `\`${setting.name}\``,
      typeof setting.kind === 'string' ? setting.kind : setting.kind.join(', '),
      setting.default === undefined ? (setting.otherwise ?? 'none') : `\`${String(setting.default)}\``,
      `\`${environmentName(setting)}\``,
      setting.description
    ])
  )
}
