/**
 * The QEMU machine that a VM's directory describes: memory, processors, disks and network of its .vmx. Keys `isrfs.qemu.*` in
 * the .vmx say what VMware has no word for; VMware passes over them.
 *
 * The guest's memory is a file in the directory (`<name>.vmem`), mapped and shared, so that a suspend writes only the state of
 * devices (`<name>.vmss`) and a resume reads memory when the guest touches it (QEMU, docs/devel/migration: x-ignore-shared).
 */
import path from 'node:path'
import { FailedError, UsageError } from '../base/errors.js'
import type { Disk } from './disks.js'
import type { FoundVmx } from './vm-files.js'
import type { Vmx } from './vmx.js'

export type MemoryMode = 'file' | 'stream'

export interface QemuMachine {
  readonly args: readonly string[]
  readonly memoryMode: MemoryMode
  /** absolute; the memory of the guest, or undefined when it travels in the state */
  readonly memoryFile: string | undefined
  readonly memoryBytes: number
  /** absolute; the state of devices (and of memory) of a suspended guest */
  readonly stateFile: string
  /** why the machine cannot be suspended with its memory, if so */
  readonly noSuspend: string | undefined
}

export interface QemuWishes {
  readonly directory: string
  readonly found: FoundVmx
  readonly disks: readonly Disk[]
  /** accelerators in the order in which QEMU shall try them, such as `kvm:tcg` */
  readonly accelerators: string
  /** whether there is a screen to show the guest on */
  readonly hasDisplay: boolean
}

const MIB = 1024 * 1024
const MEMORY_MIB_DEFAULT = 256
const MEMORY_MIB_MAX = 1024 * 1024
const PROCESSORS_MAX = 255

export function qemuMachine({ directory, found, disks, accelerators, hasDisplay }: QemuWishes): QemuMachine {
  const { vmx } = found
  const stem = path.join(directory, found.path.replace(/\.vmx$/i, ''))
  const memoryMode = modeOf(vmx)
  const memoryMib = count(vmx, 'memsize', MEMORY_MIB_DEFAULT, MEMORY_MIB_MAX)
  const memoryFile = memoryMode === 'file' ? `${stem}.vmem` : undefined
  const memory =
    memoryFile === undefined
      ? []
      : ['-object', `memory-backend-file,id=memory,size=${String(memoryMib)}M,mem-path=${comma(memoryFile)},share=on`]
  const machine = vmx.get('isrfs.qemu.machine') ?? 'pc'
  const attached = disks.map((disk, index) => attach(directory, vmx, disk, index))
  return {
    args: [
      ...memory,
      ...['-machine', `${machine},accel=${accelerators}${memoryFile === undefined ? '' : ',memory-backend=memory'}`],
      ...['-cpu', vmx.get('isrfs.qemu.cpu') ?? 'max'],
      ...['-m', String(memoryMib)],
      ...['-smp', String(count(vmx, 'numvcpus', 1, PROCESSORS_MAX))],
      ...['-nodefaults', '-no-user-config', '-name', comma(vmx.get('displayName') ?? path.basename(stem))],
      ...(hasDisplay ? ['-vga', 'std'] : ['-display', 'none']),
      ...attached.flatMap(({ args }) => args),
      ...network(vmx)
    ],
    memoryMode,
    memoryFile,
    memoryBytes: memoryMib * MIB,
    stateFile: `${stem}.vmss`,
    noSuspend: attached.map(({ noSuspend }) => noSuspend).find((why) => why !== undefined)
  }
}

function modeOf(vmx: Vmx): MemoryMode {
  const mode = vmx.get('isrfs.qemu.memory') ?? 'file'
  if (mode === 'file' || mode === 'stream') return mode
  throw new UsageError(`isrfs.qemu.memory = "${mode}" is unknown`, { hint: 'write "file" or "stream"' })
}

interface Attached {
  readonly args: readonly string[]
  readonly noSuspend: string | undefined
}

