/** Who this process is, as leases, pins and generations name it. */
import fs from 'node:fs'
import os from 'node:os'
import type { LeaseHolder } from '../share/lease.js'

export function hostName(): string {
  return os.hostname().slice(0, 256)
}

export function userName(): string {
  try {
    return os.userInfo().username.slice(0, 256)
  } catch {
    return String(process.getuid?.() ?? '') // a user without an entry in passwd
  }
}

export function leaseHolder(client: string, mountpoint: string): LeaseHolder {
  return {
    client,
    host: hostName(),
    user: userName(),
    pid: process.pid,
    boot: bootId(),
    mountpoint: mountpoint.slice(0, 4096)
  }
}

function bootId(): string {
  try {
    return fs.readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim()
  } catch {
    return ''
  }
}
