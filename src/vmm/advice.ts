/**
 * What in a VM's directory hurts on isrfs, and the line that mends it. The reasons are in docs/vmware.md. Settings of VMware are taken
 * from its documentation and from what it writes itself; VMware has not run on the machines on which isrfs is tested.
 */
import { type Disk, insideName } from './disks.js'
import type { FoundVmx, VmFiles } from './vm-files.js'

/** An `error` keeps the VM from working elsewhere, a `warning` costs time or bytes, a `note` is good to know. */
export type Severity = 'error' | 'warning' | 'note'

export interface Finding {
  readonly severity: Severity
  /** the file that it is about, relative to the VM's directory */
  readonly file: string
  readonly what: string
  readonly why: string
  /** a line for the .vmx, or what to do */
  readonly change: string
}

interface Seen extends FoundVmx {
  readonly files: VmFiles
  readonly disks: readonly Disk[]
}

type Rule = (seen: Seen) => readonly Finding[]

const RULES: readonly Rule[] = [
  lines,
  disksAreHere,
  disksAreFit,
  diskModes,
  memoryFile,
  movedOrCopied,
  workingDirectory,
  hostDevices,
  addressOfNetwork,
  noEncryption,
  snapshots,
  leftOvers
]

const ORDER: readonly Severity[] = ['error', 'warning', 'note']

/** Findings, the gravest first. */
export function advise(seen: Seen): Finding[] {
  const all = RULES.flatMap((rule) => rule(seen))
  return all.sort((first, second) => ORDER.indexOf(first.severity) - ORDER.indexOf(second.severity))
}

function lines({ path, vmx }: Seen): Finding[] {
  return vmx.problems.map(({ kind, line, text }) => ({
    severity: 'warning',
    file: path,
    what: `line ${String(line)}: ${text}`,
    why:
      kind === 'twice'
        ? 'the setting is there twice; VMware refuses such a file, and here the last one counts'
        : 'it is no setting; VMware refuses the file or passes over the line',
    change: kind === 'twice' ? 'remove one of the two lines' : 'write it as  key = "value", with straight quotes'
  }))
}

function disksAreHere({ path, disks }: Seen): Finding[] {
  return disks.flatMap((disk): Finding[] => {
    if (disk.inside === undefined) {
      return [
        {
          severity: 'error',
          file: path,
          what: `${disk.unit}.fileName = "${disk.fileName}"`,
          why: 'the disk lies outside the directory of the VM, so it does not travel with it',
          change: `move the disk into the directory, and write  ${disk.unit}.fileName = "${disk.fileName.split(/[\\/]/).at(-1) ?? ''}"`
        }
      ]
    }
    if (disk.isThere) return []
    return [
      {
        severity: 'error',
        file: path,
        what: `${disk.unit}.fileName = "${disk.fileName}"`,
        why: 'there is no such file in the directory of the VM',
        change: `bring the disk there, or write  ${disk.unit}.present = "FALSE"`
      }
    ]
  })
}

function disksAreFit({ disks, files }: Seen): Finding[] {
  return disks.flatMap((disk): Finding[] => {
    const { descriptor, inside = disk.fileName } = disk
    if (descriptor === undefined) return []
    const found: Finding[] = []
    if (/device/i.test(descriptor.createType)) {
      found.push({
        severity: 'error',
        file: inside,
        what: `createType="${descriptor.createType}"`,
        why: 'the disk is a device of one host',
        change: 'copy it into a disk file: vmware-vdiskmanager -r <disk> -t 3 new.vmdk, or qemu-img convert'
      })
    }
    for (const { fileName, kind } of descriptor.extents) {
      if (fileName === '' || kind === 'ZERO') continue
      const extent = insideName(inside, fileName)
      if (extent !== undefined && files.list.some((file) => file.path === extent)) continue
      found.push({
        severity: 'error',
        file: inside,
        what: `extent "${fileName}"`,
        why:
          extent === undefined
            ? 'it lies outside the directory of the VM'
            : 'there is no such file in the directory of the VM',
        change: 'bring the extent there; the descriptor names it relative to itself'
      })
    }
    if (descriptor.parent !== undefined && insideName(inside, descriptor.parent) === undefined) {
      found.push({
        severity: 'error',
        file: inside,
        what: `parentFileNameHint="${descriptor.parent}"`,
        why: 'the disk holds only differences to one that lies outside the directory (a linked clone)',
        change: 'make a full clone: vmware-vdiskmanager -r <disk> -t 3 new.vmdk'
      })
    }
    if (descriptor.createType === 'streamOptimized') {
      found.push({
        severity: 'error',
        file: inside,
        what: 'createType="streamOptimized"',
        why: 'VMMs cannot write to it; it is made for transport',
        change: 'qemu-img convert -O vmdk -o subformat=twoGbMaxExtentSparse'
      })
    }
    return found
  })
}

