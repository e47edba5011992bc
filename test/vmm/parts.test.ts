/** What is read of a VM's directory, the advice that follows, and the machine that QEMU gets. */
import fs from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import anyTest, { type TestFn } from 'ava'
import fc from 'fast-check'
import { IsrfsError } from '../../src/base/errors.js'
import { advise, type Finding } from '../../src/vmm/advice.js'
import { findDisks } from '../../src/vmm/disks.js'
import { qemuMachine, type QemuMachine } from '../../src/vmm/qemu-machine.js'
import { findVmx, plainFiles, type VmFiles } from '../../src/vmm/vm-files.js'
import { parseDescriptor } from '../../src/vmm/vmdk.js'
import { parseVmx } from '../../src/vmm/vmx.js'
import { Bed } from '../support/bed.js'

const test = anyTest as TestFn<{ root: string }>

test.beforeEach((t) => {
  t.context.root = fs.mkdtempSync(path.join(os.tmpdir(), 'isrfs-test-vmx-'))
})
test.afterEach.always((t) => {
  fs.rmSync(t.context.root, { recursive: true })
})

const DESCRIPTOR = `# Disk DescriptorFile
version=1
CID=fffffffe
parentCID=ffffffff
createType="monolithicFlat"

# Extent description
RW 4194304 FLAT "disk-flat.vmdk" 0

ddb.adapterType = "lsilogic"
`
const GOOD = [
  'memsize = "512"',
  'mainMem.useNamedFile = "FALSE"',
  'MemTrimRate = "0"',
  'uuid.action = "keep"',
  'scsi0.present = "TRUE"',
  'scsi0.virtualDev = "pvscsi"',
  'scsi0:0.present = "TRUE"',
  'scsi0:0.fileName = "disk.vmdk"'
]

function write(root: string, files: Readonly<Record<string, string | Buffer>>): VmFiles {
  for (const [name, content] of Object.entries(files)) {
    fs.mkdirSync(path.dirname(path.join(root, name)), { recursive: true })
    fs.writeFileSync(path.join(root, name), content)
  }
  return plainFiles(root)
}

async function findingsOf(files: VmFiles): Promise<Finding[]> {
  const found = await findVmx(files)
  return advise({ ...found, files, disks: await findDisks(files, found.vmx) })
}

async function machineOf(root: string, lines: readonly string[], disk = DESCRIPTOR): Promise<QemuMachine> {
  const files = write(root, { 'vm.vmx': lines.join('\n'), 'disk.vmdk': disk, 'disk-flat.vmdk': '', 'a,b.qcow2': '' })
  const found = await findVmx(files)
  const disks = await findDisks(files, found.vmx)
  return qemuMachine({ directory: root, found, disks, accelerators: 'tcg', hasDisplay: false })
}

test('a .vmx: keys without regard to case, escapes, comments, other encodings', (t) => {
  const vmx = parseVmx(
    Buffer.from(
      '.encoding = "windows-1252"\r\n# a comment\r\nDisplayName = "a |22b|22 \xe9"\r\nnumvcpus = 2\r\nnonsense\r\n',
      'latin1'
    ),
    'vm.vmx'
  )
  t.is(vmx.get('displayname'), 'a "b" é')
  t.is(vmx.get('NUMVCPUS'), '2')
  t.is(vmx.get('nonsense'), undefined)
  const disks = parseVmx(
    Buffer.from(
      [
        'scsi0:10.present = "TRUE"\nscsi0:10.fileName = "b.vmdk"',
        'scsi0:2.present = "TRUE"\nscsi0:2.fileName = "a.vmdk"',
        'scsi0:3.present = "FALSE"\nscsi0:3.fileName = "c.vmdk"',
        'ide1:0.present = "TRUE"\nide1:0.fileName = "x.iso"\nide1:0.deviceType = "cdrom-image"'
      ].join('\n')
    ),
    'vm.vmx'
  ).disks()
  t.deepEqual(
    disks.map(({ unit }) => unit),
    ['scsi0:2', 'scsi0:10']
  )
})

