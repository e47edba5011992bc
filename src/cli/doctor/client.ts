/** The disk under the client directory and the cache: kind, free space, speed. */
import fs from 'node:fs'
import path from 'node:path'
import { messageOf } from '../../base/errors.js'
import type { Finding } from '../../vmm/advice.js'
import { bytes } from '../figures.js'
import type { Directories } from '../options.js'

/** statfs(2) */
const FORGETTING = new Map([
  [0x01021994, 'tmpfs'],
  [0x858458f6, 'ramfs']
])
const REMOTE = new Map([
  [0x6969, 'NFS'],
  [0x65735546, 'FUSE'],
  [0xff534d42, 'CIFS']
])
const FREE_BYTES_MIN = 2 * 1024 ** 3
const WRITE_BYTES = 32 * 1024 * 1024
const SYNCS = 8
const SYNC_MS_MAX = 20
const BYTES_PER_SECOND_MIN = 50 * 1024 * 1024

export interface DiskSpeed {
  readonly syncMs: number
  readonly bytesPerSecond: number
}

export function clientFindings({ clientDirectory, cacheDirectory }: Directories, cacheBytesMax: number): Finding[] {
  const disk = existing(clientDirectory)
  const { type } = fs.statfsSync(disk)
  const forgetting = FORGETTING.get(type)
  const remote = REMOTE.get(type)
  const findings: Finding[] = []
  if (forgetting !== undefined) {
    findings.push({
      severity: 'warning',
      file: clientDirectory,
      what: `the client directory lies on ${forgetting}`,
      why: 'what a guest has synced and no generation has yet is gone with the next power cut',
      change: 'client-dir = "<directory on a disk>" in ~/.config/isrfs/config.toml'
    })
  }
  if (remote !== undefined) {
    findings.push({
      severity: 'warning',
      file: clientDirectory,
      what: `the client directory lies on ${remote}`,
      why: 'every write of the guest goes over the network, and waits when the server is away',
      change: 'client-dir = "<directory on a local disk>" in ~/.config/isrfs/config.toml'
    })
  }
  return [...findings, ...spaceFindings(cacheDirectory, cacheBytesMax)]
}

function spaceFindings(cacheDirectory: string, cacheBytesMax: number): Finding[] {
  const { bavail, bsize, blocks } = fs.statfsSync(existing(cacheDirectory))
  const freeBytes = bavail * bsize
  if (freeBytes < FREE_BYTES_MIN) {
    return [
      {
        severity: 'warning',
        file: cacheDirectory,
        what: `${bytes(freeBytes)} are free`,
        why: 'changes are sent to the share early to make room, and writes wait for that',
        change: 'free some space, or name another disk: --cache-dir, --client-dir'
      }
    ]
  }
  if (cacheBytesMax <= blocks * bsize) return []
  return [
    {
      severity: 'note',
      file: cacheDirectory,
      what: `the cache may take ${bytes(cacheBytesMax)}, the disk has ${bytes(blocks * bsize)}`,
      why: 'the cache gives way to changes, but other programs on that disk will find it full',
      change: 'cache-size = "<less>" in ~/.config/isrfs/config.toml'
    }
  ]
}

/** Writes and syncs a file in the directory; undefined when that cannot be done. */
export function measureDisk(directory: string): DiskSpeed | undefined {
  const file = path.join(existing(directory), `.isrfs-doctor-${String(process.pid)}`)
  let fd: number | undefined
  try {
    fd = fs.openSync(file, 'wx', 0o600)
    const page = Buffer.alloc(4096, 1)
    const syncsMs = performance.now()
    for (let count = 0; count < SYNCS; count++) {
      fs.writeSync(fd, page)
      fs.fdatasyncSync(fd)
    }
    const writeMs = performance.now()
    const piece = Buffer.alloc(1024 * 1024, 2)
    for (let done = 0; done < WRITE_BYTES; done += piece.length) fs.writeSync(fd, piece)
    fs.fdatasyncSync(fd)
    const bytesPerSecond = (WRITE_BYTES * 1000) / (performance.now() - writeMs)
    return { syncMs: (writeMs - syncsMs) / SYNCS, bytesPerSecond }
  } catch {
    return undefined
  } finally {
    if (fd !== undefined) {
      fs.closeSync(fd)
      fs.rmSync(file, { force: true })
    }
  }
}

export function speedFindings(directory: string, { syncMs, bytesPerSecond }: DiskSpeed): Finding[] {
  const findings: Finding[] = []
  if (syncMs > SYNC_MS_MAX) {
    findings.push({
      severity: 'warning',
      file: directory,
      what: `a write is durable after ${syncMs.toFixed(0)} ms`,
      why: 'each fsync of the guest takes at least so long',
      change: 'name a directory on an SSD: --client-dir'
    })
  }
  if (bytesPerSecond < BYTES_PER_SECOND_MIN) {
    findings.push({
      severity: 'warning',
      file: directory,
      what: `the disk takes ${bytes(bytesPerSecond)}/s`,
      why: 'what is fetched is kept at this speed, and what the guest writes',
      change: 'name a directory on a faster disk: --cache-dir'
    })
  }
  return findings
}

/** The directory, or what of its path there is. */
function existing(directory: string): string {
  for (let at = directory; ; at = path.dirname(at)) {
    try {
      fs.statSync(at)
      return at
    } catch (error) {
      if (path.dirname(at) === at) throw new Error(messageOf(error), { cause: error })
    }
  }
}
