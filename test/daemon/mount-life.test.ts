/** The life of real mounts: who may mount, how they end, what goes wrong and how it goes on. */
import type { ChildProcess } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import fs from 'node:fs'
import net from 'node:net'
import path from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import anyTest, { type TestFn } from 'ava'
import { isMapped } from '../../src/daemon/mapped-files.js'
import { findSockets } from '../../src/daemon/socket-path.js'
import { breakLease, readLease } from '../../src/share/lease.js'
import { Share } from '../../src/share/share.js'
import { Bed, CLI, isAlive, isMounted, openFiles, waitFor } from '../support/bed.js'

const test = anyTest as TestFn<{ bed: Bed }>

test.beforeEach(async (t) => {
  const bed = new Bed('life')
  t.context.bed = bed
  const source = bed.makeDirectory('source')
  fs.writeFileSync(path.join(source, 'file'), 'first')
  fs.writeFileSync(path.join(source, 'disk'), Buffer.alloc(2 * 2 ** 20, 'x'))
  await bed.mustIsrfs('a', 'import', source, bed.vm())
})
test.afterEach.always((t) => t.context.bed.destroy())

function writeSynced(file: string, content: string): void {
  const fd = fs.openSync(file, 'w')
  fs.writeSync(fd, content)
  fs.fsyncSync(fd)
  fs.closeSync(fd)
}

async function crash(bed: Bed, mountpoint: string): Promise<void> {
  await bed.killDaemon('a', mountpoint)
  await bed.command('fusermount3', ['-uz', mountpoint])
}

test.serial('one client writes, once: others and a second mount get exit 3 and hear who has it', async (t) => {
  const { bed } = t.context
  const mountpoint = await bed.mount('a', bed.vm(), 'mnt')
  const other = bed.makeDirectory('other')
  const refused = await bed.isrfs('b', 'mount', bed.vm(), other)
  t.is(refused.code, 3)
  t.regex(refused.stderr, new RegExp(`mounted at ${mountpoint}`))
  const twice = await bed.isrfs('a', 'mount', bed.vm(), other)
  t.is(twice.code, 3)
  t.regex(twice.stderr, new RegExp(`already mounted on ${mountpoint}`))
  t.is((await bed.isrfs('a', 'mount', bed.vm(), mountpoint)).code, 6)
  await bed.unmount('a', mountpoint)
  await bed.unmount('b', await bed.mount('b', bed.vm(), 'other'))
})

test.serial('a read-only mount takes no lease and answers EROFS; --generation implies it', async (t) => {
  const { bed } = t.context
  const writer = await bed.mount('a', bed.vm(), 'mnt')
  const reader = await bed.mount('b', bed.vm(), 'reader', '--generation', '1')
  t.throws(() => fs.writeFileSync(path.join(reader, 'new'), ''), { code: 'EROFS' })
  t.is(fs.readFileSync(path.join(reader, 'file'), 'utf8'), 'first')
  t.is(fs.readdirSync(path.join(bed.vm(), 'pins')).length, 1)
  await bed.unmount('b', reader)
  t.deepEqual(fs.readdirSync(path.join(bed.vm(), 'pins')), [])
  await bed.unmount('a', writer)
  t.is((await bed.isrfs('b', 'mount', bed.vm(), reader, '--generation', '9')).code, 1)
})

test.serial('a --discard mount takes changes and forgets them', async (t) => {
  const { bed } = t.context
  const mountpoint = await bed.mount('a', bed.vm(), 'mnt', '--discard')
  writeSynced(path.join(mountpoint, 'file'), 'second')
  t.is(fs.readFileSync(path.join(mountpoint, 'file'), 'utf8'), 'second')
  await crash(bed, mountpoint)
  await bed.mount('a', bed.vm(), 'mnt', '--discard')
  t.is(fs.readFileSync(path.join(mountpoint, 'file'), 'utf8'), 'first')
  const privateDirectories = (): number => fs.readdirSync(bed.path('client-a', 'private')).length
  await waitFor(() => privateDirectories() === 1, 'what the dead mount left to be gone')
  await bed.unmount('a', mountpoint)
  await waitFor(() => privateDirectories() === 0, 'what the mount has changed to be gone')
  t.deepEqual(fs.readdirSync(path.join(bed.vm(), 'generations')), ['00000001'])
})

