/** One configuration file: TOML, checked against the settings. Every problem is told with its line. */
import fs from 'node:fs'
import { closest, distance } from 'fastest-levenshtein'
import { type AST, getStaticTOMLValue, ParseError, parseTOML } from 'toml-eslint-parser'
import * as z from 'zod'
import { FailedError, messageOf, UsageError } from '../../base/errors.js'
import { schemaOf, type Value } from './kinds.js'
import { type Setting, SETTINGS } from './settings.js'

const FILE_BYTES_MAX = 1024 * 1024

export interface Placed {
  readonly value: Value
  readonly file: string
  readonly line: number
}

/** Values by the name of their setting. Throws a UsageError that names every wrong line; FailedError when it cannot be read. */
export function parseConfiguration(file: string, text: string): ReadonlyMap<string, Placed> {
  let tree: AST.TOMLProgram
  try {
    tree = parseTOML(text)
  } catch (error) {
    if (!(error instanceof ParseError)) throw error
    throw new UsageError(
      `${file}, line ${String(error.lineNumber)}, column ${String(error.column + 1)}: ${error.message}`,
      {
        hint: 'the file is TOML: name = value, text in quotes; isrfs config --template prints an example'
      }
    )
  }
  const lines = linesOf(tree)
  for (const [name, { line }] of lines) {
    // as a key of an object it would not be one
    if (name.split('.').includes('__proto__'))
      throw new UsageError(`${file}, line ${String(line)}: "${name}" is no setting`)
  }
  const checked = fileSchema().safeParse(getStaticTOMLValue(tree))
  if (!checked.success) {
    const problems = checked.error.issues.flatMap((issue) => describe(issue, lines))
    throw new UsageError(
      problems
        .sort((first, second) => first.line - second.line)
        .map(({ line, what }) => `${file}, line ${String(line)}: ${what}`)
        .join('\n'),
      { hint: 'isrfs config --template prints all settings' }
    )
  }
  const found = new Map<string, Placed>()
  for (const { name } of SETTINGS) {
    const value = valueAt(checked.data, name)
    if (value !== undefined) found.set(name, { value, file, line: lines.get(name)?.line ?? 1 })
  }
  return found
}

/** The file's text; undefined when there is none. */
export function readConfiguration(file: string): string | undefined {
  try {
    if (fs.statSync(file).size > FILE_BYTES_MAX) throw new FailedError('it is larger than 1 MiB')
    return new TextDecoder('utf-8', { fatal: true }).decode(fs.readFileSync(file))
  } catch (error) {
    const code = error instanceof Error && 'code' in error ? error.code : undefined
    if (code === 'ENOENT' || code === 'ENOTDIR') return undefined
    const why = code === 'ERR_ENCODING_INVALID_ENCODED_DATA' ? 'it is not UTF-8' : messageOf(error)
    throw new FailedError(`cannot read the configuration ${file}: ${why}`, {
      hint: code === 'EACCES' ? `make it readable: chmod a+r ${file}` : `mend it or move it away`,
      cause: error
    })
  }
}

/** Tables as strict objects. */
function fileSchema(): z.ZodType<Record<string, unknown>> {
  const shape: Record<string, z.ZodType> = {}
  const tables = new Map<string, Record<string, z.ZodType>>()
  for (const setting of SETTINGS) {
    const [table, key] = partsOf(setting.name)
    const place = table === undefined ? shape : (tables.get(table) ?? {})
    place[key] = schemaOf(setting.kind).optional()
    if (table !== undefined) tables.set(table, place)
  }
  for (const [table, keys] of tables) {
    shape[table] = z.strictObject(keys, { error: notATable(table) }).optional()
  }
  return z.strictObject(shape)
}

function notATable(table: string): (issue: { readonly code?: string | undefined }) => string | undefined {
  return ({ code }) => (code === 'invalid_type' ? `is a table: write [${table}] and its settings below` : undefined)
}

interface Written {
  readonly line: number
  readonly text: string
}

/** Where each name stands, tables included, and its value as it was written. */
function linesOf(tree: AST.TOMLProgram): Map<string, Written> {
  const lines = new Map<string, Written>()
  const note = (name: string, line: number, text: string): void => {
    if (!lines.has(name)) lines.set(name, { line, text })
  }
  const noteKey = (above: string, entry: AST.TOMLKeyValue): void => {
    const name = [...(above === '' ? [] : [above]), ...entry.key.keys.map(wordOf)].join('.')
    const { value } = entry
    const isText = value.type === 'TOMLValue' && value.kind === 'string'
    const text = value.type === 'TOMLValue' ? (isText ? JSON.stringify(value.value) : String(value.value)) : ''
    for (let dot = name.indexOf('.'); dot >= 0; dot = name.indexOf('.', dot + 1))
      note(name.slice(0, dot), entry.loc.start.line, '')
    note(name, entry.loc.start.line, text)
    if (value.type === 'TOMLInlineTable') for (const inner of value.body) noteKey(name, inner)
  }
  for (const entry of tree.body[0].body) {
    if (entry.type === 'TOMLKeyValue') {
      noteKey('', entry)
      continue
    }
    const table = entry.key.keys.map(wordOf).join('.')
    note(table, entry.loc.start.line, '')
    for (const inner of entry.body) noteKey(table, inner)
  }
  return lines
}

function wordOf(key: AST.TOMLBare | AST.TOMLQuoted): string {
  return key.type === 'TOMLBare' ? key.name : key.value
}

interface Problem {
  readonly line: number
  readonly what: string
}

function describe(issue: z.core.$ZodIssue, lines: ReadonlyMap<string, Written>): Problem[] {
  const at = issue.path.join('.')
  if (issue.code === 'unrecognized_keys') {
    return issue.keys.map((key) => {
      const name = at === '' ? key : `${at}.${key}`
      return { line: lines.get(name)?.line ?? 1, what: `"${name}" is no setting${suggestion(name)}` }
    })
  }
  const written = lines.get(at)
  const value = written === undefined || written.text === '' ? '' : ` = ${written.text}`
  return [{ line: written?.line ?? 1, what: `${at}${value} ${issue.message}` }]
}

/** Names that differ in few letters, or in their table only. */
function suggestion(name: string): string {
  const [, key] = partsOf(name)
  const elsewhere = SETTINGS.find((setting) => partsOf(setting.name)[1] === key)
  if (elsewhere !== undefined) {
    const [table] = partsOf(elsewhere.name)
    return table === undefined ? `: "${key}" stands above all tables` : `: "${key}" stands below [${table}]`
  }
  const names = [...new Set(SETTINGS.flatMap((setting: Setting) => [setting.name, ...tableOf(setting)]))]
  const near = closest(name, names)
  return distance(name, near) <= Math.max(2, name.length / 3) ? `; did you mean "${near}"?` : ''
}

function tableOf({ name }: Setting): string[] {
  const [table] = partsOf(name)
  return table === undefined ? [] : [table]
}

function partsOf(name: string): readonly [table: string | undefined, key: string] {
  const dot = name.indexOf('.')
  return dot < 0 ? [undefined, name] : [name.slice(0, dot), name.slice(dot + 1)]
}

function valueAt(file: Record<string, unknown>, name: string): Value | undefined {
  const [table, key] = partsOf(name)
  const place = table === undefined ? file : file[table]
  return (place as Record<string, Value | undefined> | undefined)?.[key] // fileSchema has checked the shape
}
