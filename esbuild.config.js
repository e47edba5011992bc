/**
 * src/ -> dist/: `npm run build`. Processes and threads of isrfs begin in the files of `BEGINNINGS`; what they share lies in
 * dist/chunks/, together with those packages whose many small modules took most of the time of a start
 * (docs/performance.md, "Starting"). Types are not checked here.
 */
import { chmodSync, copyFileSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import path from 'node:path'
import { build } from 'esbuild'

const BEGINNINGS = [
  'src/cli/main.ts',
  'src/cli/doctor/probe-share.ts',
  'src/commit/commit-worker.ts',
  'src/daemon/main.ts',
  'src/fetch/share-worker.ts',
  'src/fuse/direct/reader.ts'
]
const BUNDLED_PACKAGES = ['zod', 'p-queue', 'lru-cache']

const { dependencies, optionalDependencies } = JSON.parse(readFileSync('package.json', 'utf8'))
const shared = { outbase: 'src', outdir: 'dist', format: 'esm', target: 'es2022', logLevel: 'warning', metafile: true }

const program = await build({
  ...shared,
  entryPoints: BEGINNINGS,
  bundle: true,
  splitting: true,
  chunkNames: 'chunks/[name]-[hash]',
  platform: 'node',
  external: Object.keys({ ...dependencies, ...optionalDependencies }).filter((name) => !BUNDLED_PACKAGES.includes(name))
})
// The dashboard's page: its modules as they are (src/dashboard/assets.ts).
const page = await build({
  ...shared,
  entryPoints: ['src/dashboard/page/*.ts', 'src/dashboard/page/*.tsx'],
  jsx: 'automatic',
  jsxImportSource: 'preact'
})
const style = 'dist/dashboard/page/style.css'
copyFileSync('src/dashboard/page/style.css', style)
chmodSync('dist/cli/main.js', 0o755)

// What earlier builds have left goes last: a daemon that runs from here starts threads when it commits.
const made = new Set([style, ...[program, page].flatMap(({ metafile }) => Object.keys(metafile.outputs))])
for (const entry of readdirSync('dist', { recursive: true, withFileTypes: true })) {
  const file = path.join(entry.parentPath, entry.name)
  if (entry.isFile() && !made.has(file)) rmSync(file)
}
