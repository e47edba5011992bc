/**
 * A daemon keeps no descriptor of whoever started it (a shell's redirections, a lock file of a script). What Node opens
 * itself is close-on-exec; what came through exec cannot be. The standard ones stay, and so do the IPC channel and the
 * connection to the kernel that a launcher has opened.
 */
import fs from 'node:fs'
import { DESCRIPTOR_VARIABLE } from '../fuse/direct/mounting.js'

const O_CLOEXEC = 0o2000000
const STANDARD_MAX = 2
/** where daemon-process.ts of the command line puts the channel */
const IPC_DESCRIPTOR = 3

export function closeInheritedDescriptors(): void {
  const kept = process.env[DESCRIPTOR_VARIABLE] === undefined ? -1 : Number(process.env[DESCRIPTOR_VARIABLE])
  const channel = process.channel === undefined ? -1 : IPC_DESCRIPTOR
  for (const name of fs.readdirSync('/proc/self/fd')) {
    const fd = Number(name)
    if (fd <= STANDARD_MAX || fd === channel || fd === kept || !cameThroughExec(fd)) continue
    try {
      fs.closeSync(fd)
    } catch {
      // the listing's own descriptor, closed by now
    }
  }
}

function cameThroughExec(fd: number): boolean {
  try {
    const flags = /^flags:\s*([0-7]+)$/m.exec(fs.readFileSync(`/proc/self/fdinfo/${String(fd)}`, 'utf8'))?.[1]
    return flags !== undefined && (Number.parseInt(flags, 8) & O_CLOEXEC) === 0
  } catch {
    return false
  }
}
