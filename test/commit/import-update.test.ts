import { randomBytes } from 'node:crypto'
import fs from 'node:fs'
import path from 'node:path'
import anyTest, { type TestFn } from 'ava'
import { LeaseHeldError } from '../../src/base/errors.js'
import { acquireLease, readLease } from '../../src/share/lease.js'
import { Share } from '../../src/share/share.js'
import { differences } from '../support/compare.js'
import { CLIENT, ImportBed, OTHER_CLIENT } from './import-bed.js'

const test = anyTest as TestFn<ImportBed>
test.beforeEach((t) => {
  t.context = new ImportBed()
})
test.afterEach.always((t) => {
  t.context.destroy()
})

const BLOCK = 128 * 1024
const HOLDER = { ...CLIENT, client: CLIENT.id, user: 'joe', pid: 1, boot: 'some boot', mountpoint: '/mnt/x' }

function holderOf({ client, host, user, pid, boot, mountpoint }: typeof HOLDER): Parameters<typeof acquireLease>[1] {
  return { client, host, user, pid, boot, mountpoint }
}

test('an update transfers only the blocks that changed', async (t) => {
  const bed = t.context
  fs.writeFileSync(bed.inSource('disk'), randomBytes(160 * 2 ** 20)) // two map pages
  fs.writeFileSync(bed.inSource('config'), 'memsize = 1')
  const first = await bed.import()
  t.true(first.sentBytes >= 160 * 2 ** 20)

  const disk = fs.openSync(bed.inSource('disk'), 'r+')
  fs.writeSync(disk, randomBytes(10), 0, 10, 3 * BLOCK + 17)
  fs.writeSync(disk, randomBytes(10), 0, 10, 1100 * BLOCK)
  fs.writeSync(disk, Buffer.alloc(BLOCK), 0, BLOCK, 700 * BLOCK) // zero now
  fs.closeSync(disk)
  const second = await bed.import({ update: true })
  t.is(Number(second.published?.number), 2)
  t.is(second.changedBytes, 3 * BLOCK)
  t.true(second.sentBytes < 2 * BLOCK + 150_000, `${second.sentBytes}`) // two blocks, two map pages, a root
  const byName = (name: string) => (result: typeof first) =>
    result.published!.manifest.entries.find((entry) => entry.name === name) as any
  t.is(byName('disk')(second).inode, byName('disk')(first).inode)
  t.deepEqual(byName('config')(second).map, byName('config')(first).map)
  t.is(byName('disk')(second).dataBlocks, byName('disk')(first).dataBlocks - 1)
  await bed.export(bed.path('out'))
  t.deepEqual(differences(bed.source, bed.path('out')), [])
})

test('an update without changes publishes nothing and gives the lease back', async (t) => {
  const bed = t.context
  fs.mkdirSync(bed.inSource('sub'))
  fs.writeFileSync(bed.inSource('sub', 'file'), 'x')
  await bed.import()
  fs.readFileSync(bed.inSource('sub', 'file')) // a time of access is no change
  const again = await bed.import({ update: true, client: OTHER_CLIENT })
  t.is(again.published, undefined)
  t.is(again.sentBytes, 0)
  t.deepEqual(fs.readdirSync(path.join(bed.vm, 'generations')), ['00000001'])
  t.is(readLease(new Share(bed.vm))?.released?.generation?.number, 1)
})

test('inode numbers stay with paths; what becomes something else is new; sizes go both ways', async (t) => {
  const bed = t.context
  for (const name of ['kept', 'gone', 'shorter', 'longer', 'becomes'])
    fs.writeFileSync(bed.inSource(name), randomBytes(300_000))
  const first = await bed.import()
  fs.rmSync(bed.inSource('gone'))
  fs.truncateSync(bed.inSource('shorter'), 1000)
  fs.appendFileSync(bed.inSource('longer'), randomBytes(300_000))
  fs.rmSync(bed.inSource('becomes'))
  fs.mkdirSync(bed.inSource('becomes'))
  fs.writeFileSync(bed.inSource('becomes', 'inner'), '')
  fs.writeFileSync(bed.inSource('another'), 'new')
  const second = await bed.import({ update: true })
  const inodes = (result: typeof first): Map<string, number> =>
    new Map(result.published!.manifest.entries.map((entry) => [entry.name, entry.inode]))
  for (const name of ['', 'kept', 'shorter', 'longer']) t.is(inodes(second).get(name), inodes(first).get(name), name)
  for (const name of ['becomes', 'inner', 'another'])
    t.true(inodes(second).get(name)! >= first.published!.manifest.nextInode, name)
  t.deepEqual(second.published?.manifest.parent, { generation: 1, digest: first.published!.digest })
  await bed.export(bed.path('out'))
  t.deepEqual(differences(bed.source, bed.path('out')), [])
})

test('an update is refused while anybody has the VM, also this client', async (t) => {
  const bed = t.context
  fs.writeFileSync(bed.inSource('file'), 'x')
  await bed.import()
  const share = new Share(bed.vm)
  acquireLease(share, holderOf({ ...HOLDER, client: OTHER_CLIENT.id }))
  t.regex((await t.throwsAsync(bed.import({ update: true }), { instanceOf: LeaseHeldError })).message, /in use/)
  const mine = await t.throwsAsync(bed.import({ update: true, client: OTHER_CLIENT }), { instanceOf: LeaseHeldError })
  t.regex(mine.message, /this client has/)
  t.is(readLease(share)?.released, undefined)
})

test('the lease of a dead update of this client is taken back', async (t) => {
  const bed = t.context
  fs.writeFileSync(bed.inSource('file'), 'x')
  await bed.import()
  acquireLease(new Share(bed.vm), holderOf({ ...HOLDER, mountpoint: '(import)' }))
  fs.writeFileSync(bed.inSource('file'), 'y')
  t.is(Number((await bed.import({ update: true })).published?.number), 2)
})

test('an update that lost its lease meanwhile publishes nothing', async (t) => {
  const bed = t.context
  fs.writeFileSync(bed.inSource('file'), 'x')
  await bed.import()
  fs.writeFileSync(bed.inSource('file'), 'y')
  const onProgress = ({ phase }: { phase: string }): void => {
    if (phase !== 'publish') return
    const name = path.join(bed.vm, 'leases', '00000002')
    fs.cpSync(path.join(bed.vm, 'leases', '00000001'), name, { recursive: true })
    const file = path.join(name, 'lease.json')
    const lease = JSON.parse(fs.readFileSync(file, 'utf8')) as Record<string, unknown>
    fs.writeFileSync(file, JSON.stringify({ ...lease, number: 2, token: '0'.repeat(32) }))
  }
  await t.throwsAsync(bed.import({ update: true, onProgress }), {
    instanceOf: LeaseHeldError,
    message: /taken by somebody else/
  })
  t.deepEqual(fs.readdirSync(path.join(bed.vm, 'generations')), ['00000001'])
})

test('an update of what is no VM says so', async (t) => {
  await t.throwsAsync(t.context.import({ update: true }), { message: /there is no VM/ })
})
