/**
 * The scripts around the command line, called as people and mount(8) call them. VMware cannot be had for tests: `vmware`, `vmplayer` and
 * `vmrun` are stand-ins that record what they were asked and play the guest; isrfs, its mounts and the scripts are the real ones.
 */
import { randomBytes } from 'node:crypto'
import { spawn } from 'node:child_process'
import fs from 'node:fs'
import path from 'node:path'
import anyTest, { type TestFn } from 'ava'
import { CLI, isMounted, type Result, Bed, waitFor } from '../support/bed.js'
import { Random } from '../support/random.js'
import { Resume } from '../support/vmm-bed.js'

const SCRIPTS = path.resolve('mount-scripts')

interface Context {
  bed: Bed
  env: NodeJS.ProcessEnv
  at: string
}

const test = anyTest as TestFn<Context>

test.beforeEach(async (t) => {
  t.timeout(120_000)
  const bed = new Bed('scripts')
  const bin = bed.makeDirectory('bin')
  const program = (name: string, text: string): void => {
    fs.writeFileSync(path.join(bin, name), `#!/bin/sh\n${text}\n`, { mode: 0o755 })
  }
  program('isrfs', `exec '${process.execPath}' '${CLI}' "$@"`)
  const record = `echo "$(basename "$0") $*" >>'${bed.path('asked')}'`
  const running = bed.path('running')
  // the window: takes the last argument as the .vmx, writes as a guest does, and ends
  const window = `${record}
for vmx; do :; done
directory=$(dirname "$vmx")
mkdir "$directory/testvm.vmdk.lck"; echo lock >"$directory/testvm.vmdk.lck/M12345.lck"
echo "the guest was here" >>"$directory/disk"
if [ -e '${bed.path('stays')}' ]; then echo "$vmx" >'${running}'; while [ -e '${running}' ]; do sleep 0.1; done; fi
if [ -e '${bed.path('background')}' ]; then echo "$vmx" >'${running}'; (sleep 3; rm -f '${running}') & fi
exit "$(cat '${bed.path('exit-code')}' 2>/dev/null || echo 0)"`
  program('vmware', window)
  program('vmplayer', window)
  program(
    'vmrun',
    `${record}
case $1 in
list) echo "Total running VMs: 1"; cat '${running}' 2>/dev/null ;;
suspend) [ ! -e '${bed.path('refuses')}' ] || { echo refused >>'${bed.path('asked')}'; exit 255; }
  echo suspended >"$(dirname "$2")/testvm.vmss"; rm -f '${running}' ;;
esac`
  )
  const source = bed.makeDirectory('plain')
  fs.writeFileSync(path.join(source, 'disk'), 'a disk\n')
  fs.writeFileSync(path.join(source, 'testvm.vmx'), 'displayName = "testvm"\n')
  await bed.mustIsrfs('a', 'import', source, bed.vm())
  const at = bed.makeDirectory('mnt point')
  bed.rememberMount(at)
  t.context = {
    bed,
    at,
    env: {
      ...process.env,
      PATH: `${bin}:${process.env['PATH'] ?? ''}`,
      ISRFS_CLIENT_DIR: bed.path('client-a'),
      ISRFS_VMM_PATIENCE: '4'
    }
  }
})
test.afterEach.always((t) => t.context.bed.destroy())

function script({ bed, env }: Context, name: string, ...args: string[]): Promise<Result> {
  return bed.command(path.join(SCRIPTS, name), args, { env })
}

/** In a process group of its own, as a shell does, so that it can be interrupted. */
function start({ env }: Context, name: string, ...args: string[]): Resume {
  return new Resume(spawn(path.join(SCRIPTS, name), args, { env, detached: true }))
}

async function exported({ bed }: Context, name: string): Promise<string | undefined> {
  const target = bed.path(`exported-${name.replace(/\W/g, '')}`)
  await bed.mustIsrfs('c', 'export', bed.vm(), target)
  const file = path.join(target, name)
  return fs.existsSync(file) ? fs.readFileSync(file, 'utf8') : undefined
}

