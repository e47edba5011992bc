/** Files with several names over the whole way: imported, changed on a mount, killed, suspended, exported. */
import fs from 'node:fs'
import path from 'node:path'
import anyTest, { type TestFn } from 'ava'
import { Bed } from '../support/bed.js'

const test = anyTest as TestFn<{ bed: Bed }>

test.beforeEach((t) => {
  t.context.bed = new Bed('hard-links')
})
test.afterEach.always((t) => t.context.bed.destroy())

test.serial(
  'hard links survive a kill, a suspend and an export; the binding shows them and never writes to them',
  async (t) => {
    const { bed } = t.context
    const source = bed.makeDirectory('source')
    fs.writeFileSync(path.join(source, 'disk'), 'old')
    fs.linkSync(path.join(source, 'disk'), path.join(source, 'again'))
    await bed.mustIsrfs('a', 'import', source, bed.vm())
    const mountpoint = await bed.mount('a', bed.vm(), 'mnt', '--transport', 'direct')
    const at = (name: string): string => path.join(mountpoint, name)
    t.is(fs.statSync(at('disk')).nlink, 2)
    fs.mkdirSync(at('d'))
    fs.linkSync(at('disk'), at('d/third'))
    fs.unlinkSync(at('disk'))
    const descriptor = fs.openSync(at('again'), 'r+')
    fs.writeSync(descriptor, 'new', 0)
    fs.fsyncSync(descriptor)
    await bed.killDaemon('a', mountpoint)
    try {
      fs.closeSync(descriptor)
    } catch {
      // the mount is dead
    }
    const refused = await bed.isrfs('a', 'mount', bed.vm(), mountpoint, '--transport', 'binding')
    t.is(refused.code, 1, refused.stderr)
    t.regex(refused.stderr, /hard links[^]*--transport direct/)
    const mounted = await bed.isrfs('a', 'mount', bed.vm(), mountpoint, '--transport', 'direct')
    t.is(mounted.code, 0, mounted.stderr)
    t.is(fs.readFileSync(at('d/third'), 'utf8'), 'new')
    t.deepEqual([fs.statSync(at('again')).nlink, fs.statSync(at('d/third')).ino], [2, fs.statSync(at('again')).ino])
    await bed.unmount('a', mountpoint)
    const shown = await bed.mount('a', bed.vm(), 'shown', '--read-only', '--transport', 'binding')
    t.is(fs.readFileSync(path.join(shown, 'd/third'), 'utf8'), 'new')
    t.is(fs.statSync(path.join(shown, 'again')).nlink, 2)
    await bed.unmount('a', shown)
    const out = bed.path('out')
    await bed.mustIsrfs('b', 'export', bed.vm(), out)
    t.deepEqual(fs.readdirSync(out, { recursive: true }).sort(), ['again', 'd', 'd/third'])
    t.is(fs.statSync(path.join(out, 'again')).ino, fs.statSync(path.join(out, 'd/third')).ino)
    t.is(fs.readFileSync(path.join(out, 'again'), 'utf8'), 'new')
  }
)
