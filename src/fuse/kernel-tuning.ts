/**
 * What root may set for a mount after it is there: how far the kernel reads ahead, and how many requests it keeps in
 * the background. Both are found by device number in /proc/self/mountinfo; the mountpoint itself is never touched.
 * Neither changes what is correct, so a failure is silent.
 */
import fs from 'node:fs'

const READ_AHEAD_KIB = '1024'
const BACKGROUND_REQUESTS = '64'

export function tuneMount(mountpoint: string): void {
  const device = deviceOf(mountpoint)
  if (device === undefined) return
  tryWrite(`/sys/class/bdi/${device}/read_ahead_kb`, READ_AHEAD_KIB)
  tryWrite(`/sys/fs/fuse/connections/${device.split(':')[1] ?? ''}/max_background`, BACKGROUND_REQUESTS)
}

/** "major:minor" of the last mount on that path. */
export function deviceOf(mountpoint: string): string | undefined {
  let device: string | undefined
  for (const line of fs.readFileSync('/proc/self/mountinfo', 'utf8').split('\n')) {
    const fields = line.split(' ')
    if (fields[4] !== undefined && unescape(fields[4]) === mountpoint) device = fields[2]
  }
  return device
}

/** mountinfo writes blanks, tabs, newlines and backslashes as octal. */
function unescape(path: string): string {
  return path.replace(/\\([0-7]{3})/g, (_, digits: string) => String.fromCharCode(Number.parseInt(digits, 8)))
}

function tryWrite(path: string, text: string): void {
  try {
    fs.writeFileSync(path, text)
  } catch {
    // not root, or fusectl is not mounted
  }
}