test('a .vmx as people leave it: comments behind values, a byte order mark, tabs, typographic quotes, a setting twice', async (t) => {
  const text = [
    '#!/usr/bin/vmware',
    '.encoding = "UTF-8"',
    'displayName\t=\t"Büro" # the one at work',
    'memsize = 512 # MiB',
    'uuid.action = \u201ckeep\u201d',
    'annotation = "line one|0Aline two: a # is no comment here"',
    'scsi0:0.fileName = "disk.vmdk',
    '  ',
    'MEMSIZE = "1024"'
  ].join('\r\n')
  const vmx = parseVmx(Buffer.from(`\ufeff${text}`), 'vm.vmx')
  t.is(vmx.get('displayName'), 'Büro')
  t.is(vmx.get('memsize'), '1024')
  t.is(vmx.get('annotation'), 'line one\nline two: a # is no comment here')
  t.deepEqual(vmx.problems, [
    { kind: 'no setting', line: 7, text: 'scsi0:0.fileName = "disk.vmdk' },
    { kind: 'twice', line: 9, text: 'MEMSIZE = "1024"' }
  ])
  const japanese = Buffer.concat([
    Buffer.from('.encoding = "Shift_JIS"\ndisplayName = "'),
    Buffer.from([0x89, 0xbc, 0x91, 0x7a]),
    Buffer.from('"\n')
  ])
  t.is(parseVmx(japanese, 'vm.vmx').get('displayName'), '仮想')
  t.throws(() => parseVmx(Buffer.from(`\ufeff${text}`, 'utf16le'), 'vm.vmx'), { message: /is UTF-16/ })

  const findings = await findingsOf(write(t.context.root, { 'vm.vmx': `\ufeff${text}` }))
  const found = findings.filter(({ what }) => /^(?:line \d|uuid)/.test(what))
  t.deepEqual(
    found.map(({ severity }) => severity),
    ['warning', 'warning', 'warning']
  )
  t.regex(found.map(({ what }) => what).join('\n'), /line 7: scsi0.*line 9: MEMSIZE.*uuid\.action is \u201ckeep\u201d/s)
})

test('memory without a named file, in the words of newer versions', async (t) => {
  const lines = GOOD.map((line) => (line.startsWith('mainMem') ? 'mainMem.backing = "unnamed"' : line))
  const files = write(t.context.root, { 'vm.vmx': lines.join('\n'), 'disk.vmdk': DESCRIPTOR, 'disk-flat.vmdk': '' })
  t.deepEqual(await findingsOf(files), [])
})

test('what is not a .vmx, is missing or is there twice, is said', async (t) => {
  const { root } = t.context
  t.throws(() => parseVmx(Buffer.alloc(100), 'x'), { message: /binary content/ })
  t.throws(() => parseVmx(Buffer.from('hello'), 'x'), { message: /no line/ })
  await t.throwsAsync(findVmx(plainFiles(root)), { message: /has no \.vmx file/ })
  const files = write(root, { 'a.vmx': 'a = "b"', 'b.vmx': 'a = "b"' })
  await t.throwsAsync(findVmx(files), { message: /several \.vmx files: a\.vmx, b\.vmx/ })
})

test('a descriptor, of its own and within a sparse file', (t) => {
  t.like(parseDescriptor(Buffer.from(DESCRIPTOR)), { createType: 'monolithicFlat', parent: undefined })
  const header = Buffer.alloc(512)
  header.write('KDMV')
  const embedded = parseDescriptor(Buffer.concat([header, Buffer.from(DESCRIPTOR), Buffer.alloc(512)]))
  t.deepEqual(embedded?.extents, [
    { access: 'RW', sectors: 4194304, kind: 'FLAT', fileName: 'disk-flat.vmdk', offset: 0 }
  ])
  const child = DESCRIPTOR.replace('parentCID=ffffffff', 'parentCID=12345678\nparentFileNameHint="/base/disk.vmdk"')
  t.is(parseDescriptor(Buffer.from(child))?.parent, '/base/disk.vmdk')
  t.is(parseDescriptor(Buffer.from('not a disk')), undefined)
})

