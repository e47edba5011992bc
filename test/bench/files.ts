/** A file that contenders share: as it is, as a VM on a share that is a local directory, and as copies to write to. */
import fs from 'node:fs'
import path from 'node:path'
import { type Place } from './place.js'

export const FILE = 'disk.raw'

export interface Files {
  /** a directory with FILE */
  readonly plain: string
  readonly vm: string
  readonly bytes: number
}

export async function makeFiles(place: Place, bytes: number): Promise<Files> {
  const plain = place.directory('plain')
  place.writeFile(path.join(plain, FILE), bytes)
  return { plain, vm: await importVm(place, plain), bytes }
}

/** The VM's path on a share of its own. */
export async function importVm(place: Place, plain: string): Promise<string> {
  const vm = path.join(place.directory('share'), 'vm')
  await place.isrfs(place.directory('importer'), 'import', plain, vm)
  return vm
}

export function copyOf(place: Place, { plain }: Files): string {
  const directory = place.directory('copy')
  fs.copyFileSync(path.join(plain, FILE), path.join(directory, FILE))
  return directory
}

export function readAll(place: Place, directory: string): Promise<string> {
  return place.run('dd', [`if=${path.join(directory, FILE)}`, 'of=/dev/null', 'bs=1M', 'status=none'])
}

/** The kernel forgets the pages of this file, as it is seen here; what lies behind a mount keeps its own. */
export function forgetPages(place: Place, directory: string): Promise<string> {
  return place.run('dd', [`if=${path.join(directory, FILE)}`, 'iflag=nocache', 'count=0', 'status=none'])
}
