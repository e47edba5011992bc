/**
 * What is in force: options over environment over the user's file over the system's file over defaults. A file is read
 * only for commands that have settings, and TOML is loaded only where there is a file.
 */
import fs from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import type { Command } from 'commander'
import { UsageError } from '../../base/errors.js'
import type { Placed } from './file.js'
import type { Value } from './kinds.js'
import { appliesTo, attributeName, environmentName, optionName, type Setting, SETTINGS } from './settings.js'

export type Source = 'option' | 'environment' | 'user' | 'system' | 'default'

export interface Resolved {
  readonly setting: Setting
  /** undefined: not set, and no default */
  readonly value: Value | undefined
  readonly source: Source
  /** the option, the variable, or file and line; empty for defaults */
  readonly from: string
}

export interface Places {
  readonly user: string
  readonly system: string
}

export function configurationPlaces(environment: NodeJS.ProcessEnv = process.env): Places {
  const given = environment['XDG_CONFIG_HOME'] ?? ''
  const base = given.startsWith('/') ? given : path.join(os.homedir(), '.config')
  return { user: path.join(base, 'isrfs', 'config.toml'), system: '/etc/isrfs.toml' }
}

/** Sets the options of the command (and of the program) that were not given, from everywhere else. */
export async function applyConfiguration(command: Command): Promise<void> {
  const settings = SETTINGS.filter((setting) => appliesTo(setting, command.name()))
  if (settings.length === 0) return
  for (const { setting, value, source } of await resolveSettings(settings, command)) {
    if (value === undefined || source === 'option' || source === 'default') continue
    const owner = ownerOf(setting, command)
    owner?.setOptionValueWithSource(
      attributeName(setting),
      typeof value === 'boolean' ? value : toText(setting, value),
      source === 'environment' ? 'env' : 'config'
    )
  }
}

/** Throws a UsageError that names variable, or file and line, of what is wrong. */
export async function resolveSettings(
  settings: readonly Setting[],
  command: Command,
  environment: NodeJS.ProcessEnv = process.env,
  places: Places = configurationPlaces(environment)
): Promise<Resolved[]> {
  const user = await load(places.user)
  const system = await load(places.system)
  const resolved: Resolved[] = []
  for (const setting of settings) {
    const owner = ownerOf(setting, command)
    const attribute = attributeName(setting)
    if (owner?.getOptionValueSource(attribute) === 'cli') {
      const value = owner.getOptionValue(attribute) as Value // commander has no other values
      resolved.push({ setting, value, source: 'option', from: optionName(setting) })
      continue
    }
    const variable = environmentName(setting)
    const text = environment[variable]
    if (text !== undefined) {
      resolved.push({ setting, value: await fromVariable(setting, text), source: 'environment', from: variable })
      continue
    }
    const placed = user.get(setting.name) ?? system.get(setting.name)
    if (placed === undefined) resolved.push({ setting, value: setting.default, source: 'default', from: '' })
    else {
      const source = user.has(setting.name) ? 'user' : 'system'
      resolved.push({ setting, value: placed.value, source, from: `${placed.file}:${String(placed.line)}` })
    }
  }
  return resolved
}

async function load(file: string): Promise<ReadonlyMap<string, Placed>> {
  if (isAbsent(file)) return new Map()
  const { parseConfiguration, readConfiguration } = await import('./file.js')
  const text = readConfiguration(file)
  return text === undefined ? new Map() : parseConfiguration(file, text)
}

/** What cannot be looked at is told by readConfiguration. */
function isAbsent(file: string): boolean {
  try {
    return fs.statSync(file, { throwIfNoEntry: false }) === undefined
  } catch {
    return false
  }
}

async function fromVariable(setting: Setting, text: string): Promise<Value> {
  const { schemaOf, fromEnvironment } = await import('./kinds.js')
  // a path on the command line may be relative, and so may one in the environment
  const given = setting.kind === 'path' && text !== '' ? path.resolve(text) : fromEnvironment(setting.kind, text)
  const checked = schemaOf(setting.kind).safeParse(given)
  if (checked.success) return checked.data
  const why = text === '' ? 'is empty' : (checked.error.issues[0]?.message ?? 'is wrong')
  throw new UsageError(`${environmentName(setting)}="${text}" ${why}`, {
    hint: 'change it, or unset it for the default'
  })
}

/** The command, or the program for options that all commands have. */
function ownerOf(setting: Setting, command: Command): Command | undefined {
  const has = (owner: Command): boolean =>
    owner.options.some((option) => option.attributeName() === attributeName(setting))
  if (has(command)) return command
  return command.parent !== null && has(command.parent) ? command.parent : undefined
}

function toText({ kind }: Setting, value: string | number): string {
  const text = String(value)
  return kind === 'path' && text.startsWith('~/') ? path.join(os.homedir(), text.slice(2)) : text
}
