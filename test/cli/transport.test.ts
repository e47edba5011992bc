/** Which transport a mount takes: direct wherever it can, the binding where it cannot or is asked for. */
import path from 'node:path'
import test from 'ava'
import { chooseTransport, type Starter } from '../../src/cli/transport.js'
import { Bed, CLI } from '../support/bed.js'

const root: Starter = { uid: 0, architecture: 'x64', foreground: true, searchPath: '' }
const user: Starter = { uid: 1000, architecture: 'x64', foreground: false, searchPath: process.env['PATH'] ?? '' }

test('auto is direct wherever nothing stands in the way', (t) => {
  t.is(chooseTransport('auto', root), 'direct')
  t.is(chooseTransport('auto', user), 'direct')
  t.is(chooseTransport('binding', root), 'binding')
})

test('what an ordinary user lacks makes auto the binding, and direct an error that says why', (t) => {
  for (const [starter, why] of [
    [{ ...user, foreground: true }, /--foreground needs root/],
    [{ ...user, architecture: 'riscv64' }, /riscv64/],
    [{ ...user, searchPath: '/nowhere' }, /perl/]
  ] as const) {
    t.is(chooseTransport('auto', starter), 'binding')
    t.throws(() => chooseTransport('direct', starter), { message: why, code: 'USAGE' })
  }
})

test('without the optional binding a mount is direct, and asking for the binding says how to add it', async (t) => {
  t.timeout(60_000)
  const bed = new Bed('no-binding')
  t.teardown(() => bed.destroy())
  const source = bed.makeDirectory('plain')
  await bed.mustIsrfs('a', 'import', source, bed.vm())
  const at = bed.makeDirectory('mnt')
  bed.rememberMount(at)
  const env = { ...process.env, NODE_OPTIONS: `--require ${path.resolve('test/support/no-binding.cjs')}` }
  const isrfs = (...words: string[]): ReturnType<Bed['command']> =>
    bed.command(process.execPath, [CLI, '--client-dir', bed.path('client'), ...words], { env })
  const asked = await isrfs('mount', '--transport', 'binding', bed.vm(), at)
  t.is(asked.code, 1)
  t.regex(asked.stderr, /the FUSE binding is not installed.*\n.*setup --binding/)
  t.notRegex(asked.stderr, /Require stack|at .*\.js:/)
  t.regex((await isrfs('lease', bed.vm())).stdout, /^free/, 'a mount that could not be keeps nobody out')
  t.is((await isrfs('mount', bed.vm(), at)).code, 0)
  t.is((await isrfs('unmount', at)).code, 0)
})
