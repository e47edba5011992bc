/**
 * A real guest for a real VMM: Debian, built from Debian packages once (test/vmm/guest/build) and kept in the user's cache
 * directory; VM directories in VMware's format with its disk; and QEMU, emulating, so that no machine is unfit.
 */
import { type ChildProcess, execFile, spawn } from 'node:child_process'
import { createHash } from 'node:crypto'
import fs from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { promisify } from 'node:util'
import { Bed, CLI, type Result, waitFor } from './bed.js'

const run = promisify(execFile)
const PARTS = path.resolve('test/vmm/guest')
const SCRIPTS = path.resolve('mount-scripts')
const GUEST_MS_MAX = 240_000

export type DiskFormat = 'split-sparse' | 'flat' | 'qcow2'

/** Prints of the guest: what follows MARK on its console. */
export function marks(log: string): string[] {
  const text = fs.existsSync(log) ? fs.readFileSync(log, 'latin1') : ''
  return [...text.matchAll(/MARK ([^\r\n]*)[\r\n]/g)].map(([, mark = '']) => mark)
}

export function counts(log: string): number[] {
  return marks(log).flatMap((mark) => {
    const found = /^COUNT (\d+)/.exec(mark)
    return found === null ? [] : [Number(found[1])]
  })
}

/** The directory with kernel, initrd.gz and disk.raw; built if it is not there yet. */
export async function buildGuest(): Promise<string> {
  const names = fs.readdirSync(PARTS).sort()
  const sum = createHash('sha256')
  for (const name of names) sum.update(name).update(fs.readFileSync(path.join(PARTS, name)))
  const above = process.env['XDG_CACHE_HOME'] ?? path.join(os.homedir(), '.cache')
  const directory = path.join(above, 'isrfs-test', `guest-${sum.digest('hex').slice(0, 12)}`)
  if (!fs.existsSync(path.join(directory, 'disk.raw'))) await run(path.join(PARTS, 'build'), [directory])
  return directory
}

export class VmmBed extends Bed {
  readonly #guest: string
  readonly #environment: NodeJS.ProcessEnv

