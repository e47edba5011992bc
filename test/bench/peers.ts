/** What isrfs is compared with, each as its users would run it: mounts of a directory, with their caches where told. */
import fs from 'node:fs'
import path from 'node:path'
import type { Place } from './place.js'

export interface Mounted {
  readonly mountpoint: string
  unmount(): Promise<void>
}

/** isrfs on a VM; `client` keeps its cache between mounts. */
export async function mountIsrfs(place: Place, vm: string, client: string, ...options: string[]): Promise<Mounted> {
  const mountpoint = place.directory('isrfs')
  await place.isrfs(client, 'mount', vm, mountpoint, ...options)
  return registered(place, mountpoint, async () => {
    await place.isrfs(client, 'unmount', mountpoint)
  })
}

export async function mountRclone(place: Place, source: string, cache: string): Promise<Mounted> {
  const mountpoint = place.directory('rclone')
  const options = ['--vfs-cache-mode', 'full', '--cache-dir', cache, '--config', '', '--allow-non-empty', '--daemon']
  await place.run('rclone', ['mount', `:local:${source}`, mountpoint, ...options])
  await untilMounted(mountpoint)
  return registered(place, mountpoint, async () => {
    await place.run('fusermount3', ['-u', mountpoint])
  })
}

export async function mountBindfs(place: Place, source: string): Promise<Mounted> {
  const mountpoint = place.directory('bindfs')
  await place.run('bindfs', [source, mountpoint])
  return registered(place, mountpoint, async () => {
    await place.run('fusermount3', ['-u', mountpoint])
  })
}

/** Also unmounted when the row ends early. */
function registered(place: Place, mountpoint: string, unmount: () => Promise<void>): Mounted {
  let isMounted = true
  const once = async (): Promise<void> => {
    if (!isMounted) return
    isMounted = false
    await unmount()
  }
  place.defer(once)
  return { mountpoint, unmount: once }
}

async function untilMounted(mountpoint: string): Promise<void> {
  const parent = fs.statSync(path.dirname(mountpoint)).dev
  for (let attempt = 0; fs.statSync(mountpoint).dev === parent; attempt++) {
    if (attempt > 200) throw new Error(`${mountpoint} was not mounted`)
    await new Promise((resolve) => setTimeout(resolve, 25))
  }
}