test.serial('the daemon keeps neither the descriptors nor the directory of whoever started it', async (t) => {
  const { bed } = t.context
  const mountpoint = bed.makeDirectory('mnt')
  bed.rememberMount(mountpoint)
  const script = `exec 9>${bed.path('nine')} 25>${bed.path('many')}; exec "$@"`
  const parameters = [process.execPath, CLI, '--client-dir', bed.path('client-a'), 'mount', bed.vm(), mountpoint]
  t.is((await bed.command('bash', ['-c', script, 'bash', ...parameters], { cwd: bed.root })).code, 0)
  const { pid } = await bed.status('a', mountpoint)
  t.deepEqual(
    openFiles(pid).filter((target) => /nine|many/.test(target)),
    []
  )
  t.is(fs.readlinkSync(`/proc/${pid}/cwd`), '/')
  await bed.unmount('a', mountpoint)
})

test.serial('an unmount without changes publishes nothing and gives the lease back', async (t) => {
  const { bed } = t.context
  const mountpoint = await bed.mount('a', bed.vm(), 'mnt')
  fs.readFileSync(path.join(mountpoint, 'file'))
  const { stdout } = await bed.unmount('a', mountpoint)
  t.regex(stdout, /nothing was changed/)
  t.regex((await bed.mustIsrfs('a', 'lease', bed.vm())).stdout, /^free/)
  t.deepEqual(fs.readdirSync(path.join(bed.vm(), 'generations')), ['00000001'])
})

test.serial('a commit that fails leaves everything in the session: exit 5, and recover publishes it', async (t) => {
  const { bed } = t.context
  const mountpoint = await bed.mount('a', bed.vm(), 'mnt')
  writeSynced(path.join(mountpoint, 'file'), 'second')
  const { pid } = await bed.status('a', mountpoint)
  const chunks = path.join(bed.vm(), 'chunks')
  fs.renameSync(chunks, `${chunks}.away`)
  fs.writeFileSync(chunks, '')
  const failed = await bed.isrfs('a', 'unmount', mountpoint)
  t.is(failed.code, 5, failed.stderr)
  t.regex(failed.stderr, new RegExp(`isrfs recover ${bed.vm()}`))
  await waitFor(() => !isAlive(pid), 'the daemon to end')
  t.is((await bed.isrfs('b', 'mount', bed.vm(), mountpoint)).code, 3, 'the lease stays with the changes')
  fs.rmSync(chunks)
  fs.renameSync(`${chunks}.away`, chunks)
  t.regex((await bed.mustIsrfs('a', 'recover', bed.vm())).stdout, /generation 2/)
  await bed.mustIsrfs('b', 'export', bed.vm(), bed.path('exported'))
  t.is(fs.readFileSync(bed.path('exported', 'file'), 'utf8'), 'second')
})

