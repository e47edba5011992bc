/** Settings: where each comes from, and what is said of files that are wrong. */
import fs from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import anyTest, { type TestFn } from 'ava'
import type { Command } from 'commander'
import { FailedError, UsageError } from '../../src/base/errors.js'
import { parseConfiguration, readConfiguration } from '../../src/cli/configuration/file.js'
import { fromEnvironment, schemaOf } from '../../src/cli/configuration/kinds.js'
import { configurationPlaces, type Resolved, resolveSettings } from '../../src/cli/configuration/resolve.js'
import { appliesTo, attributeName, defaultOf, environmentName, SETTINGS } from '../../src/cli/configuration/settings.js'
import { templateText } from '../../src/cli/configuration/template.js'
import { buildProgram } from '../../src/cli/program.js'
import { Bed } from '../support/bed.js'

const test = anyTest as TestFn<{ bed: Bed; user: string; system: string }>

test.beforeEach((t) => {
  const bed = new Bed('configuration')
  t.context = { bed, user: path.join(bed.makeDirectory('isrfs'), 'config.toml'), system: bed.path('isrfs.toml') }
})
test.afterEach.always((t) => t.context.bed.destroy())

/** A command as commander has it after these options. */
function commandWith(name: string, options: string[]): Command {
  const command = buildProgram('0').commands.find((one) => one.name() === name)
  if (command === undefined) throw new Error(name)
  command.parseOptions(options)
  return command
}

const named = (resolved: readonly Resolved[], name: string): Resolved => {
  const found = resolved.find(({ setting }) => setting.name === name)
  if (found === undefined) throw new Error(name)
  return found
}

test('options count more than the environment, that more than the user’s file, that more than the system’s', async (t) => {
  const { user, system } = t.context
  const places = { user, system }
  const size = async (environment: NodeJS.ProcessEnv, ...options: string[]) => {
    const { value, source, from } = named(
      await resolveSettings(SETTINGS, commandWith('mount', options), environment, places),
      'cache-size'
    )
    return { value, source, from }
  }
  t.deepEqual(await size({}), { value: '20G', source: 'default', from: '' })
  fs.writeFileSync(system, '# for everybody\n\ncache-size = "30G"\n')
  t.deepEqual(await size({}), { value: '30G', source: 'system', from: `${system}:3` })
  fs.writeFileSync(user, 'cache-size = 4294967296\n')
  t.deepEqual(await size({}), { value: 4294967296, source: 'user', from: `${user}:1` })
  const environment = { ISRFS_CACHE_SIZE: '5G' }
  t.deepEqual(await size(environment), { value: '5G', source: 'environment', from: 'ISRFS_CACHE_SIZE' })
  t.deepEqual(await size(environment, '--cache-size', '6G'), { value: '6G', source: 'option', from: '--cache-size' })
})

test('every line that is wrong is named, with what to write', (t) => {
  const text = `cache-dir = "relative"
cache-size = "20X"
cachesize = "1G"
share-timeout = "30s"

[mount]
trickle = "no"
share-timeout = "30 parsecs"
transport = "pigeon"
cache-size = "1G"

[prune]
keep = 0

[mnt]
x = 1
`
  const error = t.throws(() => parseConfiguration('/etc/isrfs.toml', text), { instanceOf: UsageError })
  t.deepEqual(error.message.split('\n'), [
    '/etc/isrfs.toml, line 1: cache-dir = "relative" is not an absolute path: begin with / or ~/',
    '/etc/isrfs.toml, line 2: cache-size = "20X" is not a size: write bytes, or "512M", "20G", "1T"',
    '/etc/isrfs.toml, line 3: "cachesize" is no setting; did you mean "cache-size"?',
    '/etc/isrfs.toml, line 4: "share-timeout" is no setting: "share-timeout" stands below [mount]',
    '/etc/isrfs.toml, line 7: mount.trickle = "no" is neither true nor false (without quotes)',
    '/etc/isrfs.toml, line 8: mount.share-timeout = "30 parsecs" is not a duration: write seconds, or "500ms", "30s", "2m", "24h"',
    '/etc/isrfs.toml, line 9: mount.transport = "pigeon" is unknown: write one of "auto", "direct", "binding"',
    '/etc/isrfs.toml, line 10: "mount.cache-size" is no setting: "cache-size" stands above all tables',
    '/etc/isrfs.toml, line 13: prune.keep = 0 is not a number: write 1 or more',
    '/etc/isrfs.toml, line 15: "mnt" is no setting; did you mean "mount"?'
  ])
})