function attach(directory: string, vmx: Vmx, disk: Disk, index: number): Attached {
  if (disk.inside === undefined || !disk.isThere) {
    throw new FailedError(`the disk ${disk.unit} (${disk.fileName}) is not in ${directory}`, {
      hint: `isrfs doctor ${directory} says more`
    })
  }
  const { file, format, noSuspend } = image(disk, disk.inside)
  const id = `disk${String(index)}`
  const drive = [
    ...[`file=${comma(path.join(directory, file))}`, `format=${format}`, 'if=none', `id=${id}`],
    // writes reach the mount at once and the guest's flushes become fsync
    ...['cache=writeback', 'aio=threads', 'discard=unmap']
  ]
  const fromVmx = vmx.get(`${disk.controller}.virtualDev`)?.toLowerCase() ?? disk.controller.replace(/\d+$/, '')
  return {
    args: ['-drive', drive.join(','), ...device(vmx.get('isrfs.qemu.disk') ?? fromVmx, id, index)],
    noSuspend
  }
}

/**
 * QEMU's vmdk driver refuses to suspend (it blocks migration); a flat disk in one piece is a raw image as well, and
 * then it does not need that driver.
 */
function image(disk: Disk, inside: string): { file: string; format: string; noSuspend: string | undefined } {
  if (disk.kind !== 'vmdk') return { file: inside, format: disk.kind, noSuspend: undefined }
  const [extent, ...others] = disk.descriptor?.extents ?? []
  if (extent?.kind === 'FLAT' && extent.offset === 0 && others.length === 0) {
    const file = path.join(path.dirname(inside), extent.fileName)
    if (!file.startsWith('..') && !path.isAbsolute(extent.fileName))
      return { file, format: 'raw', noSuspend: undefined }
  }
  const kind = disk.descriptor?.createType ?? 'unknown kind'
  return {
    file: inside,
    format: 'vmdk',
    noSuspend: `QEMU cannot suspend a guest whose disk is a VMDK other than one flat extent (${inside}: ${kind})`
  }
}

/** What the guest sees; a guest that was installed under VMware has drivers for what its .vmx names. */
function device(kind: string, id: string, index: number): string[] {
  switch (kind) {
    case 'virtio':
      return ['-device', `virtio-blk-pci,drive=${id}`]
    case 'pvscsi':
      return ['-device', `pvscsi,id=controller-${id}`, '-device', `scsi-hd,bus=controller-${id}.0,drive=${id}`]
    case 'scsi':
    case 'lsilogic':
      return ['-device', `lsi53c895a,id=controller-${id}`, '-device', `scsi-hd,bus=controller-${id}.0,drive=${id}`]
    case 'lsisas1068':
      return ['-device', `mptsas1068,id=controller-${id}`, '-device', `scsi-hd,bus=controller-${id}.0,drive=${id}`]
    case 'sata':
    case 'ahci':
    case 'nvme': // QEMU cannot suspend its NVMe device
      return ['-device', `ich9-ahci,id=controller-${id}`, '-device', `ide-hd,bus=controller-${id}.0,drive=${id}`]
    case 'ide':
      return ['-device', `ide-hd,bus=ide.${String(index >> 1)},unit=${String(index & 1)},drive=${id}`]
    default:
      throw new UsageError(`QEMU has nothing for the disk controller "${kind}"`, {
        hint: 'isrfs.qemu.disk = "virtio" in the .vmx (or pvscsi, lsilogic, lsisas1068, sata, ide) chooses one'
      })
  }
}

function network(vmx: Vmx): string[] {
  const present = vmx.keys(/^ethernet\d+\.present$/).filter((key) => vmx.isTrue(key))
  return present.flatMap((key) => {
    const unit = key.slice(0, -'.present'.length)
    const kind = vmx.get(`${unit}.virtualDev`)?.toLowerCase() ?? 'e1000'
    const address = vmx.get(`${unit}.address`) ?? vmx.get(`${unit}.generatedAddress`)
    const model = ['e1000', 'e1000e', 'vmxnet3'].includes(kind) ? kind : 'e1000'
    const isAddress = address !== undefined && /^(?:[0-9a-f]{2}:){5}[0-9a-f]{2}$/i.test(address)
    return ['-nic', `user,model=${model}${isAddress ? `,mac=${address}` : ''}`]
  })
}

function count(vmx: Vmx, key: string, byDefault: number, max: number): number {
  const text = vmx.get(key)
  if (text === undefined) return byDefault
  if (!/^[1-9]\d{0,8}$/.test(text) || Number(text) > max) {
    throw new UsageError(`${key} = "${text}" is not a number that QEMU could use`, {
      hint: 'mend the line in the .vmx'
    })
  }
  return Number(text)
}

/** QEMU splits its options at commas; a comma in a value is written twice. */
function comma(value: string): string {
  return value.replaceAll(',', ',,')
}
