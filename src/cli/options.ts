/** What the user typed, turned into values: absolute paths, bytes, generations. Everything wrong is a UsageError. */
import os from 'node:os'
import path from 'node:path'
import { UsageError } from '../base/errors.js'
import { parseDuration, parseSize } from '../base/units.js'

export interface GlobalOptions {
  readonly clientDir?: string | undefined
  readonly cacheDir?: string | undefined
}

export interface Directories {
  readonly clientDirectory: string
  /** holds only what is disposable */
  readonly cacheDirectory: string
}

/** The environment and the configuration files are in the options already (configuration/resolve.ts). */
export function directoriesOf(options: GlobalOptions): Directories {
  if (options.clientDir === '') throw new UsageError('--client-dir is empty')
  const clientDirectory = path.resolve(options.clientDir ?? defaultClientDirectory())
  const cacheDirectory =
    options.cacheDir === undefined ? path.join(clientDirectory, 'cache') : path.resolve(options.cacheDir)
  return { clientDirectory, cacheDirectory }
}

function defaultClientDirectory(): string {
  return process.getuid?.() === 0 ? '/var/lib/isrfs' : path.join(os.homedir(), '.local', 'share', 'isrfs')
}

export function toSize(text: string): number {
  const bytes = parseSize(text)
  if (bytes === undefined || bytes <= 0)
    throw new UsageError(`"${text}" is not a size`, { hint: 'write bytes, or 512M, 20G, 1T' })
  return bytes
}

/** A number of things, at least one. */
export function toCount(text: string, option: string): number {
  if (!/^[1-9]\d{0,8}$/.test(text))
    throw new UsageError(`${option} ${text} is not a number`, { hint: 'write 1 or more' })
  return Number(text)
}

/** null: none. */
export function toPort(text: string | undefined): number | null {
  if (text === undefined || text === '0') return null
  if (!/^[1-9]\d{0,4}$/.test(text) || Number(text) > 65_535) {
    throw new UsageError(`"${text}" is not a port`, { hint: 'write 1 to 65535, or 0 for none' })
  }
  return Number(text)
}

export function toDurationMs(text: string): number {
  const milliseconds = parseDuration(text)
  if (milliseconds === undefined) throw new UsageError(`"${text}" is not a duration`, { hint: 'write 500ms, 30s, 2m' })
  return milliseconds
}

/** A number, or the beginning of a branch's name, such as "7-3f2a". */
export function toGenerationOrBranch(text: string): {
  readonly generation: number | null
  readonly branch: string | null
} {
  if (/^[1-9]\d{0,7}-[0-9a-f]{0,16}$/.test(text)) return { generation: null, branch: text }
  return { generation: toGenerationNumber(text), branch: null }
}

export function toGenerationNumber(text: string): number {
  if (!/^[1-9]\d{0,7}$/.test(text))
    throw new UsageError(`"${text}" is not a generation`, { hint: 'isrfs log <vm> lists them' })
  return Number(text)
}
