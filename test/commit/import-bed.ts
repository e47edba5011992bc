/** What import and export tests share: a temporary share, a plain directory, and the two calls with their counters. */
import { execFileSync } from 'node:child_process'
import fs from 'node:fs'
import path from 'node:path'
import { exportGeneration, type ExportOptions, type ExportResult } from '../../src/commit/export.js'
import { importDirectory, type ImportOptions, type ImportResult } from '../../src/commit/import.js'
import { temporaryDirectory } from '../support/make-vm.js'

export const CLIENT = { id: 'c0ffee00c0ffee00', host: 'testhost' }
export const OTHER_CLIENT = { id: 'facade00facade00', host: 'otherhost' }

export class ImportBed {
  readonly root = fs.realpathSync(temporaryDirectory('import'))
  readonly source = path.join(this.root, 'plain')
  readonly share = path.join(this.root, 'share')
  readonly vm = path.join(this.share, 'testvm')
  readonly warnings: string[] = []

  constructor() {
    fs.mkdirSync(this.source)
    fs.mkdirSync(this.share)
  }

  path(...parts: string[]): string {
    return path.join(this.root, ...parts)
  }

  inSource(...parts: string[]): string {
    return path.join(this.source, ...parts)
  }

  import(options: Partial<ImportOptions> = {}): Promise<ImportResult> {
    return importDirectory({
      source: this.source,
      vmPath: this.vm,
      update: false,
      joinPieces: false,
      client: CLIENT,
      onProgress: () => undefined,
      onWarning: (message) => this.warnings.push(message),
      ...options
    })
  }

  export(destination: string, options: Partial<ExportOptions> = {}): Promise<ExportResult> {
    return exportGeneration({
      vmPath: this.vm,
      destination,
      onProgress: () => undefined,
      onWarning: (message) => this.warnings.push(message),
      ...options
    })
  }

  chunks(vm = this.vm): string[] {
    const folder = path.join(vm, 'chunks')
    if (!fs.existsSync(folder)) return []
    return fs
      .readdirSync(folder, { recursive: true, encoding: 'utf8' })
      .filter((name) => name.includes('/'))
      .map((name) => path.join(folder, name))
  }

  destroy(): void {
    execFileSync('chmod', ['-R', 'u+rwx', this.root])
    fs.rmSync(this.root, { recursive: true, force: true })
  }
}

export interface Times {
  readonly atimeNs: bigint
  readonly mtimeNs: bigint
}

/** Times of everything below a directory, by path. */
export function timesBelow(directory: string, name = '', found = new Map<string, Times>()): Map<string, Times> {
  const stat = fs.lstatSync(path.join(directory, name), { bigint: true })
  found.set(name, { atimeNs: stat.atimeNs, mtimeNs: stat.mtimeNs })
  if (stat.isDirectory()) {
    for (const child of fs.readdirSync(path.join(directory, name))) timesBelow(directory, path.join(name, child), found)
  }
  return found
}

export function touch(target: string, which: 'a' | 'm', seconds: string): void {
  execFileSync('touch', [`-h${which}`, `-d@${seconds}`, '--', target])
}
