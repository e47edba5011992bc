/**
 * A real guest in a real VMM on real mounts, through the scripts that people use: it boots, writes, is suspended with its memory,
 * and goes on with another client that has never seen it.
 */
import fs from 'node:fs'
import path from 'node:path'
import anyTest, { type TestFn } from 'ava'
import { isMounted } from '../support/bed.js'
import { buildGuest, counts, type DiskFormat, marks, VmmBed } from '../support/vmm-bed.js'

const test = anyTest as TestFn<{ bed: VmmBed }>
const secondsSince = (beginMs: number): string => `${((performance.now() - beginMs) / 1000).toFixed(1)} s`
let guest = ''

test.before(async (t) => {
  t.timeout(600_000)
  guest = await buildGuest()
})
test.beforeEach((t) => {
  t.timeout(540_000)
  t.context.bed = new VmmBed('vmm', guest)
})
test.afterEach.always((t) => t.context.bed.destroy())

const FORMATS = ['split-sparse', 'flat', 'qcow2'] as const satisfies readonly DiskFormat[]
/** each boots a guest twice: a minute or two */
const { ISRFS_GUEST_DISKS: chosen = FORMATS[0] } = process.env

for (const format of FORMATS.filter((name) => chosen.split(' ').includes(name))) {
  test.serial(
    `a guest on a ${format} disk: its files are right, and what it writes is there on another client`,
    async (t) => {
      const { bed } = t.context
      await bed.mustIsrfs('a', 'import', await bed.makeVm(format), bed.vm())
      fs.rmSync(bed.path('plain'), { recursive: true })
      const mountpoint = await bed.mount('a', bed.vm(), 'mnt')
      const working = performance.now()
      const worked = await bed.runGuest('a', mountpoint, 'work', bed.path('work.log'))
      t.log(`boot, sums of files, reads, writes, power off: ${secondsSince(working)}`)
      t.log(...(await bed.figures('a', mountpoint)))
      t.regex(worked.join('\n'), /^UP\nSUMS ok [3-9]\d\d\nREAD ok\nWROTE ok\nDONE$/)
      const status = await bed.status('a', mountpoint)
      t.true(status.fetchedBytes > 0)
      const suspending = performance.now()
      await bed.unmount('a', mountpoint)
      t.log(`unmount: ${secondsSince(suspending)}, the commit of it ${String(bed.commitSeconds('a'))} s`)

      const second = await bed.mount('b', bed.vm(), 'mnt-b')
      const seen = await bed.runGuest('b', second, 'verify', bed.path('verify.log'))
      t.regex(seen.join('\n'), /^UP\nSUMS ok [3-9]\d\d\nWROTE ok\nDONE$/)
      await bed.unmount('b', second)
      const log = JSON.parse((await bed.mustIsrfs('a', 'log', bed.vm(), '--json')).stdout) as { generation: number }[]
      t.deepEqual(
        log.map(({ generation }) => generation),
        [3, 2, 1]
      )
    }
  )
}

test.serial('suspended with its memory on one client, resumed on another: the guest goes on counting', async (t) => {
  const { bed } = t.context
  const at = bed.makeDirectory('mnt')
  const [first, second] = [bed.path('first.log'), bed.path('second.log')]
  await bed.mustIsrfs('a', 'import', await bed.makeVm('flat'), bed.vm())
  const booting = performance.now()
  const running = bed.startResume('a', bed.vm(), at, bed.guestArguments('count', first, 260))
  await bed.waitForCount(first, 10)
  t.log(`isrfs-resume, mount and boot until the guest has counted to 10: ${secondsSince(booting)}`)
  t.log(...(await bed.figures('a', at)))
  await bed.waitForCount(first, 40)

  const refused = await bed.isrfs('b', 'mount', bed.vm(), bed.makeDirectory('mnt-b'))
  t.is(refused.code, 3)
  const again = await bed.isrfs('a', 'qemu', at)
  t.is(again.code, 1)
  t.regex(again.stderr, /a QEMU runs on .* already/)
  const suspending = performance.now()
  const suspended = await bed.script('a', 'isrfs-suspend', at)
  t.is(suspended.code, 0, suspended.stderr)
  t.log(
    `isrfs-suspend with the memory of the guest: ${secondsSince(suspending)}, the commit of it ${String(bed.commitSeconds('a'))} s`
  )
  const ended = await running.ended
  t.is(ended.code, 0, ended.stderr)
  t.regex(ended.stdout + suspended.stdout, /generation 2 of .* is durable/)
  t.false(isMounted(at))
  const before = counts(first).at(-1) ?? 0
  t.false(marks(first).includes('DONE'))

  const resuming = performance.now()
  const goingOn = bed.startResume('b', bed.vm(), at, bed.guestArguments('count', second, 260))
  await bed.waitForCount(second, before + 10)
  t.log(`isrfs-resume on an empty client, until the guest counts on: ${secondsSince(resuming)}`)
  t.log(...(await bed.figures('b', at)))
  const resumed = await goingOn.ended
  t.is(resumed.code, 0, resumed.stderr)
  t.regex(resumed.stderr, /the guest goes on where it was suspended/)
  t.is(counts(second)[0], before + 10)
  t.is(counts(second).at(-1), 260)
  t.is(marks(second).at(-1), 'DONE')
  t.notRegex([...marks(first), ...marks(second)].join('\n'), /BAD/)
  t.notRegex(fs.readFileSync(second, 'latin1'), /panic|EXT4-fs error|I\/O error/)

  const look = await bed.mount('c', bed.vm(), 'mnt-c', '--read-only')
  t.false(fs.existsSync(path.join(look, 'testvm.vmss')), 'a state that was taken in is gone')
  const fsck = await bed.command('e2fsck', ['-fn', path.join(look, 'testvm-flat.vmdk')])
  t.is(fsck.code, 0, fsck.stdout)
})

