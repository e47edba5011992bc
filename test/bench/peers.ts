/** What isrfs is compared with, each as its users would run it: mounts of a directory, with their caches where told. */
import { spawn } from 'node:child_process'
import fs from 'node:fs'
import { createRequire } from 'node:module'
import path from 'node:path'
import { FILE } from './files.js'
import { SELF } from './measure.js'
import type { Place } from './place.js'
import { isAlive, processOf } from './processes.js'

export const BINDING = 'isrfs, binding'
const PROTOTYPE = 'prototype'
const TRANSPORT = ['--transport', 'binding']
/** other options than the defaults that isrfs was mounted with, for the report; whoever measures a row empties it */
export const mountOptions = new Set<string>()
const MOUNT_MS_MAX = 10_000
/** daemons that were told to unmount: they remove what they do not need any more after they have answered */
const ending = new Set<number>()

/** Whoever is measured next is alone with the disk. */
export async function daemonsEnded(): Promise<void> {
  for (const pid of ending) {
    while (isAlive(pid)) await new Promise((resolve) => setTimeout(resolve, 50))
    ending.delete(pid)
  }
}

export interface Mounted {
  readonly mountpoint: string
  /** of the process that serves it */
  readonly pid: number
  unmount(): Promise<void>
  /** As if the machine had lost it: the process is killed, what it leaves behind stays. */
  kill(): Promise<void>
}

/** isrfs on a VM; `client` keeps its cache between mounts. */
export async function mountIsrfs(place: Place, vm: string, client: string, ...options: string[]): Promise<Mounted> {
  const mountpoint = place.directory('isrfs')
  const told = options.join(' ').replace(TRANSPORT.join(' '), '').trim() // the contender's name says that
  if (told !== '') mountOptions.add(told)
  const answer = await place.isrfs(client, 'mount', vm, mountpoint, '--json', ...options)
  const { pid } = JSON.parse(answer) as { pid: number }
  return registered(place, mountpoint, pid, async () => {
    await place.isrfs(client, 'unmount', mountpoint)
    ending.add(pid)
  })
}

export async function mountRclone(place: Place, source: string, cache: string): Promise<Mounted> {
  const mountpoint = place.directory('rclone')
  const options = ['--vfs-cache-mode', 'full', '--cache-dir', cache, '--config', '', '--allow-non-empty', '--daemon']
  await place.run('rclone', ['mount', `:local:${source}`, mountpoint, ...options])
  return external(place, mountpoint)
}

export async function mountBindfs(place: Place, source: string): Promise<Mounted> {
  const mountpoint = place.directory('bindfs')
  await place.run('bindfs', [source, mountpoint])
  return external(place, mountpoint)
}

/** What isrfs would be without its guarantees: the bound of what JavaScript can do. */
async function mountPrototype(place: Place, source: string): Promise<Mounted> {
  const mountpoint = place.directory('prototype')
  const program = path.join(import.meta.dirname, 'prototype.js')
  spawn(process.execPath, [program, path.join(source, FILE), mountpoint], { stdio: 'ignore' })
  return external(place, mountpoint)
}

/** A file system of somebody else: `command FILE MOUNTPOINT` shows the file and ends when it is unmounted. */
async function mountOther(place: Place, command: string, source: string): Promise<Mounted> {
  const mountpoint = place.directory('other')
  spawn('sh', ['-c', `exec ${command} "$@"`, command, path.join(source, FILE), mountpoint], { stdio: 'ignore' })
  return external(place, mountpoint)
}

/** The same work for all who can mount: isrfs on both transports, and those who show a plain directory. */
export interface Peer {
  readonly name: string
  /** `home`: a directory of its own, which keeps its cache; `source`: a plain directory with the file. */
  mount(home: string, vm: string, source: string, ...isrfsOptions: string[]): Promise<Mounted>
}

export interface Others {
  /** names -> commands of --beside */
  readonly beside: Readonly<Record<string, string>>
}

export function peersOf(place: Place, { beside }: Others): readonly Peer[] {
  const peers: Peer[] = [
    { name: SELF, mount: (home, vm, _source, ...options) => mountIsrfs(place, vm, home, ...options) }
  ]
  if (bindingLoads()) {
    peers.push({
      name: BINDING,
      mount: (home, vm, _source, ...options) => mountIsrfs(place, vm, home, ...TRANSPORT, ...options)
    })
  }
  peers.push(
    { name: 'rclone', mount: (home, _vm, source) => mountRclone(place, source, home) },
    { name: 'bindfs', mount: (_home, _vm, source) => mountBindfs(place, source) },
    { name: PROTOTYPE, mount: (_home, _vm, source) => mountPrototype(place, source) }
  )
  for (const [name, command] of Object.entries(beside)) {
    peers.push({ name, mount: (_home, _vm, source) => mountOther(place, command, source) })
  }
  return peers
}

/** undefined when the binding is there. */
export function bindingNote(): { readonly note?: string } {
  return bindingLoads() ? {} : { note: 'the FUSE binding is not installed: isrfs only on its own transport' }
}

function bindingLoads(): boolean {
  try {
    createRequire(import.meta.url)('fuse-native')
    return true
  } catch {
    return false
  }
}

async function external(place: Place, mountpoint: string): Promise<Mounted> {
  await untilMounted(mountpoint)
  return registered(place, mountpoint, processOf(mountpoint), async () => {
    await place.run('fusermount3', ['-u', mountpoint])
  })
}

/** Also unmounted when the row ends early. */
function registered(place: Place, mountpoint: string, pid: number, unmount: () => Promise<void>): Mounted {
  let isMounted = true
  const once = async (): Promise<void> => {
    if (!isMounted) return
    isMounted = false
    await unmount()
  }
  place.defer(once)
  const kill = async (): Promise<void> => {
    isMounted = false
    process.kill(pid, 'SIGKILL')
    while (isAlive(pid)) await new Promise((resolve) => setTimeout(resolve, 20))
    await place.run('fusermount3', ['-uz', mountpoint])
  }
  return { mountpoint, pid, unmount: once, kill }
}

async function untilMounted(mountpoint: string): Promise<void> {
  const parent = fs.statSync(path.dirname(mountpoint)).dev
  const end = Date.now() + MOUNT_MS_MAX
  while (fs.statSync(mountpoint).dev === parent) {
    if (Date.now() > end) throw new Error(`${mountpoint} was not mounted`)
    await new Promise((resolve) => setTimeout(resolve, 5))
  }
}