/** the only one that is perl */
const LAUNCHER = 'fuse-launch'

const asked = ({ bed }: Context): string => fs.readFileSync(bed.path('asked'), 'utf8')

test('all scripts are clean for shellcheck, and tell how they are used', async (t) => {
  const { bed } = t.context
  const isScript = (name: string): boolean =>
    fs.statSync(path.join(SCRIPTS, name)).isFile() && !name.includes('@') && name !== 'logind.conf'
  const names = fs.readdirSync(SCRIPTS).filter((name) => isScript(name) && name !== LAUNCHER)
  const guest = ['build', 'guest-init', 'initrd-init'].map((name) => path.resolve('test/vmm/guest', name))
  const files = names.map((name) => path.join('mount-scripts', name))
  const machine = ['systemd-machine', 'systemd-scenario'].map((name) => path.resolve('test/mount-scripts', name))
  const checked = await bed.command('shellcheck', ['--severity=warning', '-x', ...files, guest[0] ?? '', ...machine])
  t.is(checked.code, 0, checked.stdout)
  const perl = await bed.command('perl', ['-c', path.join(SCRIPTS, LAUNCHER)])
  t.is(perl.code, 0, perl.stderr)
  for (const name of ['isrfs-resume', 'isrfs-suspend', 'mount.isrfs', 'setup-host', 'install.sh']) {
    const help = await script(t.context, name, '--help')
    t.is(help.code, 0, name)
    t.regex(help.stdout, /^usage: /)
    t.not((await script(t.context, name, '--nonsense')).code, 0)
  }
})

test('resume with VMware: window, wait for the guest in the background, suspend; its stale locks do not travel', async (t) => {
  const { bed, at } = t.context
  fs.writeFileSync(bed.path('background'), '')
  const resumed = await script(t.context, 'isrfs-resume', bed.vm(), '--vmm', 'vmware', '--at', at, '--', '-n')
  t.is(resumed.code, 0, resumed.stderr)
  t.regex(resumed.stderr, /the window was closed, and the guest goes on/)
  t.regex(resumed.stdout, /generation 2 of .* is durable/)
  t.true(asked(t.context).includes(`vmware -x -q -n ${at}/testvm.vmx\n`))
  t.false(isMounted(at))
  t.is(await exported(t.context, 'disk'), 'a disk\nthe guest was here\n')
  t.false(fs.existsSync(bed.path('exported-disk', 'testvm.vmdk.lck')))
})

test('Ctrl-C suspends a guest of VMware, and its window ends after it; an ordinary user lets root in', async (t) => {
  const { bed, at } = t.context
  fs.writeFileSync(bed.path('stays'), '')
  fs.writeFileSync(bed.path('bin', 'id'), '#!/bin/sh\necho 1000\n', { mode: 0o755 })
  const running = start(t.context, 'isrfs-resume', bed.vm(), '--vmm', 'vmware', '--at', at)
  await waitFor(() => fs.existsSync(bed.path('running')), 'the guest to run', 60_000)
  t.regex((await bed.command('findmnt', ['-n', '-o', 'OPTIONS', at])).stdout, /allow_other/)
  fs.writeFileSync(bed.path('refuses'), '')
  running.interrupt()
  await waitFor(() => asked(t.context).includes('refused'), 'VMware to refuse', 60_000)
  t.true(fs.existsSync(bed.path('running')), 'neither did ^C end the window, nor a refusal the guest')
  fs.rmSync(bed.path('refuses'))
  running.interrupt()
  const ended = await running.ended
  t.is(ended.code, 0, ended.stderr)
  t.regex(ended.stderr, /VMware does not suspend the guest; it goes on/)
  t.regex(ended.stdout, /generation 2 of .* is durable/)
  t.false(isMounted(at))
  t.is(await exported(t.context, 'testvm.vmss'), 'suspended\n')
})