test.serial('a session whose base is not the newest any more is never replayed silently: exit 5', async (t) => {
  const { bed } = t.context
  const mountpoint = await bed.mount('a', bed.vm(), 'mnt')
  writeSynced(path.join(mountpoint, 'file'), 'lost')
  await crash(bed, mountpoint)
  const alive = bed.isrfs('b', 'lease', bed.vm(), '--break')
  t.is((await alive).code, 0, 'the beat of a dead holder does not move')
  const other = await bed.mount('b', bed.vm(), 'other')
  writeSynced(path.join(other, 'file'), 'won')
  await bed.unmount('b', other)
  const refused = await bed.isrfs('a', 'mount', bed.vm(), mountpoint)
  t.is(refused.code, 5, refused.stderr)
  t.regex(refused.stderr, /based on generation 1 .* generation 2/)
  t.deepEqual(fs.readdirSync(path.join(bed.vm(), 'pins')).length, 1, 'the base of the session is pinned')
  const recovered = await bed.mustIsrfs('a', 'recover', bed.vm())
  const branch = /branch (2-[0-9a-f]{16})/.exec(recovered.stdout)?.[1] ?? ''
  t.deepEqual(fs.readdirSync(path.join(bed.vm(), 'pins')), [], 'and is not needed any more')
  t.true((await bed.mustIsrfs('b', 'log', bed.vm())).stdout.includes(branch))
  await bed.mount('a', bed.vm(), 'mnt')
  t.is(fs.readFileSync(path.join(mountpoint, 'file'), 'utf8'), 'won')
  await bed.unmount('a', mountpoint)
  const old = await bed.mount('b', bed.vm(), 'other', '--generation', branch)
  t.is(fs.readFileSync(path.join(old, 'file'), 'utf8'), 'lost')
  await bed.unmount('b', old)
  await bed.mustIsrfs('b', 'rollback', bed.vm(), branch)
  await bed.mustIsrfs('b', 'export', bed.vm(), bed.path('exported'))
  t.is(fs.readFileSync(bed.path('exported', 'file'), 'utf8'), 'lost')
})

test.serial('a session that a crash left behind after its publish never becomes a branch as well', async (t) => {
  const { bed } = t.context
  const mountpoint = await bed.mount('a', bed.vm(), 'mnt')
  writeSynced(path.join(mountpoint, 'file'), 'second')
  await crash(bed, mountpoint)
  fs.cpSync(bed.path('client-a', 'sessions'), bed.path('sessions'), { recursive: true })
  t.regex((await bed.mustIsrfs('a', 'recover', bed.vm())).stdout, /generation 2/)
  fs.cpSync(bed.path('sessions'), bed.path('client-a', 'sessions'), { recursive: true })

  const other = await bed.mount('b', bed.vm(), 'other')
  const recovered = await bed.isrfs('a', 'recover', bed.vm())
  t.is(recovered.code, 0, recovered.stderr)
  t.regex(recovered.stderr, /had been published as generation 2/)
  t.deepEqual(fs.readdirSync(path.join(bed.vm(), 'generations')).sort(), ['00000001', '00000002'])
  await bed.unmount('b', other)
})

test.serial('a mount whose lease was broken while it ran ends as a branch: exit 5 says its name', async (t) => {
  const { bed } = t.context
  const mountpoint = await bed.mount('a', bed.vm(), 'mnt')
  writeSynced(path.join(mountpoint, 'file'), 'mine')
  const share = new Share(bed.vm())
  const state = readLease(share)
  if (state === undefined) throw new Error('no lease')
  breakLease(share, state, { ...state.lease.holder, client: 'ab'.repeat(16), host: 'elsewhere' })
  const ended = await bed.isrfs('a', 'unmount', mountpoint)
  t.is(ended.code, 5, ended.stderr)
  t.regex(ended.stderr, /kept on the share as branch 2-[0-9a-f]{16}.*isrfs rollback/s)
  const nothing = await bed.mustIsrfs('a', 'recover', bed.vm())
  t.regex(nothing.stdout, /nothing of .* was left behind/)
})

test.serial('a share that went back in time is refused until a person accepts it', async (t) => {
  const { bed } = t.context
  const backup = bed.path('backup')
  fs.cpSync(bed.vm(), backup, { recursive: true })
  const mountpoint = await bed.mount('a', bed.vm(), 'mnt')
  writeSynced(path.join(mountpoint, 'file'), 'second')
  await bed.unmount('a', mountpoint)
  await bed.mount('a', bed.vm(), 'mnt')
  await bed.unmount('a', mountpoint)
  fs.rmSync(bed.vm(), { recursive: true })
  fs.cpSync(backup, bed.vm(), { recursive: true })
  const refused = await bed.isrfs('a', 'mount', bed.vm(), mountpoint)
  t.is(refused.code, 4, refused.stderr)
  t.regex(refused.stderr, /has seen generation 2.*--accept-rollback/s)
  await bed.mount('a', bed.vm(), 'mnt', '--accept-rollback')
  t.not(fs.readFileSync(path.join(mountpoint, 'file'), 'utf8'), 'second')
  await bed.unmount('a', mountpoint)
})

