/**
 * The walls between the layers of src/. Each layer lists what it may import; everything else is an error that says
 * why. docs/architecture.md has the picture.
 */
import path from 'node:path'
import boundaries from 'eslint-plugin-boundaries'

const layers = {
  base: {
    mayImport: [],
    because: 'everything stands on base/, so it stands on nothing but node: modules'
  },
  share: {
    mayImport: ['base'],
    because: 'the share keeps bytes and names; what they mean is decided above it'
  },
  format: {
    mayImport: ['share', 'base'],
    because: 'the on-share format is read and written without a mount, a cache or a session'
  },
  vmm: {
    mayImport: ['base'],
    because: 'what a VMM wants of its directory has nothing to do with where the bytes of it lie'
  },
  session: {
    mayImport: ['format', 'share', 'base'],
    because: 'what a guest changed must survive without the cache, the network and the kernel'
  },
  cache: {
    mayImport: ['format', 'share', 'base'],
    because: 'the cache is disposable and holds pristine blocks only, so it never sees a session or what is above'
  },
  fetch: {
    mayImport: ['session', 'cache', 'format', 'share', 'base'],
    because: 'fetching fills the cache for those above; it neither commits nor serves'
  },
  commit: {
    mayImport: ['session', 'cache', 'format', 'share', 'base'],
    because: 'a commit reads what is dirty and never waits for a fetch or a mount'
  },
  history: {
    mayImport: ['commit', 'session', 'cache', 'format', 'share', 'base'],
    because: 'looking after the generations of a VM needs neither a mount nor a fetch'
  },
  image: {
    mayImport: ['commit', 'fetch', 'session', 'cache', 'format', 'share', 'base'],
    because: 'the bytes of one file do not depend on names, on the kernel or on the daemon'
  },
  tree: {
    mayImport: ['image', 'session', 'base'],
    because: 'names, attributes and handles know nothing of blocks, chunks and the cache (they ask image/)'
  },
  fuse: {
    mayImport: ['tree', 'image', 'session', 'base'],
    because: 'a transport only translates requests into calls of tree/'
  },
  daemon: {
    mayImport: ['fuse', 'tree', 'image', 'commit', 'fetch', 'session', 'cache', 'format', 'share', 'base'],
    because: 'the daemon must run without the command line that started it'
  },
  dashboard: {
    mayImport: ['daemon', 'base'],
    because: 'the dashboard knows of mounts what their daemons tell, and is told the rest by the command line'
  },
  cli: {
    mayImport: [
      'dashboard',
      'daemon',
      'history',
      'vmm',
      'fuse',
      'tree',
      'image',
      'commit',
      'fetch',
      'session',
      'cache',
      'format',
      'share',
      'base'
    ],
    because: 'the command line is on top'
  }
}

const names = Object.keys(layers)
const layer = (...types) => ({ element: { types: { anyOf: types } } })
const external = (...sources) => ({ module: { origin: 'external', source: sources } })

const betweenLayers = names.flatMap((name) => {
  const { mayImport, because } = layers[name]
  const forbidden = names.filter((other) => other !== name && !mayImport.includes(other))
  return forbidden.map((other) => ({
    from: layer(name),
    disallow: { to: layer(other) },
    message: `${name}/ may not import ${other}/: ${because}.`
  }))
})

const packages = [
  {
    from: layer('base'),
    disallow: { to: { module: { origin: 'external' } } },
    message: `base/ may not import packages: ${layers.base.because}.`
  },
  {
    from: layer(...names.filter((name) => name !== 'cli' && name !== 'daemon')),
    disallow: { to: external('commander', 'pino', 'cli-progress', 'cli-table3') },
    message: 'Only cli/ and daemon/ talk to people and logs: report through a callback or an error instead.'
  },
  {
    disallow: { to: external('fuse-native') },
    message: 'Only src/fuse/binding*.ts may import fuse-native: nothing else knows that the binding exists.'
  },
  {
    from: { file: { categories: { anyOf: ['binding'] } } },
    allow: { to: external('fuse-native') }
  }
]

export default [
  {
    files: ['src/**/*.ts', 'src/**/*.tsx'],
    plugins: { boundaries },
    settings: {
      'boundaries/root-path': import.meta.dirname,
      'boundaries/elements': names.map((name) => ({ type: name, pattern: `src/${name}` })),
      'boundaries/files': [{ category: 'binding', pattern: 'src/fuse/binding*.ts' }],
      // `import type` crosses a wall too: it is the knowledge that counts.
      'boundaries/dependency-nodes': ['import', 'export', 'dynamic-import'],
      'import/resolver': { [path.join(import.meta.dirname, 'eslint.resolver.cjs')]: {} }
    },
    rules: {
      'boundaries/no-unknown-files': 'error',
      'boundaries/no-unknown-dependencies': ['error', { require: 'element' }],
      'boundaries/dependencies': [
        'error',
        { default: 'allow', checkAllOrigins: true, policies: [...betweenLayers, ...packages] }
      ]
    }
  }
]
