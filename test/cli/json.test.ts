/** What --json prints is what docs/json.md says, and nothing else is on stdout. */
import fs from 'node:fs'
import path from 'node:path'
import anyTest, { type TestFn } from 'ava'
import { JSON_SCHEMAS, STATUS_FIELDS } from '../../src/cli/json-schemas.js'
import { buildProgram } from '../../src/cli/program.js'
import { statusSchema } from '../../src/daemon/messages.js'
import { Bed } from '../support/bed.js'

const test = anyTest as TestFn<{ bed: Bed }>

test.beforeEach((t) => {
  t.timeout(240_000)
  t.context.bed = new Bed('json')
})
test.afterEach.always((t) => t.context.bed.destroy())

test('every command with --json keeps to its schema', async (t) => {
  const { bed } = t.context
  const seen = new Set<string>()
  const ask = async (name: keyof typeof JSON_SCHEMAS, ...words: string[]): Promise<unknown> => {
    const { stdout } = await bed.mustIsrfs('a', ...words, '--json')
    seen.add(name)
    t.is(stdout.trim().split('\n').length, 1, name)
    const value: unknown = JSON.parse(stdout)
    const parsed = JSON_SCHEMAS[name].safeParse(value)
    t.true(parsed.success, `${name}: ${stdout} ${parsed.error?.message ?? ''}`)
    return value
  }
  const source = bed.makeDirectory('source')
  fs.writeFileSync(path.join(source, 'file'), 'first')
  fs.writeFileSync(path.join(source, 'testvm.vmx'), 'displayName = "testvm"\n')
  t.like(await ask('import', 'import', source, bed.vm()), { generation: 1, files: 2 })
  t.like(await ask('import', 'import', source, bed.vm(), '--update'), { generation: null })
  await ask('lease', 'lease', bed.vm())
  const mountpoint = bed.makeDirectory('mnt')
  bed.rememberMount(mountpoint)
  t.like(await ask('mount', 'mount', bed.vm(), mountpoint), { generation: 1, mountpoint })
  await ask('status <mountpoint>', 'status', mountpoint)
  await ask('status', 'status')
  t.like(await ask('lease', 'lease', bed.vm()), { state: 'held', mountpoint })
  await ask('warm', 'warm', mountpoint)
  t.like(await ask('checkpoint', 'checkpoint', mountpoint), { generation: 1 })
  fs.writeFileSync(path.join(mountpoint, 'file'), 'second')
  t.like(await ask('unmount', 'unmount', mountpoint), { kind: 'published', generation: 2 })
  t.deepEqual(await ask('diff', 'diff', bed.vm(), '1', '2'), [
    { path: '/file', change: 'changed', changedBytes: 131072 }
  ])
  t.like(await ask('rollback', 'rollback', bed.vm(), '1'), { generation: 3, restores: '1' })
  t.like(await ask('export', 'export', bed.vm(), bed.path('out')), { generation: 3 })
  await ask('prune', 'prune', bed.vm(), '--keep', '1')
  t.like(await ask('prune', 'prune', bed.vm(), '--keep', '1', '--yes'), { removed: ['1', '2'], done: true })
  fs.writeFileSync(path.join(bed.makeDirectory('share', 'broken'), 'vm.json'), '{}')
  t.is(((await ask('list', 'list', bed.path('share'))) as unknown[]).length, 2)
  t.is(((await ask('log', 'log', bed.vm())) as unknown[]).length, 3)
  await ask('check', 'check', bed.vm())
  await ask('check --cache', 'check', '--cache')
  await ask('doctor', 'doctor', bed.vm())
  await ask('config', 'config')
  t.like(await ask('recover', 'recover', bed.vm()), { kind: 'nothing' })
  await bed.mount('a', bed.vm(), 'mnt')
  fs.writeFileSync(path.join(mountpoint, 'file'), 'third')
  t.like(await ask('checkpoint', 'checkpoint', mountpoint), { kind: 'published', generation: 4 })
  t.like(await ask('checkpoint', 'checkpoint', mountpoint), { kind: 'unchanged', generation: 4 })
  t.like(await ask('status <mountpoint>', 'status', mountpoint), { checkpoint: 4 })
  fs.writeFileSync(path.join(mountpoint, 'file'), 'fourth')
  await bed.killDaemon('a', mountpoint)
  t.like(await ask('recover', 'recover', bed.vm()), { kind: 'published', generation: 5 })
  const [, checkpoint] = (await ask('log', 'log', bed.vm())) as { checkpoint?: object }[]
  t.like(checkpoint, { checkpoint: { sequence: 1 } })
  t.deepEqual(
    [...Object.keys(JSON_SCHEMAS)].filter((name) => !seen.has(name)),
    []
  )
})

test('every command that takes --json has a schema, but logs, whose lines are those of the file', (t) => {
  const named = new Set(Object.keys(JSON_SCHEMAS).map((name) => name.split(' ')[0]))
  for (const command of buildProgram('0').commands) {
    const takesJson = command.options.some(({ long }) => long === '--json')
    if (takesJson && command.name() !== 'logs') t.true(named.has(command.name()), command.name())
  }
  t.deepEqual(Object.keys(STATUS_FIELDS).sort(), Object.keys(statusSchema.shape).sort(), 'each field has its meaning')
})