test.serial('who has only looked guards against a share that went back, too, and is told of it', async (t) => {
  const { bed } = t.context
  const backup = bed.path('backup')
  fs.cpSync(bed.vm(), backup, { recursive: true })
  const mountpoint = await bed.mount('a', bed.vm(), 'mnt')
  writeSynced(path.join(mountpoint, 'file'), 'second')
  await bed.unmount('a', mountpoint)
  for (const [client, how] of [
    ['b', '--discard'],
    ['c', '--read-only']
  ] as const) {
    await bed.mount(client, bed.vm(), 'mnt', how) // it has seen generation 2 now
    await bed.unmount(client, mountpoint)
  }
  fs.rmSync(bed.vm(), { recursive: true })
  fs.cpSync(backup, bed.vm(), { recursive: true })
  for (const client of ['b', 'c']) {
    const looked = await bed.mustIsrfs(client, 'mount', bed.vm(), mountpoint, '--read-only')
    t.regex(looked.stderr, /generation 1 is the newest .* has seen generation 2.*--accept-rollback/s)
    await bed.unmount(client, mountpoint)
    for (const how of [['--discard'], []]) {
      const refused = await bed.isrfs(client, 'mount', bed.vm(), mountpoint, ...how)
      t.is(refused.code, 4, refused.stderr)
      t.regex(refused.stderr, /has seen generation 2.*--accept-rollback/s)
    }
    const chosen = await bed.mustIsrfs(client, 'mount', bed.vm(), mountpoint, '--generation', '1')
    t.notRegex(chosen.stderr, /has seen/, 'an older generation on purpose')
    await bed.unmount(client, mountpoint)
  }
  for (const how of [['--discard', '--accept-rollback'], ['--discard']]) {
    await bed.mount('b', bed.vm(), 'mnt', ...how)
    await bed.unmount('b', mountpoint)
  }
})

test.serial('the lease of a holder that lives is not broken', async (t) => {
  const { bed } = t.context
  const mountpoint = await bed.mount('a', bed.vm(), 'mnt')
  t.regex((await bed.mustIsrfs('b', 'lease', bed.vm())).stdout, /^held .*mounted at/)
  const refused = await bed.isrfs('b', 'lease', bed.vm(), '--break')
  t.is(refused.code, 3)
  t.regex(refused.stderr, /lives/)
  await bed.unmount('a', mountpoint)
})

test.serial('a mount whose lease was broken stops publishing and says so', async (t) => {
  const { bed } = t.context
  const mountpoint = await bed.mount('a', bed.vm(), 'mnt')
  writeSynced(path.join(mountpoint, 'file'), 'second')
  const { pid } = await bed.status('a', mountpoint)
  process.kill(pid, 'SIGSTOP')
  await bed.mustIsrfs('b', 'lease', bed.vm(), '--break')
  process.kill(pid, 'SIGCONT')
  await waitFor(
    async () => (await bed.mustIsrfs('a', 'status', mountpoint)).stdout.includes('lost'),
    'the loss to be seen'
  )
  const refused = await bed.isrfs('a', 'unmount', mountpoint)
  t.is(refused.code, 5)
  t.regex(refused.stderr, /lease/)
})

