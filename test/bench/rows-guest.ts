/**
 * Rows 1 to 3: a Debian guest boots to multi-user in an emulating QEMU, its disk a split sparse VMDK behind a link of
 * 100 Mb/s, and row 1 of 1 Gb/s too. Everything counts from the first command on: mounting, or copying, too. Every contender boots the
 * same content: what a guest writes is dropped, or rolled back.
 */
import { spawn } from 'node:child_process'
import fs from 'node:fs'
import path from 'node:path'
import { buildGuest } from '../support/vmm-bed.js'
import { atRate, slowLink } from './link.js'
import type { Contender, Row, Scale } from './measure.js'
import { mountIsrfs, mountRclone, type Mounted } from './peers.js'
import { type Place, seconds } from './place.js'

const DISK = 'testvm.vmdk'
const VMDK = 'subformat=twoGbMaxExtentSparse,adapter_type=lsilogic,hwversion=18'
const RATE = '100mbit'
const BOOT_MS_MAX = 400_000

export async function guestRows(place: Place, { isQuick, rounds: roundsMax }: Scale): Promise<Row[]> {
  const guest = await buildGuest()
  const rounds = isQuick ? 1 : Math.min(roundsMax, 3)
  const behind = place.directory('behind')
  const plain = path.join(behind, 'plain')
  const pristine = place.directory('pristine')
  await place.run('qemu-img', [
    'convert',
    '-O',
    'vmdk',
    '-o',
    VMDK,
    path.join(guest, 'disk.raw'),
    path.join(pristine, DISK)
  ])
  await place.run('cp', ['-a', pristine, plain])
  const link = await slowLink(place, behind, RATE)
  await place.isrfs(place.directory('importer'), 'import', plain, path.join(behind, 'vm'))
  const vm = path.join(link.mountpoint, 'vm')
  const profiles = path.join(behind, 'vm', 'profiles')
  const boot = (directory: string): Promise<void> => bootToMultiUser(guest, path.join(directory, DISK))
  /** The guest that ran there before has written to it. */
  const restore = (): Promise<string> => place.run('cp', ['-a', '--sparse=always', `${pristine}/.`, plain])
  const fresh = async (work: () => Promise<unknown>): Promise<number> => {
    await place.dropCaches()
    return seconds(work)
  }
  const mounted = async (mount: () => Promise<Mounted>, after?: (at: string) => Promise<void>): Promise<number> => {
    let at: Mounted | undefined
    const time = await fresh(async () => {
      at = await mount()
      await boot(at.mountpoint)
    })
    if (at !== undefined) await after?.(at.mountpoint)
    await at?.unmount()
    return time
  }
  let fetchedBytes = NaN
  /** What the guest writes is dropped unless told otherwise: each round resumes the same generation. */
  const throughIsrfs = (client: string, ...options: string[]): Promise<number> =>
    mounted(
      () => mountIsrfs(place, vm, client, ...options),
      async (at) => {
        fetchedBytes = (await place.status(client, at))['fetchedBytes'] ?? NaN
      }
    )
  const bootLocally = async (): Promise<number> => {
    const copy = place.directory('local')
    await place.run('cp', ['-a', `${pristine}/.`, copy])
    return fresh(() => boot(copy))
  }
  let localSeconds: number | undefined
  /** The guest takes most of a quick run: there it boots locally once, and what takes minutes is left to a full one. */
  const local: Contender = {
    name: 'local',
    measure: async () => {
      if (isQuick && localSeconds !== undefined) return localSeconds
      localSeconds = await bootLocally()
      return localSeconds
    }
  }
  const offTheShare: Contender = {
    name: 'off the share',
    measure: async () => {
      await restore()
      return fresh(() => boot(path.join(link.mountpoint, 'plain')))
    }
  }
  const others: Contender[] = [
    {
      name: 'overlay',
      measure: async () => {
        await restore()
        const overlay = path.join(place.directory('overlay'), 'overlay.qcow2')
        return fresh(async () => {
          const backing = path.join(link.mountpoint, 'plain', DISK)
          await place.run('qemu-img', ['create', '-q', '-f', 'qcow2', '-b', backing, '-F', 'vmdk', overlay])
          await bootToMultiUser(guest, overlay, 'format=qcow2,copy-on-read=on')
        })
      }
    },
    {
      name: 'eager copy',
      roundsMax: 1,
      measure: async () => {
        await restore()
        const copy = place.directory('eager')
        return fresh(async () => {
          await place.run('cp', ['-a', '--sparse=always', `${link.mountpoint}/plain/.`, copy])
          await boot(copy)
        })
      }
    },
    {
      name: 'rclone',
      roundsMax: 1,
      measure: async () => {
        await restore()
        return mounted(() => mountRclone(place, path.join(link.mountpoint, 'plain'), place.directory('cache')))
      }
    }
  ]
  const row = (id: string, work: string, measure: () => Promise<number>, more: Partial<Row>): Row => ({
    ...{ id, work, unit: 's', better: 'less', rounds, goals: [], ...more },
    contenders: [{ name: 'isrfs', measure }, ...(more.contenders ?? [local])]
  })
  const fetched = (id: string, goals: Row['goals'] = []): Row => ({
    ...{ id, work: 'encoded bytes that it fetched', unit: 'MB', better: 'less', rounds: 1, goals },
    contenders: [{ name: 'isrfs', measure: async () => fetchedBytes / 1e6 }]
  })
  /** has booted the guest, and recorded the profile: in a quick run in row 1 */
  const client = place.directory('client')
  let isTaught = false
  /**
   * Leaves a profile, and the newest generation with the content that everybody else boots, too: not that of a guest that
   * has booted before and was cut off.
   */
  const teach = async (): Promise<void> => {
    if (isTaught) return
    if (!fs.existsSync(profiles)) {
      const teacher = await mountIsrfs(place, vm, client)
      await boot(teacher.mountpoint)
      await teacher.unmount()
    }
    await place.isrfs(client, 'rollback', vm, '1')
    isTaught = true
  }
  /** has resumed the generation that row 3 resumes again */
  let resumed: string | undefined
  const first = async (): Promise<number> => {
    fs.rmSync(profiles, { recursive: true, force: true })
    return throughIsrfs(place.directory('client'), '--discard')
  }
  const faster = (contender: Contender): Contender => atRate(link, '1gbit', RATE, contender)
  const fasterRow: Row = {
    id: '1, 1 Gb/s',
    work: 'the same over 1 Gb/s',
    note: 'overlay: qcow2 with copy-on-read on the disk behind the link',
    unit: 's',
    better: 'less',
    rounds: Math.min(rounds, 2),
    goals: [],
    contenders: [{ name: 'isrfs', measure: first }, local, offTheShare, ...others].map(faster)
  }
  return [
    row(
      '1',
      'Debian guest to multi-user over 100 Mb/s, empty cache, first time ever',
      async () => {
        if (!isQuick) return first()
        fs.rmSync(profiles, { recursive: true, force: true })
        return throughIsrfs(client)
      },
      {
        contenders: [local, offTheShare, ...(isQuick ? [] : others)],
        ...(isQuick ? { note: 'overlay, eager copy and rclone only in a full run' } : {}),
        goals: [
          { against: 'off the share', factor: 1 },
          { against: 'local', factor: 1.15 },
          { against: 'eager copy', factor: 1 / 5 },
          { against: 'rclone', factor: 1 / 8 }
        ]
      }
    ),
    fetched('1, bytes'),
    ...(isQuick ? [] : [fasterRow]),
    row(
      '2',
      'the same on an empty cache with the profile of an earlier resume',
      async () => {
        await teach()
        resumed = place.directory('client')
        return throughIsrfs(resumed, '--discard')
      },
      { goals: [{ against: 'local', factor: 1.05 }] }
    ),
    fetched('2, bytes'),
    row(
      '3',
      'the same, second resume on a client',
      async () => {
        await teach()
        if (resumed === undefined) {
          resumed = place.directory('client')
          await throughIsrfs(resumed, '--discard')
        }
        return throughIsrfs(resumed, '--discard')
      },
      { goals: [{ against: 'local', factor: 1.03 }] }
    ),
    fetched('3, bytes', [{ factor: 0 }])
  ]
}

