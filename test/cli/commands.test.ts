/** What the command line says to wrong input, and what its simple commands print. */
import fs from 'node:fs'
import path from 'node:path'
import anyTest, { type TestFn } from 'ava'
import { Bed } from '../support/bed.js'

const test = anyTest as TestFn<{ bed: Bed }>

test.before((t) => {
  t.timeout(120_000)
})
test.beforeEach(async (t) => {
  const bed = new Bed('commands')
  t.context.bed = bed
  fs.writeFileSync(path.join(bed.makeDirectory('source'), 'file'), 'first')
  await bed.mustIsrfs('a', 'import', bed.path('source'), bed.vm())
})
test.afterEach.always((t) => t.context.bed.destroy())

test.serial('wrong usage is exit 2 and says what is wrong', async (t) => {
  const { bed } = t.context
  const mountpoint = bed.makeDirectory('mnt')
  const lines: [string[], RegExp][] = [
    [['bogus'], /unknown command/],
    [['mount', bed.vm()], /missing required argument/],
    [['mount', bed.vm(), mountpoint, '--sideways'], /unknown option/],
    [['mount', bed.vm(), mountpoint, '--transport', 'pigeon'], /unknown/],
    [['mount', bed.vm(), mountpoint, '--cache-size', 'much'], /not a size/],
    [['mount', bed.vm(), mountpoint, '--generation', 'x'], /not a generation/],
    [['mount', bed.vm(), mountpoint, '--discard', '--read-only'], /--discard/],
    [['mount', bed.vm(), mountpoint, '--cache-dir', path.join(mountpoint, 'cache')], /lies in the mountpoint/],
    [[], /Usage/]
  ]
  for (const [words, expected] of lines) {
    const { code, stdout, stderr } = await bed.isrfs('a', ...words)
    t.is(code, 2, words.join(' '))
    t.regex(stderr, expected)
    t.is(stdout, '')
  }
})

test.serial('a mountpoint that cannot be used has its own message', async (t) => {
  const { bed } = t.context
  const link = bed.path('link')
  fs.symlinkSync(bed.path('source', 'file'), link)
  const lines: [string, RegExp][] = [
    [bed.path('nowhere'), /does not exist[^]*mkdir -p/],
    [bed.path('source', 'file'), /not a directory/],
    [link, /not a directory/],
    [bed.path('source'), /not empty/]
  ]
  for (const [mountpoint, expected] of lines) {
    const { code, stderr } = await bed.isrfs('a', 'mount', bed.vm(), mountpoint)
    t.is(code, 1, mountpoint)
    t.regex(stderr, expected)
    t.notRegex(stderr, / at .*\.js:/)
  }
  t.regex((await bed.isrfs('a', 'mount', bed.vm(), '/proc')).stderr, /is a mount already/)
})

test.serial('a path that is no VM, no share or no mount is exit 1', async (t) => {
  const { bed } = t.context
  const mountpoint = bed.makeDirectory('mnt')
  const lines: [string[], RegExp][] = [
    [['mount', bed.path('share'), mountpoint], /there is no VM/],
    [['mount', bed.path('nowhere'), mountpoint], /there is no VM/],
    [['log', bed.path('source')], /there is no VM/],
    [['list', bed.path('nowhere')], /does not exist/],
    [['list', bed.path('source', 'file')], /is not a directory, so it is no share/],
    [['lease', bed.path('nowhere')], /there is no VM/],
    [['recover', bed.path('nowhere')], /there is no VM/],
    [['status', mountpoint], /not an isrfs mount/],
    [['unmount', mountpoint], /not an isrfs mount/],
    [['import', bed.path('source'), bed.vm()], /./],
    [['mount', bed.vm(), mountpoint, '--client-dir', '/proc/nowhere'], /cannot write to \/proc\/nowhere/]
  ]
  for (const [words, expected] of lines) {
    const { code, stderr } = await bed.isrfs('a', ...words)
    t.is(code, 1, words.join(' '))
    t.regex(stderr, expected)
  }
})