test.serial('--foreground lives in the process that was started, and SIGINT ends it with a commit', async (t) => {
  const { bed } = t.context
  const mountpoint = bed.makeDirectory('mnt')
  bed.rememberMount(mountpoint)
  const options = ['--client-dir', bed.path('client-a'), '--foreground', '--no-writeback', '--allow-other']
  const child = bed.spawn(process.execPath, [CLI, ...options, 'mount', bed.vm(), mountpoint])
  const ended = new Promise((resolve) => child.once('exit', resolve))
  await waitFor(() => fs.existsSync(path.join(mountpoint, 'file')), 'the mount')
  t.is(child.pid, (await bed.status('a', mountpoint)).pid)
  fs.writeFileSync(path.join(mountpoint, 'file'), 'second')
  child.kill('SIGINT')
  t.is(await ended, 0)
  t.regex((await bed.mustIsrfs('a', 'log', bed.vm())).stdout, /^ +2 /m)
})

test.serial(
  'a foreground mount ends at once while it removes files: at a signal after its end, or when it could not start',
  async (t) => {
    const { bed } = t.context
    const mountpoint = await bed.mount('a', bed.vm(), 'mnt')
    const left = bed.path('client-a', 'private', 'removed-00112233445566aa')
    fs.mkdirSync(left, { recursive: true })
    await bed.command('sh', ['-c', 'cd "$1" && seq 100000 | xargs touch', 'sh', left]) // seconds of work
    const words = ['--client-dir', bed.path('client-a'), '--foreground', 'mount', bed.vm()]
    const refused = await bed.command(process.execPath, [CLI, ...words, bed.makeDirectory('other')])
    t.is(refused.code, 3, refused.stderr)
    t.true(fs.readdirSync(left).length > 0, 'it has waited for the removal')

    await bed.unmount('a', mountpoint)
    const child = bed.spawn(process.execPath, [CLI, ...words, mountpoint])
    const ended = new Promise((resolve) => child.once('exit', resolve))
    let said = ''
    child.stderr?.on('data', (text: Buffer) => (said += text.toString()))
    await waitFor(() => fs.existsSync(path.join(mountpoint, 'file')), 'the mount')
    child.kill('SIGTERM')
    await waitFor(() => /is still the newest/.test(said), 'the end of the mount')
    child.kill('SIGTERM')
    t.is(await ended, 0)
    t.true(fs.readdirSync(left).length > 0, 'it has waited for the removal')
  }
)

test.serial('a daemon that dies while unmount asks it leaves a dead mount, which is cleared: exit 5', async (t) => {
  const { bed } = t.context
  const mountpoint = await bed.mount('a', bed.vm(), 'mnt')
  const [socketPath = ''] = findSockets(mountpoint)
  await bed.killDaemon('a', mountpoint)
  fs.rmSync(socketPath)
  const dying = net.createServer((socket) => {
    socket.on('error', () => undefined).once('data', () => socket.destroy())
  })
  await new Promise<void>((resolve) => dying.listen(socketPath, resolve))
  try {
    const { code, stderr } = await bed.isrfs('a', 'unmount', mountpoint)
    t.is(code, 5, stderr)
    t.regex(stderr, /ended without publishing.*isrfs recover/s)
    t.false(isMounted(mountpoint))
  } finally {
    dying.close()
  }
  t.is((await bed.isrfs('a', 'recover', bed.vm())).code, 0)
})

test.serial('a signal to a busy mount ends it as soon as nobody uses it', async (t) => {
  const { bed } = t.context
  const mountpoint = await bed.mount('a', bed.vm(), 'mnt')
  const { pid } = await bed.status('a', mountpoint)
  const fd = fs.openSync(path.join(mountpoint, 'file'), 'r+')
  fs.writeSync(fd, 'SECOND')
  process.kill(pid, 'SIGTERM')
  const log = bed.path('client-a', 'log', fs.readdirSync(bed.path('client-a', 'log'))[0] ?? '')
  await waitFor(() => fs.readFileSync(log, 'utf8').includes('not unmounted'), 'the first try')
  t.true(isAlive(pid))
  fs.closeSync(fd)
  await waitFor(() => !isAlive(pid), 'the daemon to end')
  await bed.mustIsrfs('b', 'export', bed.vm(), bed.path('exported'))
  t.is(fs.readFileSync(bed.path('exported', 'file'), 'utf8'), 'SECOND')
})