test('Ctrl-C at any moment: no mount and no lease are left, and one message says what has become of the VM', async (t) => {
  const { bed, at } = t.context
  const random = new Random()
  t.log(`seed ${String(random.seed)}`)
  for (let round = 0; round < 5; round++) {
    const resume = start(t.context, 'isrfs-resume', bed.vm(), '--vmm', 'vmware', '--at', at)
    await new Promise((resolve) => setTimeout(resolve, random.below(2000)))
    resume.interrupt()
    const { code, stdout, stderr } = await resume.ended
    const text = `${stdout}${stderr}`
    if (code === 0) t.regex(text, /is durable on the share|is still the newest/)
    else if (code === 5) {
      t.regex(text, /isrfs unmount/)
      await bed.isrfs('a', 'unmount', at) // as it says: it waits for a suspend that goes on
      t.is((await bed.isrfs('a', 'recover', bed.vm())).code, 0, text)
    } else if (code === -1) t.is(text, '', 'the shell had not read what to do')
    else {
      t.is(code, 1, text)
      t.regex(text, /was given up; nothing has changed|interrupted before .* was mounted/)
    }
    t.false(isMounted(at), text)
    t.regex((await bed.mustIsrfs('b', 'lease', bed.vm())).stdout, /^(?:free|never)/, text)
  }
})

test('Ctrl-C while a suspend is published ends the waiting, not the suspend', async (t) => {
  const { bed, at } = t.context
  await bed.mustIsrfs('a', 'mount', bed.vm(), at)
  fs.writeFileSync(path.join(at, 'disk'), randomBytes(128 * 1024 * 1024))
  const suspend = start(t.context, 'isrfs-suspend', at)
  await waitFor(() => !isMounted(at), 'the end of the mount')
  suspend.interrupt()
  const { code, stderr } = await suspend.ended
  t.true(code === 5 || code === 0)
  if (code === 5) t.regex(stderr, /the suspend of .* goes on without this script.*isrfs unmount/)
  await bed.isrfs('a', 'unmount', at)
  const log = JSON.parse((await bed.mustIsrfs('c', 'log', bed.vm(), '--json')).stdout) as unknown[]
  t.is(log.length, 2)
})

test('resume with Player, on a mount that is there already, with locks kept on request', async (t) => {
  const { bed, at } = t.context
  await bed.mustIsrfs('a', 'mount', bed.vm(), at)
  const busy = fs.openSync(path.join(at, 'disk'), 'r')
  const resumed = await script(t.context, 'isrfs-resume', bed.vm(), '--vmm=vmplayer', `--at=${at}`)
  fs.closeSync(busy)
  t.is(resumed.code, 6, 'somebody has a file open')
  t.regex(resumed.stderr, /is mounted on .* already; going on with it/)
  t.regex(resumed.stderr, /waiting until it is free.*stays mounted.*isrfs unmount/s)
  const unmounted = await bed.isrfs('a', 'unmount', at, '--keep-locks')
  t.is(unmounted.code, 0, unmounted.stderr)
  t.is(await exported(t.context, 'disk'), 'a disk\nthe guest was here\n')
  t.true(fs.existsSync(bed.path('exported-disk', 'testvm.vmdk.lck', 'M12345.lck')))
})

test('suspend asks VMware, and stops when it refuses', async (t) => {
  const { bed, at } = t.context
  const nothing = await script(t.context, 'isrfs-suspend', bed.vm())
  t.is(nothing.code, 1)
  t.regex(nothing.stderr, /neither mounted by isrfs nor a mountpoint/)
  await bed.mustIsrfs('a', 'mount', bed.vm(), at)
  fs.writeFileSync(bed.path('running'), `${at}/testvm.vmx\n`)
  fs.writeFileSync(bed.path('refuses'), '')
  const refused = await script(t.context, 'isrfs-suspend', bed.vm())
  t.is(refused.code, 1)
  t.regex(refused.stderr, /VMware does not suspend the guest; it goes on/)
  t.true(isMounted(at))
  fs.rmSync(bed.path('refuses'))
  const suspended = await script(t.context, 'isrfs-suspend', bed.vm())
  t.is(suspended.code, 0, suspended.stderr)
  t.true(asked(t.context).includes(`vmrun suspend ${at}/testvm.vmx soft\n`))
  t.is(await exported(t.context, 'testvm.vmss'), 'suspended\n')
})