test.serial('an unknown format version and a damaged manifest are exit 4', async (t) => {
  const { bed } = t.context
  const mountpoint = bed.makeDirectory('mnt')
  const manifest = path.join(bed.vm(), 'generations', '00000001', 'manifest.json')
  const good = fs.readFileSync(manifest)
  fs.writeFileSync(manifest, good.toString().replace('"file"', '"fine"'))
  const damaged = await bed.isrfs('a', 'mount', bed.vm(), mountpoint)
  t.is(damaged.code, 4)
  t.regex(damaged.stderr, /does not have its digest/)
  t.regex((await bed.mustIsrfs('a', 'lease', bed.vm())).stdout, /^free/, 'a mount that fails gives the lease back')
  t.regex((await bed.mustIsrfs('a', 'log', bed.vm())).stdout, /damaged/)
  fs.writeFileSync(manifest, good)
  const descriptor = path.join(bed.vm(), 'vm.json')
  fs.writeFileSync(descriptor, fs.readFileSync(descriptor, 'utf8').replace('"version": 1', '"version": 9'))
  const newer = await bed.isrfs('a', 'mount', bed.vm(), mountpoint)
  t.is(newer.code, 4)
  t.regex(newer.stderr, /version 9[^]*newer isrfs/)
})

test.serial('list, log and lease print what the share says', async (t) => {
  const { bed } = t.context
  t.regex((await bed.mustIsrfs('a', 'list', bed.path('share'))).stdout, /^testvm +1 .* free$/m)
  t.regex((await bed.mustIsrfs('a', 'log', bed.vm())).stdout, /^ +1 .* 5 B$/m)
  t.regex((await bed.mustIsrfs('a', 'lease', bed.vm())).stdout, /^free/)
  const mountpoint = await bed.mount('a', bed.vm(), 'mnt')
  const local = /\d{4}-\d\d-\d\d \d\d:\d\d:\d\d/.source
  t.regex((await bed.mustIsrfs('a', 'lease', bed.vm())).stdout, new RegExp(`^held .*since ${local}`))
  await bed.unmount('a', mountpoint)
  t.regex((await bed.mustIsrfs('a', 'lease', bed.vm())).stdout, new RegExp(`^free .*ended ${local}\\)$`, 'm'))
  t.regex((await bed.mustIsrfs('a', 'list', bed.vm())).stderr, /is a VM itself/)
  t.regex((await bed.mustIsrfs('a', 'list', bed.path('source'))).stderr, /no VM/)
  fs.mkdirSync(bed.path('share', 'broken'))
  fs.writeFileSync(bed.path('share', 'broken', 'vm.json'), '{}')
  t.regex((await bed.mustIsrfs('a', 'list', bed.path('share'))).stdout, /^broken +\? .*damaged/m)
})

test.serial('import, update and export go round', async (t) => {
  const { bed } = t.context
  t.regex((await bed.mustIsrfs('a', 'import', bed.path('source'), bed.vm(), '--update')).stdout, /nothing differs/)
  fs.writeFileSync(bed.path('source', 'file'), 'second')
  t.regex(
    (await bed.mustIsrfs('a', 'import', '--update', bed.path('source'), bed.vm())).stdout,
    /^generation 2 .*1 files/
  )
  await bed.mustIsrfs('a', '--generation', '1', 'export', bed.vm(), bed.path('out'))
  t.is(fs.readFileSync(bed.path('out', 'file'), 'utf8'), 'first')
})

test.serial('status lists all mounts, as a table and as JSON', async (t) => {
  const { bed } = t.context
  const mountpoint = await bed.mount('a', bed.vm(), 'mnt', '--read-only')
  const { mounts } = JSON.parse((await bed.mustIsrfs('a', '--json', 'status')).stdout) as {
    mounts: { mountpoint: string }[]
  }
  t.true(mounts.some((mount) => mount.mountpoint === mountpoint))
  t.regex((await bed.mustIsrfs('a', 'status')).stdout, new RegExp(`${bed.vm()} +${mountpoint} +mounted`))
  fs.symlinkSync(mountpoint, bed.path('link'))
  t.regex((await bed.mustIsrfs('a', 'status', bed.path('link'))).stdout, /read-only/)
  await bed.unmount('a', bed.path('link'))
})

test.serial('help is on stdout, for the program and for each command', async (t) => {
  const { bed } = t.context
  for (const command of ['import', 'export', 'mount', 'unmount', 'status', 'list', 'log', 'lease', 'recover']) {
    const { stdout } = await bed.mustIsrfs('a', command, '--help')
    t.regex(stdout, new RegExp(`Usage: isrfs ${command}`))
    t.regex(stdout, /--client-dir/)
  }
  t.regex((await bed.mustIsrfs('a', '--help')).stdout, /Exit codes/)
  t.regex((await bed.mustIsrfs('a', '--version')).stdout, /^\d+\.\d+/)
})