test('what is no TOML, and what is no table, has its line too', (t) => {
  const lineOf = (text: string): string =>
    t.throws(() => parseConfiguration('f', text), { instanceOf: UsageError }).message
  t.regex(lineOf('cache-size = "1G"\n= 3\n'), /^f, line 2, column 1: /)
  t.regex(lineOf('cache-size = "1G"\ncache-size = "2G"\n'), /^f, line 2, column 1: .*multiple/)
  t.is(lineOf('mount = 3\n'), 'f, line 1: mount = 3 is a table: write [mount] and its settings below')
  t.regex(lineOf('[[mount]]\n'), /^f, line 1: mount is a table/)
  t.regex(lineOf('cache-size = [1]\n'), /^f, line 1: cache-size is not a size/)
  t.regex(lineOf('"" = 1\n'), /^f, line 1: "" is no setting/)
  t.is(lineOf('\n[__proto__]\nx = 1\n'), 'f, line 2: "__proto__" is no setting')
})

test('dotted names and inline tables are tables', (t) => {
  const values = (text: string) =>
    [...parseConfiguration('f', text)].map(([name, { value, line }]) => [name, value, line])
  t.deepEqual(values('mount.trickle = false\n\nmount.transport = "direct"'), [
    ['mount.trickle', false, 1],
    ['mount.transport', 'direct', 3]
  ])
  t.deepEqual(values('\nmount = { writeback = false, share-timeout = 30 }'), [
    ['mount.share-timeout', 30, 2],
    ['mount.writeback', false, 2]
  ])
})

test('a file that cannot be read says why', async (t) => {
  const { user, system } = t.context
  fs.writeFileSync(user, Buffer.from([0x61, 0xff, 0xfe]))
  t.regex(t.throws(() => readConfiguration(user), { instanceOf: FailedError }).message, /config\.toml: it is not UTF-8/)
  fs.writeFileSync(user, '#'.repeat(1024 * 1024 + 1))
  t.regex(t.throws(() => readConfiguration(user), { instanceOf: FailedError }).message, /larger than 1 MiB/)
  fs.mkdirSync(system)
  const places = { user: path.join(system, 'nothing'), system }
  await t.throwsAsync(resolveSettings(SETTINGS, commandWith('mount', []), {}, places), {
    instanceOf: FailedError,
    message: /isrfs\.toml: .*EISDIR/
  })
  fs.rmdirSync(system)
  fs.writeFileSync(path.join(t.context.bed.root, 'isrfs.toml'), '')
  await t.notThrowsAsync(
    resolveSettings(SETTINGS, commandWith('mount', []), {}, { user: path.join(system, 'x'), system })
  )
})

test('a wrong variable is named', async (t) => {
  const { user, system } = t.context
  const resolve = (environment: NodeJS.ProcessEnv) =>
    resolveSettings(SETTINGS, commandWith('mount', []), environment, { user, system })
  await t.throwsAsync(resolve({ ISRFS_CACHE_SIZE: 'much' }), { message: /^ISRFS_CACHE_SIZE="much" is not a size/ })
  await t.throwsAsync(resolve({ ISRFS_CLIENT_DIR: '' }), { message: /^ISRFS_CLIENT_DIR="" is empty/ })
  await t.throwsAsync(resolve({ ISRFS_MOUNT_TRICKLE: 'perhaps' }), { message: /^ISRFS_MOUNT_TRICKLE="perhaps" is/ })
  t.is(named(await resolve({ ISRFS_MOUNT_TRICKLE: '0' }), 'mount.trickle').value, false)
  t.is(named(await resolve({ ISRFS_CLIENT_DIR: 'x' }), 'client-dir').value, path.resolve('x'))
})

test('every setting is an option of its commands, and its default is right', (t) => {
  const program = buildProgram('0')
  for (const setting of SETTINGS) {
    for (const name of setting.commands ?? ['mount']) {
      const command = program.commands.find((one) => one.name() === name)
      const options = [...(command?.options ?? []), ...program.options]
      const option = options.find((one) => one.attributeName() === attributeName(setting))
      t.truthy(option, `${name} ${setting.name}`)
    }
    if (setting.default !== undefined) t.true(schemaOf(setting.kind).safeParse(setting.default).success, setting.name)
  }
  t.throws(() => defaultOf('client-dir'))
  t.is(new Set(SETTINGS.map(environmentName)).size, SETTINGS.length)
  t.true(
    program.commands.every((command) => command.name() !== 'unmount' || !SETTINGS.some((s) => appliesTo(s, 'unmount')))
  )
})

