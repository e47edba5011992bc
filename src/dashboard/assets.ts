/** What the page is made of: its own modules, and packages as they are installed. Nothing comes from another host. */
import fs from 'node:fs'
import { createRequire } from 'node:module'
import path from 'node:path'
import { fileURLToPath } from 'node:url'
import { programFile } from '../base/program-files.js'

const PAGE_DIRECTORY = programFile('dashboard/page')
const resolve = createRequire(import.meta.url).resolve

/** Bare names in the page's modules, and where they are served. */
const PACKAGES: Readonly<Record<string, { readonly address: string; readonly file: () => string }>> = {
  preact: { address: '/vendor/preact.js', file: () => fileURLToPath(import.meta.resolve('preact')) },
  'preact/hooks': { address: '/vendor/hooks.js', file: () => fileURLToPath(import.meta.resolve('preact/hooks')) },
  'preact/jsx-runtime': {
    address: '/vendor/jsx-runtime.js',
    file: () => fileURLToPath(import.meta.resolve('preact/jsx-runtime'))
  },
  uplot: { address: '/vendor/uplot.js', file: () => resolve('uplot/dist/uPlot.esm.js') }
}

export interface Asset {
  readonly type: string
  readonly bytes: Buffer
}

/** By address; read once, since an upgrade under a running dashboard would mix versions. */
export function loadAssets(): ReadonlyMap<string, Asset> {
  const assets = new Map<string, Asset>()
  for (const name of fs.readdirSync(PAGE_DIRECTORY)) {
    const type = name.endsWith('.js') ? 'text/javascript' : name.endsWith('.css') ? 'text/css' : undefined
    if (type !== undefined)
      assets.set(`/page/${name}`, { type, bytes: fs.readFileSync(path.join(PAGE_DIRECTORY, name)) })
  }
  for (const { address, file } of Object.values(PACKAGES)) {
    assets.set(address, { type: 'text/javascript', bytes: fs.readFileSync(file()) })
  }
  assets.set('/vendor/uplot.css', { type: 'text/css', bytes: fs.readFileSync(resolve('uplot/dist/uPlot.min.css')) })
  return assets
}

export function indexPage(nonce: string): string {
  const imports = Object.fromEntries(Object.entries(PACKAGES).map(([name, { address }]) => [name, address]))
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>isrfs</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="/vendor/uplot.css">
<link rel="stylesheet" href="/page/style.css">
<script type="importmap" nonce="${nonce}">${JSON.stringify({ imports })}</script>
<script type="module" src="/page/main.js"></script>
</head>
<body><div id="app"><p>isrfs: waiting for the first answer ...</p></div></body>
</html>
`
}
