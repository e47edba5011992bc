/** isrfs doctor: what it makes of hosts, disks and shares that are not as they should be. */
import fs from 'node:fs'
import path from 'node:path'
import anyTest, { type TestFn } from 'ava'
import { clientFindings, measureDisk, speedFindings } from '../../src/cli/doctor/client.js'
import { hostFindings } from '../../src/cli/doctor/host.js'
import { mountOptionFindings, probeShare, shareFindings, shareText } from '../../src/cli/doctor/share.js'
import type { Machine } from '../../src/cli/prerequisites.js'
import { Bed } from '../support/bed.js'

const test = anyTest as TestFn<{ bed: Bed }>

test.beforeEach((t) => {
  t.context.bed = new Bed('doctor')
})
test.afterEach.always((t) => t.context.bed.destroy())

const HEALTHY = { writeMs: 1, clockAheadMs: 10, readMs: 1, bytesPerSecond: 2 ** 27, freeBytes: 2 ** 40 }

test('everything that a host lacks is told at once, with what to do', (t) => {
  const { bed } = t.context
  fs.writeFileSync(bed.path('timeout'), '30\n')
  const machine: Machine = {
    uid: 1000,
    searchPath: '/nowhere',
    fuseDevice: '/nowhere/fuse',
    fuseConfiguration: '/nowhere/fuse.conf',
    maxRequestTimeout: bed.path('timeout')
  }
  const findings = hostFindings(machine)
  t.deepEqual(
    findings.map(({ severity, file }) => [severity, file]),
    [
      ['error', '/nowhere/fuse'],
      ['error', 'fusermount3'],
      ['error', bed.path('timeout')],
      ['note', '/nowhere/fuse.conf'],
      ['note', 'perl']
    ]
  )
  for (const { what, why, change } of findings) t.true(what !== '' && why !== '' && change !== '')
  fs.writeFileSync(bed.path('fuse'), '')
  fs.writeFileSync(bed.path('fusermount3'), '', { mode: 0o755 })
  fs.writeFileSync(bed.path('timeout'), '0\n')
  const fit = { ...machine, uid: 0, searchPath: bed.root, fuseDevice: bed.path('fuse') }
  t.deepEqual(hostFindings(fit), [])
})

test('a share that is slow, far, full, read-only, late or silent is told of', (t) => {
  t.deepEqual(shareFindings('/s', HEALTHY), [])
  const whats = (probed: Partial<typeof HEALTHY> | { writeMs: null }): string[] =>
    shareFindings('/s', { ...HEALTHY, ...probed }).map(({ what }) => what)
  t.regex(whats({ readMs: 80 }).join(), /80 ms for the first bytes/)
  t.regex(whats({ bytesPerSecond: 2 ** 20 }).join(), /gives 1 MiB\/s/)
  t.regex(whats({ writeMs: null }).join(), /may not write/)
  t.regex(whats({ clockAheadMs: -60_000 }).join(), /60 s behind/)
  t.regex(whats({ freeBytes: 2 ** 20 }).join(), /1 MiB are free/)
  t.is(shareFindings('/s', undefined)[0]?.severity, 'error')
})

test('options of an NFS mount that cost or harm are named, and only for the mount below the VM', (t) => {
  const table = `/dev/sda / ext4 rw 0 0
server:/a /mnt/vms nfs4 rw,vers=4.2,rsize=65536,soft,proto=tcp,lookupcache=none 0 0
server:/b /mnt/vms/other nfs4 rw,vers=4.2,rsize=1048576,hard,proto=tcp 0 0
`
  const whats = (directory: string): string[] => mountOptionFindings(directory, table).map(({ what }) => what)
  t.deepEqual(whats('/home/x'), [])
  t.deepEqual(whats('/mnt/vms/testvm').slice(0, -1), [
    'the share is mounted soft',
    'the share is mounted with lookupcache=none',
    'rsize is 65536'
  ])
  t.is(whats('/mnt/vms/other/testvm').length, 1, 'sync of the export is always a question')
  t.deepEqual(whats('/mnt/vmsmore/testvm'), [])
})

test('a share is measured in a process of its own, and nothing is left there', async (t) => {
  t.timeout(120_000)
  const { bed } = t.context
  const source = bed.makeDirectory('source')
  const disk = Buffer.alloc(12 * 1024 * 1024)
  for (let at = 0; at < disk.length; at += 4) disk.writeUInt32LE(Math.imul(at, 2654435761) >>> 0, at)
  fs.writeFileSync(path.join(source, 'disk'), disk)
  await bed.mustIsrfs('a', 'import', source, bed.vm())
  const before = fs.readdirSync(bed.vm(), { recursive: true }).sort()
  const probed = await probeShare(bed.vm())
  t.true((probed?.readMs ?? 0) > 0 && (probed?.writeMs ?? 0) > 0 && (probed?.bytesPerSecond ?? 0) > 0)
  t.regex(shareText(probed ?? HEALTHY), /ms to the first bytes of a chunk, .*\/s, .* ms to write a small file/)
  t.deepEqual(fs.readdirSync(bed.vm(), { recursive: true }).sort(), before)
  t.is(await probeShare(bed.vm(), 1), undefined, 'one that takes too long is given up')
  await t.throwsAsync(probeShare(bed.path('nowhere')), { message: /ENOENT/ })
})

test('the disk of the client: kind, space and speed', (t) => {
  const { bed } = t.context
  const speed = measureDisk(bed.path('not', 'there', 'yet'))
  t.true((speed?.bytesPerSecond ?? 0) > 0 && (speed?.syncMs ?? 0) > 0)
  t.deepEqual(fs.readdirSync(bed.root), ['share'])
  t.is(measureDisk('/proc'), undefined)
  t.deepEqual(speedFindings('/c', { syncMs: 1, bytesPerSecond: 2 ** 30 }), [])
  t.is(speedFindings('/c', { syncMs: 100, bytesPerSecond: 2 ** 20 }).length, 2)
  const memory = clientFindings({ clientDirectory: '/dev/shm/x', cacheDirectory: bed.root }, 2 ** 20)
  t.true(memory.some(({ what }) => what.includes('tmpfs')))
  t.true(clientFindings({ clientDirectory: bed.root, cacheDirectory: bed.root }, 2 ** 60).length >= 1)
})