function diskModes({ path, vmx, disks }: Seen): Finding[] {
  return disks.flatMap(({ unit }): Finding[] => {
    const mode = vmx.get(`${unit}.mode`)?.toLowerCase() ?? ''
    const found: Finding[] = []
    if (mode.includes('nonpersistent') || mode === 'undoable') {
      found.push({
        severity: 'warning',
        file: path,
        what: `${unit}.mode = "${mode}"`,
        why: 'changes of this disk go into a file beside it and are dropped at power-off: they are sent for nothing',
        change: `${unit}.mode = "persistent"`
      })
    }
    if (vmx.isTrue(`${unit}.writeThrough`)) {
      found.push({
        severity: 'warning',
        file: path,
        what: `${unit}.writeThrough = "TRUE"`,
        why: 'every write of the guest waits until it is durable, not only those that the guest flushes; isrfs keeps what a flush has promised without it',
        change: `${unit}.writeThrough = "FALSE"`
      })
    }
    return found
  })
}

/** On Linux hosts VMware backs the guest's memory with a file in the VM's directory, unless it is told otherwise. */
function memoryFile({ path, vmx }: Seen): Finding[] {
  const found: Finding[] = []
  const backing = vmx.get('mainMem.backing')?.toLowerCase() ?? ''
  if (!vmx.isFalse('mainMem.useNamedFile') && !['unnamed', 'swap'].includes(backing)) {
    found.push({
      severity: 'warning',
      file: path,
      what: `mainMem.useNamedFile is ${vmx.get('mainMem.useNamedFile') ?? 'not set, which means TRUE'}`,
      why: 'the running guest’s memory is then a file in the mount: each page that it writes becomes a change, and host memory is used twice',
      change: 'mainMem.useNamedFile = "FALSE"'
    })
  }
  if (vmx.get('MemTrimRate') !== '0') {
    found.push({
      severity: 'warning',
      file: path,
      what: `MemTrimRate is ${vmx.get('MemTrimRate') ?? 'not set'}`,
      why: 'VMware gives unused memory of the guest back by writing it out, which here means into the mount',
      change: 'MemTrimRate = "0"'
    })
  }
  return found
}

function movedOrCopied({ path, vmx }: Seen): Finding[] {
  if (vmx.get('uuid.action')?.toLowerCase() === 'keep') return []
  return [
    {
      severity: 'warning',
      file: path,
      what: `uuid.action is ${vmx.get('uuid.action') ?? 'not set'}`,
      why: 'on each new host VMware asks whether the VM was moved or copied, and waits; "copied" changes its UUID and network address',
      change: 'uuid.action = "keep"'
    }
  ]
}

function workingDirectory({ path, vmx }: Seen): Finding[] {
  return [
    'workingDir',
    'sched.swap.dir',
    'nvram',
    'snapshot.redoNotWithParent',
    'log.fileName',
    'vmx.log.filename'
  ].flatMap((key): Finding[] => {
    const value = vmx.get(key)
    if (value === undefined || value === '' || insideName('', value) !== undefined) return []
    const isLog = key.toLowerCase().includes('log')
    return [
      {
        severity: isLog ? 'note' : 'error',
        file: path,
        what: `${key} = "${value}"`,
        why: isLog
          ? 'the log stays on this host'
          : 'it names a place outside the directory of the VM, which another host does not have',
        change: isLog ? `remove the line if the log shall travel` : `remove the line, or name a place in the directory`
      }
    ]
  })
}