test('what can be wrong with a resume is one message, and the mount is named', async (t) => {
  const { bed, at } = t.context
  const died =
    (fs.writeFileSync(bed.path('exit-code'), '3'),
    await script(t.context, 'isrfs-resume', bed.vm(), '--vmm', 'vmware', '--at', at))
  t.is(died.code, 1)
  t.regex(died.stderr, /vmware ended with exit code 3.*stays mounted.*isrfs-resume .*isrfs unmount/s)
  t.true(isMounted(at))
  const elsewhere = await script(t.context, 'isrfs-resume', bed.path('share', 'other'), '--vmm', 'none', '--at', at)
  t.is(elsewhere.code, 1)
  t.regex(elsewhere.stderr, /is a mount of .*testvm already/)

  fs.renameSync(path.join(at, 'testvm.vmx'), path.join(at, 'testvm.vmx~'))
  const none = await script(t.context, 'isrfs-resume', bed.vm(), '--vmm', 'vmware', '--at', at)
  t.is(none.code, 1)
  t.regex(none.stderr, /there is no \.vmx file in/)
  fs.writeFileSync(path.join(at, 'one.vmx'), '')
  fs.writeFileSync(path.join(at, 'two.vmx'), '')
  const several = await script(t.context, 'isrfs-resume', bed.vm(), '--vmm', 'vmware', '--at', at)
  t.regex(several.stderr, /there are several \.vmx files/)
  await bed.mustIsrfs('a', 'unmount', at)

  t.is((await script(t.context, 'isrfs-resume', bed.vm(), '--vmm', 'nonsense')).code, 2)
  t.is((await script(t.context, 'isrfs-resume')).code, 2)
  await bed.mustIsrfs('b', 'mount', bed.vm(), bed.makeDirectory('mnt-b'))
  bed.rememberMount(bed.path('mnt-b'))
  const held = await script(t.context, 'isrfs-resume', bed.vm(), '--vmm', 'vmware', '--at', at)
  t.is(held.code, 3)
  t.false(isMounted(at))
})

test('a suspend that cannot be published says that the changes are safe, and how to go on', async (t) => {
  const { bed, at } = t.context
  await bed.mustIsrfs('a', 'mount', bed.vm(), at)
  fs.writeFileSync(path.join(at, 'disk'), 'changed')
  fs.renameSync(bed.vm(), bed.path('away'))
  fs.mkdirSync(bed.vm())
  const failed = await script(t.context, 'isrfs-suspend', at)
  t.is(failed.code, 5, failed.stderr)
  t.regex(failed.stderr, /could not be published; its changes are safe on this client.*isrfs recover/)
  fs.rmdirSync(bed.vm())
  fs.renameSync(bed.path('away'), bed.vm())
  t.is((await bed.isrfs('a', 'recover', bed.vm())).code, 0)
  t.is(await exported(t.context, 'disk'), 'changed')
})