test('values of all kinds', (t) => {
  const accepts = (kind: Parameters<typeof schemaOf>[0], value: unknown): boolean =>
    schemaOf(kind).safeParse(value).success
  t.true(accepts('port', 0) && accepts('port', '65535') && !accepts('port', 65536) && !accepts('port', -1))
  t.true(accepts('duration', 30) && !accepts('duration', '0s') && !accepts('duration', true))
  t.true(accepts('size', '1.5G') && !accepts('size', -1) && !accepts('size', null))
  t.true(accepts('text', 'kvm') && !accepts('text', '') && !accepts('text', 1))
  t.is(fromEnvironment('boolean', 'YES'), true)
  t.is(fromEnvironment('count', '3'), '3')
})

test('the example sets nothing, and with its comment signs removed it is right', (t) => {
  t.is(parseConfiguration('f', templateText()).size, 0)
  const all = templateText().replace(/^# (?=[a-z-]+ = )/gm, '')
  t.deepEqual(
    [...parseConfiguration('f', all).keys()],
    SETTINGS.map(({ name }) => name)
  )
})

test('the files lie where XDG says', (t) => {
  t.deepEqual(configurationPlaces({ XDG_CONFIG_HOME: '/c' }), {
    user: '/c/isrfs/config.toml',
    system: '/etc/isrfs.toml'
  })
  t.is(configurationPlaces({ XDG_CONFIG_HOME: 'relative' }).user, path.join(os.homedir(), '.config/isrfs/config.toml'))
})

test('a mount takes its settings from the file, isrfs config tells so, and unmount does not care', async (t) => {
  t.timeout(120_000)
  const { bed, user } = t.context
  const env = { ...process.env, XDG_CONFIG_HOME: bed.root, ISRFS_CLIENT_DIR: undefined }
  const isrfs = (...args: string[]) => bed.command(process.execPath, [cli, ...args], { env })
  const cli = path.resolve('build/src/cli/main.js')
  fs.writeFileSync(
    user,
    `client-dir = "${bed.path('mine')}"\ncache-size = "1G"\n[mount]\nwriteback = false\ntrickle = false\n`
  )
  const source = bed.makeDirectory('source')
  fs.writeFileSync(path.join(source, 'file'), 'bytes')
  t.is((await isrfs('import', source, bed.vm())).code, 0)
  const mountpoint = bed.makeDirectory('mnt')
  bed.rememberMount(mountpoint)
  const mounted = await isrfs('mount', bed.vm(), mountpoint)
  t.is(mounted.code, 0, mounted.stderr)
  const log = /log: (.*)/.exec(mounted.stderr)?.[1] ?? ''
  t.true(log.startsWith(bed.path('mine')))
  t.regex(fs.readFileSync(log, 'utf8'), /"writeback":false,"trickle":false.*"cacheBytesMax":1073741824/)
  const json = JSON.parse((await isrfs('config', '--json', '--cache-dir', '/fast')).stdout) as {
    settings: { name: string; value: unknown; source: string; from: string }[]
  }
  const told = Object.fromEntries(json.settings.map(({ name, ...rest }) => [name, rest]))
  t.deepEqual(told['cache-size'], { value: '1G', source: 'user', from: `${user}:2` })
  t.deepEqual(told['cache-dir'], { value: '/fast', source: 'option', from: '--cache-dir' })
  t.regex((await isrfs('config')).stdout, /^mount\.writeback +false +.*config\.toml:4$/m)
  fs.writeFileSync(user, 'nonsense = = 1\n')
  const wrong = await isrfs('mount', bed.vm(), mountpoint)
  t.is(wrong.code, 2)
  t.regex(wrong.stderr, /config\.toml, line 1/)
  t.notRegex(wrong.stderr, / at .*\.js:/)
  t.is((await isrfs('status', mountpoint)).code, 0)
  t.is((await isrfs('unmount', mountpoint)).code, 0)
})
