/**
 * Files of the program itself that have a fixed place in it: where processes and threads begin, and what the dashboard serves.
 * Modules cannot look for them beside themselves: in dist/ many modules are one file (esbuild.config.js).
 */
import fs from 'node:fs'
import path from 'node:path'
import { pathToFileURL } from 'node:url'

const MAIN = path.join('cli', 'main.js')

let root: string | undefined

/** Absolute path of what lies at `place` in src/, compiled: dist/ for users, build/src/ in tests. */
export function programFile(place: string): string {
  root ??= findRoot()
  return path.join(root, place)
}

/** The same as a URL, as worker threads take it. */
export function programUrl(place: string): URL {
  return pathToFileURL(programFile(place))
}

function findRoot(): string {
  for (let directory = import.meta.dirname; ; directory = path.dirname(directory)) {
    if (fs.existsSync(path.join(directory, MAIN)) || path.dirname(directory) === directory) return directory
  }
}