test('mount.isrfs understands what mount(8) and fstab say', async (t) => {
  const { bed, at } = t.context
  const first = await script(
    t.context,
    'mount.isrfs',
    bed.vm(),
    at,
    '-sn',
    '-o',
    'rw,noauto,user=me,_netdev,x-systemd.automount,cache_size=1G'
  )
  t.is(first.code, 1, 'bundled flags are not what mount(8) passes')
  const options = 'rw,noauto,user,_netdev,x-systemd.automount,cache_size=1G,no_writeback'
  const mounted = await script(t.context, 'mount.isrfs', bed.vm(), at, '-o', options)
  t.is(mounted.code, 0, mounted.stderr)
  fs.writeFileSync(path.join(at, 'disk'), 'through mount.isrfs')
  fs.symlinkSync(path.join(SCRIPTS, 'mount.isrfs'), bed.path('bin', 'umount.fuse.isrfs'))
  const lazily = await bed.command('umount.fuse.isrfs', [at, '-l'], { env: t.context.env })
  t.is(lazily.code, 1)
  t.regex(lazily.stderr, /never unmounted lazily/)
  const unmounted = await bed.command('umount.fuse.isrfs', [at], { env: t.context.env })
  t.is(unmounted.code, 0, unmounted.stderr)
  t.is(await exported(t.context, 'disk'), 'through mount.isrfs')

  const old = await script(t.context, 'mount.isrfs', bed.vm(), at, '-o', 'ro,generation=1')
  t.is(old.code, 0, old.stderr)
  t.is(fs.readFileSync(path.join(at, 'disk'), 'utf8'), 'a disk\n')
  await bed.mustIsrfs('a', 'unmount', at)
  t.regex(
    (await script(t.context, 'mount.isrfs', bed.vm(), at, '-o', 'nonsense')).stderr,
    /the option nonsense is unknown/
  )
  t.is((await script(t.context, 'mount.isrfs', bed.vm(), at, '-o', 'suid')).code, 1)
  t.is((await script(t.context, 'mount.isrfs', bed.path('nowhere'), at)).code, 32)
})

test('setup-host prints a table; a share on it is looked at', async (t) => {
  const { bed } = t.context
  await bed.mustIsrfs('a', 'mount', bed.vm(), t.context.at)
  const looked = await script(t.context, 'setup-host', '--share', bed.path('share'))
  t.is(looked.code, 0, looked.stdout)
  t.regex(looked.stdout, /^WHAT +STATE\s/)
  t.regex(looked.stdout, /^fuse3 +ok /m)
  t.regex(looked.stdout, /^share .* +ok /m)
  t.regex(looked.stdout, /^read ahead +ok +.*mnt point: \d+ KiB/m)
  const missing = await script(t.context, 'setup-host', '--share', bed.path('nowhere'))
  t.is(missing.code, 1)
  t.regex(missing.stdout, /^share .*nowhere +missing +no such directory/m)
})

test('the unit is one that systemd accepts, and the daemon tells when it is ready', async (t) => {
  const { bed, env, at } = t.context
  const unit = fs.readFileSync(path.join(SCRIPTS, 'isrfs@.service'), 'utf8')
  const inhibitor = fs.readFileSync(path.join(SCRIPTS, 'isrfs-inhibit@.service'), 'utf8')
  fs.writeFileSync(bed.path('isrfs@.service'), unit.replaceAll('@prefix@', bed.root))
  fs.writeFileSync(bed.path('isrfs-inhibit@.service'), inhibitor.replaceAll('@prefix@', bed.root))
  for (const [name, target] of [
    ['bin/isrfs-suspend', 'isrfs-suspend'],
    ['lib/isrfs/mount-scripts/stop-at-shutdown', 'stop-at-shutdown']
  ] as const) {
    fs.mkdirSync(path.dirname(bed.path(name)), { recursive: true })
    fs.symlinkSync(path.join(SCRIPTS, target), bed.path(name))
  }
  const units = [bed.path('isrfs@.service'), bed.path('isrfs-inhibit@.service')]
  const verified = await bed.command('systemd-analyze', ['verify', '--man=no', ...units])
  t.is(verified.code, 0, verified.stderr)
  t.notRegex(verified.stderr, /isrfs/)

  const listener = `
import os, socket, subprocess, sys
path, command = sys.argv[1], sys.argv[2:]
server = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
server.bind(path)
child = subprocess.Popen(command, env={**os.environ, "NOTIFY_SOCKET": path})
server.settimeout(60)
said = ""
while "READY=1" not in said:
    said += server.recv(4096).decode() + "\\n"
print(said)
subprocess.run([os.environ["ISRFS"], "unmount", command[-1]], check=True)
sys.exit(child.wait())
`
  const program = path.join(bed.path('bin'), 'isrfs')
  const told = await bed.command(
    'python3',
    ['-c', listener, bed.path('notify'), program, 'mount', '--foreground', bed.vm(), at],
    { env: { ...env, ISRFS: program } }
  )
  t.is(told.code, 0, told.stderr)
  t.regex(told.stdout, /READY=1/)
  t.regex(told.stdout, /STATUS=generation 1 is mounted/)
})