test.serial('a share that hangs blocks who reads from it, but neither status nor what is present', async (t) => {
  const { bed } = t.context
  // The share itself is a mount whose daemon can be stopped: a dead server as a client sees it.
  const share = await bed.mount('server', bed.vm(), 'share-mount', '--discard')
  const { pid: server } = await bed.status('server', share)
  const vm = path.join(share, 'inner')
  await bed.mustIsrfs('a', 'import', bed.path('source'), vm)
  const mountpoint = await bed.mount('a', vm, 'mnt')
  t.is(fs.readFileSync(path.join(mountpoint, 'file'), 'utf8'), 'first')
  writeSynced(path.join(mountpoint, 'new'), 'written while it answers')
  await bed.command('sync', ['-f', share])
  process.kill(server, 'SIGSTOP')
  try {
    const reading = fs.promises.readFile(path.join(mountpoint, 'disk'))
    await waitFor(async () => {
      const { stdout } = await bed.mustIsrfs('a', 'status', mountpoint)
      return /^waiting .*(block|map)/m.test(stdout)
    }, 'status to name what waits')
    t.is(fs.readFileSync(path.join(mountpoint, 'file'), 'utf8'), 'first')
    writeSynced(path.join(mountpoint, 'new'), 'written while it hangs')
    t.is((await bed.isrfs('a', 'status', mountpoint, '--json')).code, 0)
    process.kill(server, 'SIGCONT')
    t.true((await reading).equals(Buffer.alloc(2 * 2 ** 20, 'x')))
  } finally {
    process.kill(server, 'SIGCONT')
  }
  await bed.unmount('a', mountpoint)
  t.regex((await bed.mustIsrfs('a', 'log', vm)).stdout, /^ +2 /m)
  await bed.unmount('server', share)
})

test.serial('an unmount client that goes away does not stop the commit', async (t) => {
  const { bed } = t.context
  const mountpoint = await bed.mount('a', bed.vm(), 'mnt')
  fs.writeFileSync(path.join(mountpoint, 'file'), 'second')
  const { pid } = await bed.status('a', mountpoint)
  const client = bed.spawn(process.execPath, [CLI, 'unmount', mountpoint])
  await waitFor(() => !fs.existsSync(path.join(mountpoint, 'file')), 'the mount to go')
  client.kill('SIGKILL')
  await waitFor(() => !isAlive(pid), 'the daemon to end')
  t.regex((await bed.mustIsrfs('a', 'log', bed.vm())).stdout, /^ +2 /m)
})

test.serial(
  'a mount that lives on in another mount namespace is served until that is gone: exit 6, then a commit',
  async (t) => {
    const { bed } = t.context
    const mountpoint = await bed.mount('a', bed.vm(), 'mnt')
    const { pid } = await bed.status('a', mountpoint)
    // The namespace gets a copy of every mount there is, those of tests that run beside this one too, and would keep
    // them alive past their unmount: it lets go of all but ours.
    const script = `
      cut -d ' ' -f 5 /proc/self/mountinfo | while IFS= read -r escaped; do
        place=$(printf %b "$escaped") # a space is \\040 there
        case $place in */isrfs-*) [ "$place" = "$1" ] || umount "$place" ;; esac
      done
      exec sleep 600`
    const elsewhere = bed.spawn('unshare', ['-m', 'sh', '-c', script, 'sh', mountpoint])
    await waitFor(() => fs.readFileSync(`/proc/${elsewhere.pid ?? 0}/comm`, 'utf8') === 'sleep\n', 'the namespace')
    const kept = fs.readFileSync(`/proc/${elsewhere.pid ?? 0}/mountinfo`, 'utf8').split('\n')
    t.deepEqual(
      kept.map((line) => line.split(' ')[4] ?? '').filter((place) => place.includes('/isrfs-')),
      [mountpoint]
    )
    fs.writeFileSync(path.join(mountpoint, 'file'), 'second')
    const refused = await bed.isrfs('a', 'unmount', mountpoint)
    t.is(refused.code, 6, refused.stderr)
    t.regex(refused.stderr, /still in use elsewhere/)
    await bed.command('nsenter', ['-t', String(elsewhere.pid), '-m', 'sh', '-c', `printf third > ${mountpoint}/file`])
    t.true(isAlive(pid))
    elsewhere.kill('SIGKILL')
    await waitFor(() => !isAlive(pid), 'the daemon to commit and end')
    await bed.mustIsrfs('b', 'export', bed.vm(), bed.path('exported'))
    t.is(fs.readFileSync(bed.path('exported', 'file'), 'utf8'), 'third')
  }
)

