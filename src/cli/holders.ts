/**
 * Who uses a mountpoint, from /proc: open files, working and root directories, mappings. Links are read and never
 * followed, so nothing here touches the mount. Processes of other users are seen by root only.
 */
import fs from 'node:fs/promises'

const SCAN_MS_MAX = 5000

export interface Holder {
  readonly pid: number
  readonly name: string
  /** "working directory /mnt/x", "disk.vmdk is open" */
  readonly how: string
}

export async function findHolders(mountpoint: string): Promise<Holder[]> {
  const deadline = Date.now() + SCAN_MS_MAX
  const holders: Holder[] = []
  for (const entry of await fs.readdir('/proc')) {
    if (!/^\d+$/.test(entry) || Number(entry) === process.pid || Date.now() > deadline) continue
    const how = await usage(`/proc/${entry}`, mountpoint)
    if (how === undefined) continue
    const name = await fs.readFile(`/proc/${entry}/comm`, 'utf8').catch(() => '?')
    holders.push({ pid: Number(entry), name: name.trim(), how })
  }
  return holders
}

export function describeHolders(holders: readonly Holder[]): string {
  return holders.map(({ name, pid, how }) => `  ${name} (process ${String(pid)}): ${how}`).join('\n')
}

async function usage(process: string, mountpoint: string): Promise<string | undefined> {
  for (const [link, what] of [
    ['cwd', 'working directory'],
    ['root', 'root directory']
  ] as const) {
    const target = await readLink(`${process}/${link}`)
    if (target !== undefined && isInside(target, mountpoint)) return `${what} ${target}`
  }
  for (const fd of await fs.readdir(`${process}/fd`).catch(() => [])) {
    const target = await readLink(`${process}/fd/${fd}`)
    if (target !== undefined && isInside(target, mountpoint)) return `${target} is open`
  }
  return mappedFile(await readMaps(process), mountpoint)
}

/** The first mapped file below the mountpoint in the text of /proc/<pid>/maps. */
export function mappedFile(maps: string, mountpoint: string): string | undefined {
  for (const line of maps.split('\n')) {
    const at = line.indexOf('/')
    if (at >= 0 && isInside(line.slice(at), mountpoint)) return `${line.slice(at)} is mapped`
  }
  return undefined
}

function isInside(target: string, mountpoint: string): boolean {
  return target === mountpoint || target.startsWith(`${mountpoint}/`)
}

async function readMaps(process: string): Promise<string> {
  return fs.readFile(`${process}/maps`, 'utf8').catch(() => '')
}

async function readLink(link: string): Promise<string | undefined> {
  return fs.readlink(link).catch(() => undefined)
}
