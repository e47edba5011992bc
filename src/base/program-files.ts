/**
 * Files that have a fixed place in the program or in its package: where processes and threads begin, what the dashboard serves.
 * Modules cannot look for them beside themselves: in dist/ many modules are one file (esbuild.config.js).
 */
import fs from 'node:fs'
import path from 'node:path'
import { pathToFileURL } from 'node:url'

let root: string | undefined

/** Absolute path of what lies at `place` in src/, compiled: in dist/ for users, in build/src/ for tests. */
export function programFile(place: string): string {
  root ??= path.resolve(packageFile('cli/main.js'), '..', '..')
  return path.join(root, place)
}

/** The same as a URL, as worker threads take it. */
export function programUrl(place: string): URL {
  return pathToFileURL(programFile(place))
}

/** Absolute path of `place` in the nearest directory above this module that has it; where there is none, it does not exist. */
export function packageFile(place: string): string {
  for (let directory = import.meta.dirname; ; directory = path.dirname(directory)) {
    const file = path.join(directory, place)
    if (fs.existsSync(file) || path.dirname(directory) === directory) return file
  }
}

const BY_REQUIRE = '--experimental-require-module'

/**
 * What a pool needs to know of the program of its threads. It would load it with require(), and Node.js 20.20 aborts the whole
 * process when a thread that does so is ended meanwhile (v8::Module::IsGraphAsync on a module that was not instantiated): a pool
 * that is closed while a thread of it still starts. Without that flag it is loaded with import().
 */
export function threadProgram(place: string): { readonly filename: string; readonly execArgv: string[] } {
  const isKnown = process.allowedNodeEnvironmentFlags.has(BY_REQUIRE)
  return { filename: programUrl(place).href, execArgv: isKnown ? [BY_REQUIRE.replace('--', '--no-')] : [] }
}