// libfuse waits for its running requests before it says that the mount has ended; the direct transport hears it at once.
for (const [transport, code, text] of [
  ['binding', 6, /waits for the share|is in use/],
  ['direct', 0, /the share does not answer/]
] as const)
  test.serial(
    `${transport}: an unmount while a request hangs on the share says so, and the daemon ends when the share answers`,
    async (t) => {
      const { bed } = t.context
      const share = await bed.mount('server', bed.vm(), 'share-mount', '--discard')
      const { pid: server } = await bed.status('server', share)
      const vm = path.join(share, 'inner')
      await bed.mustIsrfs('a', 'import', bed.path('source'), vm)
      const mountpoint = await bed.mount('b', vm, 'mnt', '--read-only', '--transport', transport)
      const { pid } = await bed.status('b', mountpoint)
      process.kill(server, 'SIGSTOP')
      try {
        const reader = bed.spawn('head', ['-c', '1', path.join(mountpoint, 'disk')])
        await waitFor(
          async () => /^waiting .*(block|map)/m.test((await bed.mustIsrfs('b', 'status', mountpoint)).stdout),
          'the read'
        )
        reader.kill('SIGKILL')
        const refused = await bed.isrfs('b', 'unmount', mountpoint)
        t.is(refused.code, code, refused.stderr)
        t.regex(refused.stderr, text)
      } finally {
        process.kill(server, 'SIGCONT')
      }
      await bed.isrfs('b', 'unmount', mountpoint)
      await waitFor(() => !isAlive(pid), 'the daemon to end')
      await bed.unmount('server', share)
      t.pass()
    }
  )

test.serial('with --no-writeback every write that has returned survives the daemon', async (t) => {
  const { bed } = t.context
  const mountpoint = await bed.mount('a', bed.vm(), 'mnt', '--no-writeback')
  const fd = fs.openSync(path.join(mountpoint, 'disk'), 'r+')
  const bytes = randomBytes(300_000)
  fs.writeSync(fd, bytes, 0, bytes.length, 100_001)
  fs.writeSync(fd, 'four', 1_500_000)
  await crash(bed, mountpoint)
  t.throws(() => fs.closeSync(fd), { code: 'ENOTCONN' })
  await bed.mount('a', bed.vm(), 'mnt')
  const disk = fs.readFileSync(path.join(mountpoint, 'disk'))
  t.true(disk.subarray(100_001, 100_001 + bytes.length).equals(bytes))
  t.is(disk.toString('latin1', 1_499_999, 1_500_005), 'xfourx')
  await bed.unmount('a', mountpoint)
})

test.serial('a file that a process has mapped is known to be, whatever else is open', async (t) => {
  const { bed } = t.context
  const mountpoint = await bed.mount('a', bed.vm(), 'mnt', '--read-only')
  t.false(await isMapped(mountpoint, 'disk'))
  const script =
    'import mmap, sys, time; f = open(sys.argv[1], "rb"); m = mmap.mmap(f.fileno(), 0, prot=mmap.PROT_READ); print(m[0], flush=True); time.sleep(600)'
  const program = bed.spawn('python3', ['-c', script, path.join(mountpoint, 'disk')])
  await once(program.stdout ?? program, 'data')
  t.true(await isMapped(mountpoint, 'disk'))
  t.false(await isMapped(mountpoint, 'file'))
  program.kill('SIGKILL')
  await waitFor(() => !isAlive(program.pid ?? 0), 'the program to be gone')
  t.false(await isMapped(mountpoint, 'disk'))
  t.true(await isMapped(bed.path('source'), 'disk'), 'what cannot be told counts as mapped')
  await bed.unmount('a', mountpoint)
})