test('install.sh puts everything into a prefix that works on its own, and takes exactly that away', async (t) => {
  const { bed, env, at } = t.context
  const prefix = bed.path('prefix')
  const root = bed.makeDirectory('built')
  for (const name of ['mount-scripts', 'docs', 'native-notes', 'package.json', 'package-lock.json', 'LICENSE']) {
    fs.cpSync(path.resolve(name), path.join(root, name), { recursive: true })
  }
  fs.symlinkSync(path.resolve('node_modules'), path.join(root, 'node_modules'))
  fs.cpSync(path.resolve('dist'), path.join(root, 'dist'), { recursive: true })
  fs.mkdirSync(prefix)
  fs.writeFileSync(path.join(prefix, 'mine'), '')
  const installed = await bed.command(path.join(root, 'mount-scripts', 'install.sh'), ['--prefix', prefix], { env })
  t.is(installed.code, 0, installed.stderr)
  fs.rmSync(root, { recursive: true })

  const own = { ...env, PATH: `${prefix}/bin:${process.env['PATH'] ?? ''}` }
  t.regex((await bed.command('isrfs', ['--version'], { env: own })).stdout, /^\d+\.\d+\.\d+\n$/)
  const mounted = await bed.command('isrfs-resume', [bed.vm(), '--vmm', 'none', '--at', at], { env: own })
  t.is(mounted.code, 0, mounted.stderr)
  t.is((await bed.command('isrfs-suspend', [at], { env: own })).code, 0)
  t.false(fs.existsSync(path.join(prefix, 'lib/isrfs/node_modules/ava')), 'what tests need is not installed')
  const unit = fs.readFileSync(path.join(prefix, 'lib/systemd/system/isrfs@.service'), 'utf8')
  t.true(unit.includes(`${prefix}/bin/isrfs mount`))
  t.true(fs.existsSync(path.join(prefix, 'lib/systemd/logind.conf.d/isrfs.conf')))
  const completion = `source '${prefix}/share/bash-completion/completions/isrfs'
    COMP_WORDS=(isrfs mount --read); COMP_CWORD=2; _isrfs; echo "\${COMPREPLY[@]}"
    COMP_WORDS=(isrfs unm); COMP_CWORD=1; _isrfs; echo "\${COMPREPLY[@]}"`
  t.is((await bed.command('bash', ['-c', completion])).stdout, '--read-only\nunmount\n')
  t.true(fs.existsSync(path.join(prefix, 'share/man/man1/isrfs-mount.1')))
  t.true(fs.existsSync(path.join(prefix, 'share/zsh/site-functions/_isrfs')))
  t.true(fs.existsSync(path.join(prefix, 'share/fish/vendor_completions.d/isrfs.fish')))

  const removed = await bed.command(path.resolve('mount-scripts/install.sh'), ['--prefix', prefix, '--uninstall'], {
    env
  })
  t.is(removed.code, 0, removed.stderr)
  const left = fs.readdirSync(prefix, { recursive: true, withFileTypes: true }).filter((entry) => !entry.isDirectory())
  t.deepEqual(
    left.map(({ name }) => name),
    ['mine']
  )
})

test('whoever takes the mount away second waits for what the first one publishes', async (t) => {
  const { bed, at, env } = t.context
  await bed.mustIsrfs('a', 'mount', bed.vm(), at)
  fs.writeFileSync(path.join(at, 'disk'), randomBytes(96 * 1024 * 1024))
  const first = bed.isrfs('a', 'unmount', at)
  await waitFor(() => !isMounted(at), 'the end of the mount')
  const text = `. '${path.join(SCRIPTS, 'common')}'; unmount_when_idle "$1" "$2"`
  const second = await bed.command('sh', ['-c', text, 'second', at, bed.vm()], { env })
  t.is(second.code, 0, second.stderr)
  t.is((await first).code, 0)
})
