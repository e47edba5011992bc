/** `isrfs status` tells of sessions that no mount uses and no generation has. */
import fs from 'node:fs'
import path from 'node:path'
import anyTest, { type ExecutionContext, type TestFn } from 'ava'
import { DirectoryLock } from '../../src/base/file-lock.js'
import { lockedOf } from '../../src/base/lock-holders.js'
import { Bed } from '../support/bed.js'

const test = anyTest as TestFn<{ bed: Bed }>

test.beforeEach(async (t) => {
  t.timeout(240_000)
  const bed = new Bed('left-over')
  t.context.bed = bed
  fs.writeFileSync(path.join(bed.makeDirectory('source'), 'file'), 'first')
  await bed.mustIsrfs('a', 'import', bed.path('source'), bed.vm())
})
test.afterEach.always((t) => t.context.bed.destroy())

interface LeftOver {
  readonly vm: string | null
  readonly vmId: string
  readonly directory: string
  readonly generation: number | null
  readonly since: string | null
  readonly changedBytes: number | null
  readonly damage: string | null
}

async function leftOver({ context: { bed } }: ExecutionContext<{ bed: Bed }>): Promise<LeftOver[]> {
  const { stdout } = await bed.mustIsrfs('a', 'status', '--json')
  return (JSON.parse(stdout) as { leftOver: LeftOver[] }).leftOver // its shape: test/cli/json.test.ts
}

function change(mountpoint: string): void {
  const fd = fs.openSync(path.join(mountpoint, 'file'), 'r+')
  fs.writeSync(fd, Buffer.alloc(256 * 1024, 'x'))
  fs.fsyncSync(fd)
  fs.closeSync(fd)
}

test.serial('what a crash leaves behind is told of by status and list until it is published', async (t) => {
  const { bed } = t.context
  const share = bed.path('share')
  t.deepEqual(await leftOver(t), [])
  t.false(fs.existsSync(bed.path('client-b')), 'and asking makes no client')
  t.notRegex((await bed.mustIsrfs('b', 'status')).stdout, /LEFT BEHIND/)
  t.false(fs.existsSync(bed.path('client-b')))

  const mountpoint = await bed.mount('a', bed.vm(), 'mnt')
  change(mountpoint)
  t.deepEqual(await leftOver(t), [], 'a living daemon has it')
  t.notRegex((await bed.mustIsrfs('a', 'list', share)).stdout, /left behind/)

  await bed.killDaemon('a', mountpoint)
  const [session] = await leftOver(t)
  t.like(session, { vm: bed.vm(), generation: 1, damage: null })
  t.true((session?.changedBytes ?? 0) >= 256 * 1024, String(session?.changedBytes))
  t.true(fs.existsSync(path.join(session?.directory ?? '', 'session.json')))
  const { stdout, stderr } = await bed.mustIsrfs('a', 'status')
  t.regex(stdout, new RegExp(`LEFT BEHIND.*\\n${bed.vm()} +1 +[0-9.]+ KiB +20\\d\\d-`))
  t.regex(stderr, new RegExp(`isrfs mount ${bed.vm()} .*isrfs recover ${bed.vm()}`))
  t.regex((await bed.mustIsrfs('a', 'list', share)).stdout, /^testvm .*left behind on this client/m)
  t.like(JSON.parse((await bed.mustIsrfs('a', 'list', share, '--json')).stdout), [{ leftOver: true }])
  t.notRegex((await bed.mustIsrfs('b', 'list', share)).stdout, /left behind/, 'not of another client')

  await bed.mustIsrfs('a', 'recover', bed.vm())
  t.deepEqual(await leftOver(t), [])
})

test.serial('a session that cannot be read hides no other, and one without a path has its directory', async (t) => {
  const { bed } = t.context
  const mountpoint = await bed.mount('a', bed.vm(), 'mnt')
  change(mountpoint)
  await bed.killDaemon('a', mountpoint)
  const sessions = bed.path('client-a', 'sessions')
  const [vmId = ''] = fs.readdirSync(sessions)
  fs.writeFileSync(path.join(bed.makeDirectory('client-a', 'sessions', '0'.repeat(32)), 'session.json'), '{}')
  const found = await leftOver(t)
  t.deepEqual(
    found.map(({ vm, damage }) => [vm, damage === null]),
    [
      [null, false],
      [bed.vm(), true]
    ]
  )
  const file = path.join(sessions, vmId, 'session.json')
  const content = JSON.parse(fs.readFileSync(file, 'utf8')) as Record<string, unknown> // an object, by identity.ts
  fs.writeFileSync(file, JSON.stringify({ ...content, vmPath: undefined }))
  const { stdout, stderr } = await bed.mustIsrfs('a', 'status')
  t.regex(stdout, /^\/.*0{32} +\? .*damaged/m)
  t.regex(stdout, new RegExp(`^${path.join(sessions, vmId)} +1 `, 'm'))
  t.regex(stderr, /isrfs recover <vm>/)

  fs.writeFileSync(file, JSON.stringify({ ...content, vmPath: '/elsewhere/testvm' }))
  await bed.command('fusermount3', ['-uz', mountpoint])
  await bed.mount('a', bed.vm(), 'mnt')
  await bed.killDaemon('a', mountpoint)
  t.is((await leftOver(t)).find((one) => one.vmId === vmId)?.vm, bed.vm(), 'a mount notes where the VM is now')
})

test.serial('after an unmount that could not publish, status names the session', async (t) => {
  const { bed } = t.context
  const mountpoint = await bed.mount('a', bed.vm(), 'mnt')
  change(mountpoint)
  fs.renameSync(bed.path('share'), bed.path('away'))
  const unmounted = await bed.isrfs('a', 'unmount', mountpoint)
  t.is(unmounted.code, 5)
  t.regex(unmounted.stderr, /not published: there is no VM at .*is the share mounted\?\n.*safe on this client/)
  t.like(await leftOver(t), [{ vm: bed.vm(), generation: 1 }])
  for (const words of [
    ['recover', bed.vm()],
    ['mount', bed.vm(), mountpoint]
  ]) {
    const refused = await bed.isrfs('a', ...words)
    t.is(refused.code, 1, words[0])
    t.regex(
      refused.stderr,
      /there is no VM at .*\n.*is the share mounted\?.*safe on this client, in .*isrfs recover goes on/
    )
  }
  t.regex((await bed.isrfs('b', 'mount', bed.vm(), mountpoint)).stderr, /is the share mounted there\?/)
  t.false(fs.existsSync(bed.path('share')), 'nothing is made where the share was')
  fs.renameSync(bed.path('away'), bed.path('share'))
  await bed.mustIsrfs('a', 'recover', bed.vm())
  t.deepEqual(await leftOver(t), [])
})

test.serial('a locked file is found by the process that holds it, and is not locked for that', (t) => {
  const { bed } = t.context
  const locked = path.join(bed.makeDirectory('one'), 'lock')
  const free = path.join(bed.makeDirectory('two'), 'lock')
  for (const file of [locked, free]) fs.writeFileSync(file, '')
  const lock = DirectoryLock.tryAcquire(locked)
  const open = fs.openSync(free, 'r') // open is not locked
  t.teardown(() => {
    fs.closeSync(open)
  })
  t.truthy(lock)
  t.deepEqual([...lockedOf([locked, free, bed.path('nowhere')])], [locked])
  lock?.release()
  t.deepEqual([...lockedOf([locked, free])], [])
})