test('any bytes as .vmx or descriptor give an answer or an error for people', (t) => {
  const bytes = fc.oneof(
    fc.uint8Array({ maxLength: 300 }),
    fc.string({ unit: fc.constantFrom('a', '=', '"', '\n', '|', '2', ' ', '.', '#') })
  )
  const holds = (value: Uint8Array | string): boolean => {
    const content = Buffer.from(value as string)
    parseDescriptor(Buffer.concat([Buffer.from(DESCRIPTOR), content]))
    try {
      parseVmx(content, 'x').disks()
      return true
    } catch (error) {
      return error instanceof IsrfsError
    }
  }
  t.notThrows(() => fc.assert(fc.property(bytes, holds), { numRuns: 2000 }))
})

test('a VM that is set up right gets no advice', async (t) => {
  const files = write(t.context.root, { 'vm.vmx': GOOD.join('\n'), 'disk.vmdk': DESCRIPTOR, 'disk-flat.vmdk': '' })
  t.deepEqual(await findingsOf(files), [])
})

test('everything that hurts is found, the gravest first, with the line to change', async (t) => {
  const lines = [
    'workingDir = "/var/tmp"',
    'scsi0:0.present = "TRUE"',
    'scsi0:0.fileName = "/disks/outside.vmdk"',
    'scsi0:1.present = "TRUE"',
    'scsi0:1.fileName = "missing.vmdk"',
    'scsi0:2.present = "TRUE"',
    'scsi0:2.fileName = "linked.vmdk"',
    'scsi0:2.mode = "independent-nonpersistent"',
    'scsi0:2.writeThrough = "TRUE"',
    'scsi0:3.present = "TRUE"',
    'scsi0:3.fileName = "device.vmdk"',
    'ide1:0.present = "TRUE"',
    'ide1:0.fileName = "/isos/debian.iso"',
    'ide1:0.deviceType = "cdrom-image"',
    'ethernet0.connectionType = "custom"',
    'rollingTier0.live = "TRUE"',
    'encryption.data = "x"',
    'vmx.log.filename = "/var/log/vm.log"',
    'checkpoint.vmState = "vm.vmss"'
  ]
  const files = write(t.context.root, {
    'vm.vmx': lines.join('\n'),
    'linked.vmdk': DESCRIPTOR.replace('parentCID=ffffffff', 'parentCID=1\nparentFileNameHint="../base.vmdk"'),
    'device.vmdk': DESCRIPTOR.replace('monolithicFlat', 'fullDevice').replace('disk-flat.vmdk', '/dev/sdb'),
    'vm-Snapshot1.vmem': 'memory',
    'vmware-vmx.dmp': '',
    'disk.vmdk.lck/M1.lck': ''
  })
  const findings = await findingsOf(files)
  const severities = findings.map(({ severity }) => severity)
  t.deepEqual(
    severities,
    [...severities].sort((a, b) => ['error', 'warning', 'note'].indexOf(a) - ['error', 'warning', 'note'].indexOf(b))
  )
  const about = (pattern: RegExp): Finding | undefined =>
    findings.find(({ what, why }) => pattern.test(`${what} ${why}`))
  for (const pattern of [
    /outside\.vmdk/,
    /missing\.vmdk/,
    /linked clone/,
    /fullDevice/,
    /disk-flat\.vmdk/,
    /workingDir/
  ]) {
    t.is(about(pattern)?.severity, 'error', String(pattern))
  }
  const change = [
    /nonpersistent/,
    /writeThrough/,
    /useNamedFile/,
    /MemTrimRate/,
    /uuid\.action/,
    /debian\.iso/,
    /AutoProtect/
  ]
  for (const pattern of change) {
    t.is(about(pattern)?.severity, 'warning', String(pattern))
    t.regex(about(pattern)?.change ?? '', /^\S+ = "\S+"$/)
  }
  for (const pattern of [/custom/, /encrypted/, /vm\.log/, /is suspended/, /snapshot/, /crash dump/, /lock director/]) {
    t.is(about(pattern)?.severity, 'note', String(pattern))
  }
})

