/**
 * Getting a connection to the kernel on a mountpoint. As root the device is opened here and mount(8) is given the
 * descriptor. For an ordinary user fusermount3 opens it and hands it over a socket, which Node cannot receive: the launcher
 * mount-scripts/fuse-launch has done that before this process began, and left its number in ISRFS_FUSE_FD.
 *
 * A connection that nobody reads from yet makes everyone wait who touches the mountpoint; mount(8) and fusermount3 do not.
 */
import { execFile, spawn } from 'node:child_process'
import fs from 'node:fs'
import { FailedError, messageOf } from '../../base/errors.js'
import type { TransportOptions } from '../port.js'
import { IO_BYTES_MAX } from './negotiation.js'

/** where the launcher leaves the number of the descriptor */
export const DESCRIPTOR_VARIABLE = 'ISRFS_FUSE_FD'
const DEVICE = '/dev/fuse'
const CHILD_DESCRIPTOR = 3
const MOUNT_MS_MAX = 30_000

export async function openConnection(options: TransportOptions): Promise<number> {
  const inherited = process.env[DESCRIPTOR_VARIABLE]
  if (inherited !== undefined) {
    delete process.env['ISRFS_FUSE_FD'] // from here on it is the transport's to look after
    return Number(inherited)
  }
  if (process.getuid?.() !== 0) {
    throw new FailedError('the direct transport was started without a connection to the kernel', {
      hint: 'use --transport binding'
    })
  }
  const descriptor = fs.openSync(DEVICE, 'r+')
  try {
    await mountAsRoot(descriptor, options)
    return descriptor
  } catch (error) {
    fs.closeSync(descriptor)
    throw error
  }
}

/** Takes away a mount that never answered anybody, so nobody uses it. Failures are silent: what led here is told. */
export function takeDown(mountpoint: string): Promise<void> {
  return new Promise((resolve) => execFile('fusermount3', ['-u', mountpoint], { cwd: '/' }, () => resolve()))
}

/** When the launcher has mounted for this process and it will not serve: the mount would stay behind, dead. */
export async function takeDownInherited(mountpoint: string): Promise<void> {
  if (process.env[DESCRIPTOR_VARIABLE] === undefined) return
  delete process.env['ISRFS_FUSE_FD']
  await takeDown(mountpoint)
}

/** Has the kernel send a request, from another process. Says nothing of what became of it. */
export function provokeRequest(mountpoint: string): Promise<void> {
  return new Promise((resolve) => execFile('stat', ['-f', '--', mountpoint], { cwd: '/' }, () => resolve()))
}

/** What fusermount3 and mount(8) are asked for alike. */
export function mountOptions({ allowOther, readOnly }: Pick<TransportOptions, 'allowOther' | 'readOnly'>): string[] {
  return [
    'default_permissions',
    'nosuid',
    'nodev',
    `max_read=${IO_BYTES_MAX}`,
    ...(allowOther ? ['allow_other'] : []),
    ...(readOnly ? ['ro'] : [])
  ]
}

/** -i: no helper programs; -n: no entry in /run/mount; -c: paths are as they should be and are not to be looked at. */
async function mountAsRoot(descriptor: number, options: TransportOptions): Promise<void> {
  const kernel = [`fd=${CHILD_DESCRIPTOR}`, 'rootmode=40000', 'user_id=0', 'group_id=0']
  const words = ['-i', '-n', '-c', '-t', 'fuse.isrfs', '-o', [...kernel, ...mountOptions(options)].join(',')]
  const child = spawn('mount', [...words, '--', sourceName(options.vmName), options.mountpoint], {
    cwd: '/',
    env: { ...process.env, LC_ALL: 'C' },
    stdio: ['ignore', 'ignore', 'pipe', descriptor],
    timeout: MOUNT_MS_MAX,
    killSignal: 'SIGKILL'
  })
  let told = ''
  child.stderr?.setEncoding('utf8').on('data', (text: string) => (told += text))
  const code = await new Promise<number | null>((resolve, reject) => {
    child.once('error', reject)
    child.once('close', resolve)
  }).catch((error: unknown) => {
    throw mountFailed(options.mountpoint, messageOf(error))
  })
  if (code !== 0) throw mountFailed(options.mountpoint, told.trim() || 'mount(8) did not answer')
}

function mountFailed(mountpoint: string, why: string): FailedError {
  return new FailedError(`cannot mount on ${mountpoint}: ${why}`, {
    hint: 'check that /dev/fuse is there, that this process may mount (in a container: --cap-add SYS_ADMIN), or use --transport binding'
  })
}

/** An empty source is no word; NUL ends one. */
function sourceName(name: string): string {
  return name.replaceAll('\0', '_') || 'isrfs'
}