  constructor(name: string, guest: string) {
    super(name)
    this.#guest = guest
    const bin = this.makeDirectory('bin')
    // the scripts find isrfs in PATH, as users have it
    fs.writeFileSync(path.join(bin, 'isrfs'), `#!/bin/sh\nexec '${process.execPath}' '${CLI}' "$@"\n`, { mode: 0o755 })
    this.#environment = {
      ...process.env,
      PATH: `${bin}:${process.env['PATH'] ?? ''}`,
      ISRFS_QEMU_ACCEL: 'tcg',
      ISRFS_VMM_PATIENCE: '20',
      DISPLAY: '',
      WAYLAND_DISPLAY: ''
    }
  }

  /** A plain directory as VMware writes one. */
  async makeVm(format: DiskFormat, more: readonly string[] = [], memoryMib = 128): Promise<string> {
    const directory = this.makeDirectory('plain')
    const disk = format === 'qcow2' ? 'testvm.qcow2' : 'testvm.vmdk'
    const vmdk = (subformat: string): string[] => [
      'vmdk',
      '-o',
      `subformat=${subformat},adapter_type=lsilogic,hwversion=18`
    ]
    const kind = { 'split-sparse': vmdk('twoGbMaxExtentSparse'), flat: vmdk('monolithicFlat'), qcow2: ['qcow2'] }[
      format
    ]
    await run('qemu-img', [
      'convert',
      '-f',
      'raw',
      '-O',
      ...kind,
      path.join(this.#guest, 'disk.raw'),
      path.join(directory, disk)
    ])
    const lines = [
      '.encoding = "UTF-8"',
      'config.version = "8"',
      'virtualHW.version = "18"',
      'displayName = "testvm"',
      'guestOS = "debian12-64"',
      `memsize = "${String(memoryMib)}"`,
      'numvcpus = "1"',
      'nvram = "testvm.nvram"',
      'uuid.action = "keep"',
      'scsi0.present = "TRUE"',
      'scsi0.virtualDev = "pvscsi"',
      'scsi0:0.present = "TRUE"',
      `scsi0:0.fileName = "${disk}"`,
      'isrfs.qemu.disk = "virtio"', // the guest's initial file system has this driver only
      ...more
    ]
    fs.writeFileSync(path.join(directory, 'testvm.vmx'), `${lines.join('\n')}\n`)
    fs.writeFileSync(path.join(directory, 'testvm.nvram'), Buffer.alloc(8684))
    return directory
  }

  /** What QEMU needs beside the VM's directory: the guest's kernel, what it shall do, and where its console goes. */
  guestArguments(mode: string, log: string, limit = 1_000_000): string[] {
    const append = `console=ttyS0 quiet rdinit=/init init=/sbin/guest-init bed=${mode} limit=${String(limit)} panic=-1 net.ifnames=0 loglevel=3`
    return [
      ...[
        '-kernel',
        path.join(this.#guest, 'kernel'),
        '-initrd',
        path.join(this.#guest, 'initrd.gz'),
        '-append',
        append
      ],
      ...['-no-reboot', '-serial', `file:${log}`]
    ]
  }

  environment(client: string): NodeJS.ProcessEnv {
    return { ...this.#environment, ISRFS_CLIENT_DIR: this.path(`client-${client}`) }
  }

  /** Runs a script of mount-scripts/. */
  async script(client: string, name: string, ...args: string[]): Promise<Result> {
    return this.command(path.join(SCRIPTS, name), args, { env: this.environment(client) })
  }

  /** Starts isrfs-resume in a process group of its own, as a shell does, so that it can be interrupted. */
  startResume(client: string, vm: string, at: string, guest: readonly string[]): Resume {
    this.rememberMount(at)
    const args = [vm, '--vmm', 'qemu', '--at', at, '--', ...guest]
    return new Resume(
      spawn(path.join(SCRIPTS, 'isrfs-resume'), args, { env: this.environment(client), detached: true })
    )
  }

  /** Lets the guest run to its end on a mount. */
  async runGuest(client: string, mountpoint: string, mode: string, log: string): Promise<string[]> {
    await this.mustIsrfs(client, 'qemu', mountpoint, '--accel', 'tcg', '--', ...this.guestArguments(mode, log))
    return marks(log)
  }

  /** For people who read the test's log: what the guest has cost so far, and of which requests its work was made. */
  async figures(client: string, mountpoint: string): Promise<string[]> {
    const status = (await this.status(client, mountpoint)) as unknown as Record<string, number>
    const of = (key: string): number => status[key] ?? NaN
    const unused = of('aheadBlocks') - of('aheadUsedBlocks') + of('profileBlocks') - of('profileUsedBlocks')
    const { stdout } = await this.mustIsrfs(client, 'metrics', mountpoint)
    const mix = [...stdout.matchAll(/^isrfs_operation_seconds_count\{.*operation="(\w+)".*\} (\d+)$/gm)]
      .map(([, operation = '', count]): [string, number] => [operation, Number(count)])
      .filter(([, count]) => count > 0)
      .sort(([, first], [, second]) => second - first)
    return [
      `fetched ${String(of('fetchedBlocks'))} blocks, ${(of('fetchedBytes') / 1e6).toFixed(1)} MB encoded with maps; the guest has read ${String(of('fetchedBlocks') - unused)} of these blocks of 128 KiB`,
      `requests: ${mix.map(([operation, count]) => `${operation} ${String(count)}`).join(', ')}`,
      `of them in threads: ${String(of('threadReads'))} reads, ${String(of('threadWrites'))} writes`
    ]
  }

  /** How long the daemon of this client's last mount took for its commit, from its log. */
  commitSeconds(client: string): number {
    const logs = this.path(`client-${client}`, 'log')
    const ended = fs
      .readdirSync(logs)
      .flatMap((name) => fs.readFileSync(path.join(logs, name), 'utf8').split('\n'))
      .filter((line) => line.includes('"event":"ended"'))
    return Number(/"seconds":([\d.]+)/.exec(ended.at(-1) ?? '')?.[1])
  }

  async waitForCount(log: string, least: number): Promise<void> {
    await waitFor(
      () => counts(log).some((count) => count >= least),
      `the guest to count to ${String(least)}`,
      GUEST_MS_MAX
    )
  }

  /** The QEMU that runs on a directory of this bed. */
  qemuPid(): number {
    const pids = fs.readdirSync('/proc').filter((name) => {
      if (!/^\d+$/.test(name)) return false
      try {
        const commandLine = fs.readFileSync(`/proc/${name}/cmdline`, 'utf8')
        return commandLine.startsWith('qemu-system') && commandLine.includes(this.root)
      } catch {
        return false
      }
    })
    const [pid] = pids
    if (pid === undefined) throw new Error('no QEMU runs')
    return Number(pid)
  }

  override async destroy(): Promise<void> {
    for (;;) {
      try {
        process.kill(this.qemuPid(), 'SIGKILL')
        await new Promise((resolve) => setTimeout(resolve, 100))
      } catch {
        break
      }
    }
    await super.destroy()
  }
}

/** A running isrfs-resume. */
export class Resume {
  readonly ended: Promise<Result>
  readonly #child: ChildProcess

  constructor(child: ChildProcess) {
    this.#child = child
    let stdout = ''
    let stderr = ''
    child.stdout?.on('data', (bytes: Buffer) => (stdout += bytes.toString()))
    child.stderr?.on('data', (bytes: Buffer) => (stderr += bytes.toString()))
    this.ended = new Promise((resolve, reject) => {
      child.once('error', reject)
      child.once('close', (code) => {
        resolve({ code: code ?? -1, stdout, stderr })
      })
    })
  }

  /** As Ctrl-C: to the whole group. */
  interrupt(): void {
    if (this.#child.pid !== undefined) process.kill(-this.#child.pid, 'SIGINT')
  }
}