test('QEMU gets the machine of the .vmx; a flat disk as its raw extent', async (t) => {
  const { root } = t.context
  const machine = await machineOf(root, [
    ...GOOD,
    'numvcpus = "2"',
    'ethernet0.present = "TRUE"',
    'ethernet0.address = "00:50:56:00:00:01"'
  ])
  const args = machine.args.join(' ')
  t.true(args.includes(`memory-backend-file,id=memory,size=512M,mem-path=${root}/vm.vmem,share=on`))
  t.true(args.includes(`file=${root}/disk-flat.vmdk,format=raw,`))
  t.true(args.includes('-device pvscsi,id=controller-disk0 -device scsi-hd,bus=controller-disk0.0,drive=disk0'))
  t.true(args.includes('-m 512 -smp 2'))
  t.true(args.includes('-nic user,model=e1000,mac=00:50:56:00:00:01'))
  t.like(machine, { noSuspend: undefined, memoryBytes: 512 * 1024 ** 2, stateFile: path.join(root, 'vm.vmss') })
})

test('other controllers, other disks; a comma in a name; what QEMU cannot do', async (t) => {
  const { root } = t.context
  const withBus = async (bus: string): Promise<string> =>
    (await machineOf(root, [...GOOD, `isrfs.qemu.disk = "${bus}"`])).args.join(' ')
  t.regex(await withBus('virtio'), /virtio-blk-pci,drive=disk0/)
  t.regex(await withBus('lsilogic'), /lsi53c895a/)
  t.regex(await withBus('lsisas1068'), /mptsas1068/)
  t.regex(await withBus('nvme'), /ich9-ahci/)
  t.regex(await withBus('ide'), /ide-hd,bus=ide\.0,unit=0/)
  await t.throwsAsync(withBus('abacus'), { message: /nothing for the disk controller "abacus"/ })
  const qcow2 = await machineOf(root, [
    ...GOOD.slice(0, -1),
    'scsi0:0.fileName = "a,b.qcow2"',
    'isrfs.qemu.memory = "stream"'
  ])
  t.true(qcow2.args.join(' ').includes(`file=${root}/a,,b.qcow2,format=qcow2,`))
  t.is(qcow2.memoryFile, undefined)
  const sparse = await machineOf(
    root,
    GOOD,
    DESCRIPTOR.replace('monolithicFlat', 'twoGbMaxExtentSparse').replace('FLAT', 'SPARSE')
  )
  t.regex(sparse.noSuspend ?? '', /cannot suspend.*twoGbMaxExtentSparse/)
  await t.throwsAsync(machineOf(root, [...GOOD, 'memsize = "-1"']), { message: /memsize = "-1" is not a number/ })
  await t.throwsAsync(machineOf(root, [...GOOD, 'isrfs.qemu.memory = "x"']), { message: /is unknown/ })
  await t.throwsAsync(machineOf(root, [...GOOD, 'scsi0:0.fileName = "../x.qcow2"']), { message: /is not in/ })
})

test('isrfs doctor reads a plain directory and a VM on the share alike', async (t) => {
  const bed = new Bed('doctor')
  try {
    const source = bed.makeDirectory('plain')
    write(source, { 'vm.vmx': GOOD.slice(4).join('\n'), 'disk.vmdk': DESCRIPTOR })
    const plain = await bed.isrfs('a', 'doctor', source)
    t.is(plain.code, 1, 'an extent is missing')
    t.regex(plain.stdout, /^error: disk\.vmdk: extent "disk-flat\.vmdk"/)
    t.regex(plain.stderr, /would not work on another host/)
    fs.writeFileSync(path.join(source, 'disk-flat.vmdk'), Buffer.alloc(4096))
    await bed.mustIsrfs('a', 'import', source, bed.vm())
    const shared = await bed.mustIsrfs('a', 'doctor', bed.vm(), '--json')
    const again = await bed.mustIsrfs('a', 'doctor', source, '--json')
    t.deepEqual(JSON.parse(shared.stdout), JSON.parse(again.stdout))
    // those of files of the VM; others are about this machine
    const files = (JSON.parse(shared.stdout) as { file: string }[]).filter(({ file }) =>
      /^[^/]+\.(vmx|vmdk)$/.test(file)
    )
    t.is(files.length, 3)
    const nothing = await bed.isrfs('a', 'doctor', bed.path('nowhere'))
    t.regex(nothing.stderr, /is not a directory/)
  } finally {
    await bed.destroy()
  }
})
