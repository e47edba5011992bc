/** What this host lacks for a mount, or could do better. */
import fs from 'node:fs'
import path from 'node:path'
import { FailedError, messageOf } from '../../base/errors.js'
import { mountAt } from '../../daemon/mount-table.js'
import type { Finding } from '../../vmm/advice.js'
import { type Machine, MACHINE_CHECKS } from '../prerequisites.js'
import { chooseTransport } from '../transport.js'

const READ_AHEAD_KIB = 1024

export function hostFindings(machine: Machine): Finding[] {
  const findings = MACHINE_CHECKS.flatMap(({ file, why, check, severity }): Finding[] => {
    try {
      check(machine)
      return []
    } catch (error) {
      const change = (error instanceof FailedError ? error.hint : undefined) ?? 'see the message'
      return [{ severity, file: file(machine), what: messageOf(error), why, change }]
    }
  })
  return [...findings, ...transportFindings(machine)]
}

function transportFindings({ uid, searchPath }: Machine): Finding[] {
  try {
    chooseTransport('direct', { uid, searchPath, architecture: process.arch, foreground: false })
    return []
  } catch (error) {
    return [
      {
        severity: 'note',
        file: 'perl',
        what: messageOf(error),
        why: 'a mount then speaks to the kernel through the binding, which takes two to four times as long for each request',
        change: 'apt-get install perl-base'
      }
    ]
  }
}

/** Of a mount of isrfs: what only root may set. */
export function mountedFindings(mountpoint: string, sysfs = '/sys/class/bdi'): Finding[] {
  const device = mountAt(mountpoint)?.device
  if (device === undefined) return []
  const file = path.join(sysfs, device, 'read_ahead_kb')
  const kib = numberIn(file)
  if (kib === undefined || kib >= READ_AHEAD_KIB) return []
  return [
    {
      severity: 'note',
      file,
      what: `the kernel reads ${String(kib)} KiB ahead on ${mountpoint}`,
      why: 'sequential readers (a memory image at resume) wait more often than they have to',
      change: `as root: echo ${String(READ_AHEAD_KIB)} > ${file}; a mount by root sets it itself`
    }
  ]
}

function numberIn(file: string): number | undefined {
  try {
    return Number(fs.readFileSync(file, 'utf8'))
  } catch {
    return undefined
  }
}
