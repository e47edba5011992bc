/** The walls between the layers hold: each forbidden import is an error that says why, each allowed one is none. */
import path from 'node:path'
import test from 'ava'
import { ESLint } from 'eslint'

const root = path.resolve(import.meta.dirname, '../../..')

// Layers from top to bottom; those in one row are siblings and do not see each other.
const rows = [
  ['cli'],
  ['daemon'],
  ['fuse'],
  ['tree'],
  ['image'],
  ['commit', 'fetch'],
  ['session', 'cache'],
  ['format'],
  ['share'],
  ['base']
]

/** Only the walls, so that the files need not exist. */
const eslint = new ESLint({
  cwd: root,
  overrideConfig: { languageOptions: { parserOptions: { projectService: false } } },
  ruleFilter: ({ ruleId }) => ruleId.startsWith('boundaries/')
})

async function messagesFor(file: string, source: string): Promise<string[]> {
  const results = await eslint.lintText(source, { filePath: path.join(root, file) })
  return results.flatMap((result) => result.messages.map(({ message }) => message))
}

const importOf = (source: string) => `import * as subject from '${source}'\nexport { subject }\n`

for (const [depth, row] of rows.entries()) {
  for (const layer of row) {
    const aboveAndBeside = rows
      .slice(0, depth + 1)
      .flat()
      .filter((name) => name !== layer)
    if (aboveAndBeside.length === 0) continue
    test(`${layer}/ may not import what is above or beside it`, async (t) => {
      for (const other of aboveAndBeside) {
        const messages = await messagesFor(`src/${layer}/subject.ts`, importOf(`../${other}/thing.js`))
        t.is(messages.length, 1)
        t.regex(messages[0] ?? '', new RegExp(`^${layer}/ may not import ${other}/: .{20,}\\.$`))
      }
    })
  }
}

for (const [layer, other] of [
  ['cli', 'daemon'],
  ['daemon', 'commit'],
  ['fuse', 'tree'],
  ['tree', 'image'],
  ['image', 'fetch'],
  ['commit', 'session'],
  ['fetch', 'cache'],
  ['cache', 'format'],
  ['format', 'share'],
  ['share', 'base'],
  ['base', 'base']
] as const) {
  test(`${layer}/ may import ${other}/`, async (t) => {
    t.deepEqual(await messagesFor(`src/${layer}/subject.ts`, importOf(`../${other}/thing.js`)), [])
  })
}

for (const [layer, other] of [
  ['fuse', 'format'],
  ['fuse', 'cache'],
  ['tree', 'fetch'],
  ['tree', 'commit']
] as const) {
  test(`${layer}/ knows nothing of ${other}/, although it is below`, async (t) => {
    const [message] = await messagesFor(`src/${layer}/subject.ts`, importOf(`../${other}/thing.js`))
    t.regex(message ?? '', new RegExp(`^${layer}/ may not import ${other}/`))
  })
}

test('types, re-exports and dynamic imports do not get around a wall', async (t) => {
  for (const source of [
    "import type { Thing } from '../cli/thing.js'\nexport type { Thing }\n",
    "export * from '../cli/thing.js'\n",
    "export const thing = await import('../cli/thing.js')\n"
  ]) {
    const [message] = await messagesFor('src/base/subject.ts', source)
    t.regex(message ?? '', /^base\/ may not import cli\//, source)
  }
})

test('base/ imports node: modules and no packages', async (t) => {
  t.deepEqual(await messagesFor('src/base/subject.ts', importOf('node:path')), [])
  const [message] = await messagesFor('src/base/subject.ts', importOf('zod'))
  t.regex(message ?? '', /^base\/ may not import packages/)
})

test('only src/fuse/binding*.ts imports fuse-native', async (t) => {
  t.deepEqual(await messagesFor('src/fuse/binding.ts', importOf('fuse-native')), [])
  t.deepEqual(await messagesFor('src/fuse/binding-options.ts', importOf('fuse-native')), [])
  for (const file of ['src/fuse/adapter.ts', 'src/daemon/subject.ts', 'src/fuse/port/binding/subject.ts']) {
    const [message] = await messagesFor(file, importOf('fuse-native'))
    t.regex(message ?? '', /^Only src\/fuse\/binding\*\.ts may import fuse-native/, file)
  }
})

test('only cli/ and daemon/ import what talks to people and logs', async (t) => {
  t.deepEqual(await messagesFor('src/daemon/subject.ts', importOf('pino')), [])
  t.deepEqual(await messagesFor('src/cli/subject.ts', importOf('commander')), [])
  const [message] = await messagesFor('src/tree/subject.ts', importOf('pino'))
  t.regex(message ?? '', /^Only cli\/ and daemon\//)
})

test('every file of src/ belongs to a layer', async (t) => {
  t.is((await messagesFor('src/subject.ts', 'export const one = 1\n')).length, 1)
  t.is((await messagesFor('src/utils/subject.ts', 'export const one = 1\n')).length, 1)
  t.is((await messagesFor('src/base/subject.ts', importOf('../utils/thing.js'))).length, 1)
})