function hostDevices({ path, vmx }: Seen): Finding[] {
  return vmx
    .keys(/^(?:scsi|sata|ide|floppy|serial|parallel|sound)\d+(?::\d+)?\.filename$/)
    .flatMap((key): Finding[] => {
      const unit = key.slice(0, -'.filename'.length)
      const value = vmx.get(key) ?? ''
      const isDisk = vmx.disks().some((disk) => disk.unit === unit)
      const isUsed = vmx.isTrue(`${unit}.present`) && !vmx.isFalse(`${unit}.startConnected`)
      if (isDisk || !isUsed || value === '' || value === 'auto detect' || insideName('', value) !== undefined) return []
      return [
        {
          severity: 'warning',
          file: path,
          what: `${unit}.fileName = "${value}"`,
          why: 'it names something of this host; where that is missing VMware asks a question before it resumes',
          change: `${unit}.startConnected = "FALSE"`
        }
      ]
    })
}

function addressOfNetwork({ path, vmx }: Seen): Finding[] {
  return vmx.keys(/^ethernet\d+\.connectiontype$/).flatMap((key): Finding[] => {
    if (vmx.get(key)?.toLowerCase() !== 'custom') return []
    const unit = key.slice(0, -'.connectiontype'.length)
    return [
      {
        severity: 'note',
        file: path,
        what: `${unit}.connectionType = "custom" (${vmx.get(`${unit}.vnet`) ?? 'no vnet'})`,
        why: 'each host that resumes the VM needs this virtual network',
        change: `${unit}.connectionType = "nat", or make the network on each host`
      }
    ]
  })
}

function noEncryption({ path, vmx }: Seen): Finding[] {
  if (vmx.get('encryption.keySafe') === undefined && vmx.get('encryption.data') === undefined) return []
  return [
    {
      severity: 'note',
      file: path,
      what: 'the VM is encrypted by VMware',
      why: 'encrypted blocks do not compress, and zeros are not zeros: more is stored and sent',
      change: 'nothing, when the encryption is wanted; otherwise remove it in VMware before importing'
    }
  ]
}

function snapshots({ files, vmx, path }: Seen): Finding[] {
  const found: Finding[] = []
  if (vmx.isTrue('snapshot.autoProtect') || vmx.isTrue('rollingTier0.live')) {
    found.push({
      severity: 'warning',
      file: path,
      what: 'AutoProtect is on',
      why: 'VMware then copies the memory into the mount again and again; each suspend on isrfs is a generation to go back to already',
      change: 'rollingTier0.live = "FALSE"'
    })
  }
  const memories = files.list.filter((file) => /-Snapshot\d+\.vmem$/i.test(file.path))
  for (const memory of memories) {
    found.push({
      severity: 'note',
      file: memory.path,
      what: `the memory of a snapshot (${String(Math.round(memory.sizeBytes / 1024 ** 2))} MiB)`,
      why: 'it travels once and then lies on the share',
      change: 'delete the snapshot when it is not needed: isrfs keeps generations'
    })
  }
  return found
}

function leftOvers({ files, vmx, path }: Seen): Finding[] {
  const found: Finding[] = []
  const locks = files.list.filter((file) => /(?:^|\/)[^/]+\.lck$/i.test(file.path) && file.type === 'directory')
  if (locks.length > 0) {
    found.push({
      severity: 'note',
      file: locks[0]?.path ?? '',
      what: `${String(locks.length)} lock director${locks.length === 1 ? 'y' : 'ies'} (*.lck)`,
      why: 'the VM is running, or its VMM has crashed; a suspend through isrfs does not publish them',
      change: 'when it is not running: rm -r *.lck'
    })
  }
  for (const file of files.list) {
    if (!/(?:^|\/)(?:core(?:\.\d+)?|.*\.dmp|vmmcores.*|.*-core\d+\.gz)$/i.test(file.path) || file.type !== 'file')
      continue
    found.push({
      severity: 'note',
      file: file.path,
      what: 'a crash dump of the VMM',
      why: 'it travels with the VM',
      change: `remove it: rm '${file.path}'`
    })
  }
  if ((vmx.get('checkpoint.vmState') ?? '') !== '') {
    found.push({
      severity: 'note',
      file: path,
      what: `the VM is suspended (${vmx.get('checkpoint.vmState') ?? ''})`,
      why: 'VMware does not read most changed lines until the VM was shut down',
      change: 'resume it, shut the guest down, then change the lines'
    })
  }
  return found
}

/** Whether anything keeps the VM from working elsewhere. */
export function hasErrors(findings: readonly Finding[]): boolean {
  return findings.some(({ severity }) => severity === 'error')
}