/** Resolves when the guest says that it has reached multi-user, and QEMU was ended. */
function bootToMultiUser(guest: string, disk: string, format = 'format=vmdk'): Promise<void> {
  const append = 'console=ttyS0 quiet rdinit=/init init=/sbin/guest-init bed=systemd panic=-1 net.ifnames=0 loglevel=3'
  const args = `-machine pc,accel=tcg -cpu max -m 256 -smp 1 -nodefaults -no-user-config -display none -no-reboot
    -device virtio-blk-pci,drive=d0 -serial stdio`.split(/\s+/)
  args.push('-drive', `file=${disk},${format},if=none,id=d0,cache=writeback,aio=threads`)
  args.push('-kernel', path.join(guest, 'kernel'), '-initrd', path.join(guest, 'initrd.gz'), '-append', append)
  const qemu = spawn('qemu-system-x86_64', args, { stdio: ['ignore', 'pipe', 'inherit'] })
  return new Promise((resolve, reject) => {
    let console = ''
    const timer = setTimeout(() => qemu.kill('SIGKILL'), BOOT_MS_MAX)
    const isUp = (): boolean => console.includes('MARK MULTI-USER')
    qemu.stdout.on('data', (bytes: Buffer) => {
      console += bytes.toString('latin1')
      if (isUp()) qemu.kill('SIGKILL')
    })
    qemu.on('error', reject)
    qemu.on('close', () => {
      clearTimeout(timer)
      if (isUp()) resolve()
      else reject(new Error(`the guest did not come up: ${console.slice(-300)}`))
    })
  })
}