test.serial('the tables of a sparse disk are here soon after mounting, before anybody asks', async (t) => {
  const { bed } = t.context
  const disk = randomBytes(1024 * 1024)
  disk.write('KDMV', 0, 'latin1')
  disk.writeBigUInt64LE(600n, 64)
  fs.writeFileSync(bed.path('source', 'split-s001.vmdk'), disk)
  await bed.mustIsrfs('a', 'import', bed.path('source'), bed.vm(), '--update')
  const mountpoint = await bed.mount('b', bed.vm(), 'mnt')
  await waitFor(async () => (await bed.status('b', mountpoint)).fetchedBlocks === 3, 'the tables')
  await bed.unmount('b', mountpoint)
  t.pass()
})

async function killWaiting(program: ChildProcess, what: string): Promise<void> {
  await pause(1000) // it waits in the kernel by then; else it dies the more easily
  program.kill('SIGKILL')
  await waitFor(() => !isAlive(program.pid ?? 0), `${what} to be gone`)
}

test.serial('a program that waits for a dead share can be killed, whatever it waits for', async (t) => {
  const { bed } = t.context
  fs.writeFileSync(bed.path('source', 'large'), randomBytes(1024 * 1024))
  const share = await bed.mount('server', bed.vm(), 'share-mount', '--discard')
  const { pid: server } = await bed.status('server', share)
  const vm = path.join(share, 'inner')
  await bed.mustIsrfs('a', 'import', bed.path('source'), vm)
  const mountpoint = await bed.mount('b', vm, 'mnt', '--transport', 'direct')
  const large = path.join(mountpoint, 'large')
  process.kill(server, 'SIGSTOP')
  try {
    for (const words of [
      [`if=${large}`, 'of=/dev/null', 'bs=4k', 'count=1', 'skip=10'],
      [`if=${large}`, 'of=/dev/null', 'bs=4k', 'count=1', 'skip=100', 'iflag=direct'],
      ['if=/dev/zero', `of=${large}`, 'bs=4', 'count=1', 'seek=200000', 'conv=notrunc'], // the page is read first
      ['if=/dev/zero', `of=${large}`, 'bs=512', 'count=1', 'seek=1500', 'oflag=direct', 'conv=notrunc']
    ]) {
      await killWaiting(bed.spawn('dd', words), `dd ${words.join(' ')}`)
    }
    const lookForHole = 'open(my $file, "<", $ARGV[0]) or die; sysseek($file, 0, 4)'
    await killWaiting(bed.spawn('perl', ['-e', lookForHole, large]), 'perl')
  } finally {
    process.kill(server, 'SIGCONT')
  }
  t.deepEqual(fs.readFileSync(large), fs.readFileSync(bed.path('source', 'large')), 'what was given up spoils nothing')
  await bed.unmount('b', mountpoint)
  await bed.unmount('server', share)
})

test.serial('a session in which nothing was changed does not keep a newer generation from being mounted', async (t) => {
  const { bed } = t.context
  const mountpoint = await bed.mount('a', bed.vm(), 'mnt')
  await crash(bed, mountpoint)
  await bed.mustIsrfs('b', 'lease', bed.vm(), '--break')
  fs.writeFileSync(bed.path('source', 'file'), 'second')
  await bed.mustIsrfs('b', 'import', bed.path('source'), bed.vm(), '--update')
  await bed.mount('a', bed.vm(), 'mnt')
  t.is(fs.readFileSync(path.join(mountpoint, 'file'), 'utf8'), 'second')
  await bed.unmount('a', mountpoint)
})
