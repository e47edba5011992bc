/** The virtual disks that a .vmx names: where their bytes lie, and whether they are all in the VM's directory. */
import path from 'node:path'
import { DESCRIPTOR_BYTES_MAX, parseDescriptor, type VmdkDescriptor } from './vmdk.js'
import type { VmFiles } from './vm-files.js'
import type { Vmx, VmxDisk } from './vmx.js'

export type Disk = VmxDisk & {
  /** relative to the VM's directory; undefined when it lies elsewhere */
  readonly inside: string | undefined
  readonly isThere: boolean
} & (
    | { readonly kind: 'vmdk'; readonly descriptor: VmdkDescriptor | undefined }
    | { readonly kind: 'qcow2' | 'raw'; readonly descriptor?: undefined }
  )

export async function findDisks(files: VmFiles, vmx: Vmx): Promise<Disk[]> {
  return Promise.all(vmx.disks().map((disk) => look(files, disk)))
}

/** Where a file that is named in `from` lies, relative to the VM's directory; undefined when that is outside. */
export function insideName(from: string, name: string): string | undefined {
  if (path.isAbsolute(name) || /^[a-z]:[\\/]/i.test(name)) return undefined
  const joined = path.normalize(path.join(path.dirname(from), name))
  return joined === '..' || joined.startsWith('../') ? undefined : joined
}

async function look(files: VmFiles, disk: VmxDisk): Promise<Disk> {
  const inside = insideName('', disk.fileName)
  const found = files.list.find((file) => file.path === inside && file.type === 'file')
  const at = { ...disk, inside, isThere: found !== undefined }
  const extension = path.extname(disk.fileName).toLowerCase()
  if (extension === '.qcow2') return { ...at, kind: 'qcow2' }
  if (extension !== '.vmdk') return { ...at, kind: 'raw' }
  const head = found === undefined ? undefined : await files.read(found.path, DESCRIPTOR_BYTES_MAX)
  return { ...at, kind: 'vmdk', descriptor: head === undefined ? undefined : parseDescriptor(head) }
}
