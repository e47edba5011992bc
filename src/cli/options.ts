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

export function directoriesOf(options: GlobalOptions, environment: NodeJS.ProcessEnv = process.env): Directories {
  const given = options.clientDir ?? environment['ISRFS_CLIENT_DIR']
  if (given === '') throw new UsageError('--client-dir (or ISRFS_CLIENT_DIR) is empty')
  const clientDirectory = path.resolve(given ?? defaultClientDirectory())
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
