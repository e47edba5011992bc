/** A copied client directory: its session is set aside, and recovered only on purpose, as something of its own. */
import fs from 'node:fs'
import path from 'node:path'
import anyTest, { type TestFn } from 'ava'
import { Bed } from '../support/bed.js'
import { Random } from '../support/random.js'

const test = anyTest as TestFn<{ bed: Bed }>

test.beforeEach((t) => {
  t.context.bed = new Bed('copied')
})
test.afterEach.always((t) => t.context.bed.destroy())

test('a copied session is recovered on purpose only, and both it and the original are kept', async (t) => {
  const { bed } = t.context
  const random = new Random(1)
  const source = bed.makeDirectory('source')
  fs.writeFileSync(path.join(source, 'disk'), random.bytes(300_000))
  await bed.mustIsrfs('a', 'import', source, bed.vm())
  const mountpoint = await bed.mount('a', bed.vm(), 'mnt')
  const changed = random.bytes(300_000)
  const fd = fs.openSync(path.join(mountpoint, 'disk'), 'r+')
  fs.writeSync(fd, changed)
  fs.fsyncSync(fd)
  fs.closeSync(fd)
  await bed.killDaemon('a', mountpoint)
  await bed.command('fusermount3', ['-uz', mountpoint])
  fs.cpSync(bed.path('client-a'), bed.path('client-b'), { recursive: true })

  const first = await bed.isrfs('b', 'recover', bed.vm())
  t.is(first.code, 3, 'the original has the lease, and there is no session here')
  t.regex(first.stderr, /is a copy of another client's directory.*--from/)
  const aside = fs.readdirSync(bed.path('client-b')).find((name) => name.startsWith('sessions-of-')) ?? ''
  const wrong = await bed.isrfs('b', 'recover', bed.vm(), '--from', bed.path('client-b', 'cache'))
  t.is(wrong.code, 2)
  t.regex(wrong.stderr, /there is no session of .*sessions-of-\*/s)

  const copied = await bed.isrfs('b', 'recover', bed.vm(), '--from', bed.path('client-b', aside))
  t.is(copied.code, 0, copied.stderr)
  t.regex(copied.stdout, /branch/)
  const original = await bed.isrfs('a', 'recover', bed.vm())
  t.is(original.code, 0, original.stderr)
  t.regex(original.stdout, /generation 2/)
  const branch = (
    JSON.parse((await bed.mustIsrfs('b', 'log', bed.vm(), '--json')).stdout) as { branch?: string }[]
  ).find((entry) => entry.branch !== undefined)?.branch
  for (const generation of ['2', branch ?? '']) {
    const shown = await bed.mount('b', bed.vm(), 'mnt-b', '--read-only', '--generation', generation)
    t.true(fs.readFileSync(path.join(shown, 'disk')).equals(changed), generation)
    await bed.unmount('b', shown)
  }

  // one that the original has published meanwhile is not made again
  fs.cpSync(bed.path('client-b'), bed.path('client-c'), { recursive: true })
  t.is((await bed.isrfs('b', 'recover', bed.vm(), '--from', bed.path('client-b', aside))).code, 2)
})
