/** What is in a VM's directory, wherever that is: a plain directory, a mount, a generation on a share. */
import fs from 'node:fs'
import path from 'node:path'
import { errnoOf, FailedError, messageOf } from '../base/errors.js'
import { parseVmx, VMX_BYTES_MAX, type Vmx } from './vmx.js'

export interface VmFile {
  /** relative to the VM's directory */
  readonly path: string
  readonly type: 'file' | 'directory' | 'other'
  readonly sizeBytes: number
}

export interface VmFiles {
  /** for messages */
  readonly where: string
  readonly list: readonly VmFile[]
  /** At most `bytesMax` from the start of a file that is in the list. */
  read(file: string, bytesMax: number): Promise<Buffer>
}

export interface FoundVmx {
  /** relative to the VM's directory */
  readonly path: string
  readonly vmx: Vmx
}

/** The one .vmx at the top of a VM's directory. Throws FailedError when there is none, or several. */
export async function findVmx(files: VmFiles): Promise<FoundVmx> {
  const found = files.list.filter((file) => file.type === 'file' && /^[^/]+\.vmx$/i.test(file.path))
  const [first, ...others] = found
  if (first === undefined) {
    throw new FailedError(`${files.where} has no .vmx file, so it is not known which machine this is`, {
      hint: 'is it the directory of a VM? A file with  memsize = "1024"  and the disks is enough for QEMU (docs/qemu.md)'
    })
  }
  if (others.length > 0) {
    throw new FailedError(`${files.where} has several .vmx files: ${found.map((file) => file.path).join(', ')}`, {
      hint: 'keep one of them; move the others away, or rename them'
    })
  }
  if (first.sizeBytes > VMX_BYTES_MAX) throw new FailedError(`${first.path} is too large for a .vmx file`)
  return { path: first.path, vmx: parseVmx(await files.read(first.path, VMX_BYTES_MAX), first.path) }
}

/** The files of a plain directory, two levels deep: VMware makes lock directories, and people keep disks in a folder. */
export function plainFiles(directory: string): VmFiles {
  return {
    where: directory,
    list: entries(directory, '').flatMap((entry) => [
      entry,
      ...(entry.type === 'directory' ? entries(path.join(directory, entry.path), `${entry.path}/`) : [])
    ]),
    read: (file, bytesMax) => Promise.resolve(readHead(path.join(directory, file), bytesMax))
  }
}

function entries(directory: string, prefix: string): VmFile[] {
  try {
    return fs.readdirSync(directory).flatMap((name) => {
      const stats = fs.lstatSync(path.join(directory, name), { throwIfNoEntry: false })
      if (stats === undefined) return []
      const type = stats.isFile() ? 'file' : stats.isDirectory() ? 'directory' : 'other'
      return [{ path: `${prefix}${name}`, type, sizeBytes: stats.size }]
    })
  } catch (error) {
    if (prefix !== '' && errnoOf(error) === 'EACCES') return []
    throw new FailedError(`cannot read the directory ${directory}: ${messageOf(error)}`, { cause: error })
  }
}

function readHead(file: string, bytesMax: number): Buffer {
  let descriptor: number | undefined
  try {
    descriptor = fs.openSync(file, fs.constants.O_RDONLY | fs.constants.O_NOFOLLOW | fs.constants.O_NONBLOCK)
    const bytes = Buffer.alloc(Math.min(bytesMax, fs.fstatSync(descriptor).size))
    return bytes.subarray(0, fs.readSync(descriptor, bytes, 0, bytes.length, 0))
  } catch (error) {
    throw new FailedError(`cannot read ${file}: ${messageOf(error)}`, { cause: error })
  } finally {
    if (descriptor !== undefined) fs.closeSync(descriptor)
  }
}