test.serial(
  'Ctrl-C suspends and publishes; the state in one piece; a state of another VMM is left alone',
  async (t) => {
    const { bed } = t.context
    const at = bed.makeDirectory('mnt')
    const [first, second] = [bed.path('first.log'), bed.path('second.log')]
    await bed.mustIsrfs('a', 'import', await bed.makeVm('qcow2', ['isrfs.qemu.memory = "stream"']), bed.vm())
    const running = bed.startResume('a', bed.vm(), at, bed.guestArguments('count', first, 80))
    await bed.waitForCount(first, 20)
    running.interrupt()
    const ended = await running.ended
    t.is(ended.code, 0, ended.stderr)
    t.regex(ended.stderr, /suspending the guest/)
    t.regex(ended.stdout, /generation 2 of .* is durable/)
    const before = counts(first).at(-1) ?? 0

    const mountpoint = await bed.mount('b', bed.vm(), 'mnt-b')
    t.false(fs.existsSync(path.join(mountpoint, 'testvm.vmem')))
    const seen = await bed.runGuest('b', mountpoint, 'count', second)
    t.is(counts(second)[0], before + 10)
    t.is(seen.at(-1), 'DONE')
    t.notRegex(seen.join('\n'), /BAD/)

    fs.writeFileSync(path.join(mountpoint, 'testvm.vmss'), Buffer.from([0xd2, 0xbe, 0xd2, 0xbe, 8, 0, 0, 0]))
    const foreign = await bed.isrfs('b', 'qemu', mountpoint, '--accel', 'tcg')
    t.is(foreign.code, 1)
    t.regex(foreign.stderr, /was not written by QEMU.*resume it there/s)
    t.true(fs.existsSync(path.join(mountpoint, 'testvm.vmss')))
  }
)

test.serial(
  'a VMM that dies leaves the mount, and says how to go on; a guest that cannot be suspended goes on',
  async (t) => {
    const { bed } = t.context
    const at = bed.makeDirectory('mnt')
    const log = bed.path('count.log')
    await bed.mustIsrfs('a', 'import', await bed.makeVm('split-sparse'), bed.vm())
    const running = bed.startResume('a', bed.vm(), at, bed.guestArguments('count', log))
    await bed.waitForCount(log, 10)
    const refused = await bed.script('a', 'isrfs-suspend', bed.vm())
    t.is(refused.code, 1)
    t.regex(
      refused.stderr,
      /QEMU cannot suspend a guest whose disk is a VMDK.*twoGbMaxExtentSparse.*shut the guest down/s
    )
    const deaf = await bed.script('a', 'isrfs-suspend', at, '--power-down')
    t.is(deaf.code, 1)
    t.regex(deaf.stderr, /the guest does not power off; it goes on/)
    const reached = counts(log).at(-1) ?? 0
    await bed.waitForCount(log, reached + 10)

    process.kill(bed.qemuPid(), 'SIGKILL')
    const died = await running.ended
    t.is(died.code, 1)
    t.regex(died.stderr, /QEMU ended with SIGKILL.*stays mounted on .*isrfs-resume .*isrfs unmount/s)
    t.true(isMounted(at))
    const written = await bed.script('a', 'isrfs-suspend', at)
    t.is(written.code, 0, written.stderr)
    t.regex(written.stdout, /generation 2 of .* is durable/)
  }
)
