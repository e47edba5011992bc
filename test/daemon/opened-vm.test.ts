/** What a mount owns below the file system: opened, and let go of when something fails in between. */
import fs from 'node:fs'
import path from 'node:path'
import test, { type ExecutionContext } from 'ava'
import pino from 'pino'
import { IntegrityError, PosixError } from '../../src/base/errors.js'
import { removals } from '../../src/base/remove-later.js'
import { MountLife } from '../../src/daemon/mount-life.js'
import { abandon, type OpenedVm, openVm } from '../../src/daemon/opened-vm.js'
import type { MountRequest } from '../../src/daemon/request.js'
import { ROOT_INODE } from '../../src/base/units.js'
import { generationName, readNewestGeneration } from '../../src/format/generations.js'
import { writeTombstone } from '../../src/format/tombstone.js'
import { readLease } from '../../src/share/lease.js'
import type { Share } from '../../src/share/share.js'
import { makeVm, temporaryDirectory } from '../support/make-vm.js'

const log = pino({ level: 'silent' })

interface Place {
  readonly share: Share
  readonly request: MountRequest
  open(): Promise<OpenedVm>
}

function makePlace(t: ExecutionContext): Place {
  const directory = temporaryDirectory('opened')
  t.teardown(() => fs.rmSync(directory, { recursive: true }))
  const { share } = makeVm(path.join(directory, 'vm'), new Map([['disk', Buffer.from('bytes')]]))
  const client = path.join(directory, 'client')
  const request = {
    vmPath: share.root,
    mountpoint: path.join(directory, 'mnt'),
    clientDirectory: client,
    cacheDirectory: path.join(client, 'cache'),
    log: { bytesMax: 2 ** 20, filesMax: 2 },
    logFile: path.join(directory, 'log'),
    generation: null,
    branch: null,
    shareTimeoutMs: null,
    metricsPort: null,
    acceptRollback: false,
    transport: 'binding' as const,
    readOnly: false,
    discard: false,
    allowOther: false,
    writeback: true,
    trickle: false,
    cacheBytesMax: 2 ** 30
  }
  const open = (): Promise<OpenedVm> => openVm({ request, log, notice: () => undefined, checkpoint: () => undefined })
  return { share, request, open }
}

test.serial('a mount that is abandoned before anything was changed leaves nothing held', async (t) => {
  const { share, open } = makePlace(t)
  const vm = await open()
  t.is(readLease(share)?.released, undefined)
  await abandon(vm)
  await vm.release()
  t.truthy(readLease(share)?.released)
})

test.serial(
  'a mount that is abandoned with changes keeps the lease and the session, and goes on with both',
  async (t) => {
    const { share, open } = makePlace(t)
    const vm = await open()
    vm.session.record({
      kind: 'size',
      inode: vm.session.namespace.child(rootOf(vm), 'disk')?.id ?? ROOT_INODE,
      sizeBytes: 2,
      baseLimitBytes: 2
    })
    await abandon(vm)
    await vm.release()
    t.is(readLease(share)?.released, undefined)
    const again = await open()
    t.is(again.session.namespace.child(rootOf(again), 'disk')?.sizeBytes, 2)
    again.session.destroy()
    again.right.stop()
    await again.release()
  }
)

test.serial('a session that cannot be made gives the lease back', async (t) => {
  const { share, open } = makePlace(t)
  const real = fs.mkdirSync
  const full = (name: fs.PathLike, options?: fs.MakeDirectoryOptions): string | undefined => {
    if (String(name).endsWith('/regions')) throw new PosixError('ENOSPC', 'the disk is full')
    return real(name, options)
  }
  fs.mkdirSync = full as typeof fs.mkdirSync // the forms of it that are called
  try {
    await t.throwsAsync(open(), { message: /the disk is full/ })
  } finally {
    fs.mkdirSync = real
  }
  t.truthy(readLease(share)?.released, 'others may go on')
  const vm = await open()
  await abandon(vm)
  await vm.release()
})

test.serial('what fails when a mount lets go of its files does not hide how it ended', async (t) => {
  const { request, open } = makePlace(t)
  const vm = await open()
  const transport = {
    name: 'direct' as const,
    threadsWait: false,
    mount: () => Promise.resolve(),
    ended: Promise.resolve(),
    drained: () => Promise.resolve(),
    close: () => Promise.resolve()
  }
  const letGo = async (): Promise<void> => {
    await vm.release()
    throw new Error('the disk is broken')
  }
  const life = new MountLife(request, vm, transport, log, letGo, {
    anyWriteFailed: () => false,
    stop: () => undefined,
    profile: () => undefined
  })
  const notices: string[] = []
  life.watch({ notice: (text) => notices.push(text), progress: () => undefined })
  await life.mount()
  t.deepEqual(await life.finished, { kind: 'unchanged', generation: 1 })
  t.regex(notices.join(), /the disk is broken/)
})

function rootOf({ session }: OpenedVm): Parameters<OpenedVm['session']['namespace']['child']>[0] {
  const root = session.namespace.get(ROOT_INODE)
  if (root === undefined) throw new Error('no root')
  return root
}

test.serial('a generation of another VM is not mounted, and the lease is given back', async (t) => {
  const { share, open } = makePlace(t)
  const other = JSON.parse(fs.readFileSync(share.pathOf('vm.json'), 'utf8')) as { vm: string }
  fs.writeFileSync(share.pathOf('vm.json'), JSON.stringify({ ...other, vm: 'ff'.repeat(16) }))
  await t.throwsAsync(open(), { instanceOf: IntegrityError, message: /belongs to VM/ })
  t.truthy(readLease(share)?.released)
})

test.serial('a generation that was pruned before it was pinned is not shown, and leaves nothing behind', async (t) => {
  const { share, request } = makePlace(t)
  const { number, digest, manifest } = readNewestGeneration(share)
  const record = { generation: number, digest, session: manifest.session, parent: null }
  writeTombstone(share, generationName(number), record) // the manifest is still there: it was read a moment before
  const opening = { request: { ...request, readOnly: true }, log, notice: () => undefined, checkpoint: () => undefined }
  await t.throwsAsync(openVm(opening), { message: /was pruned/ })
  t.deepEqual(fs.readdirSync(share.pathOf('pins')), [])
  await removals()
  t.deepEqual(fs.readdirSync(path.join(request.clientDirectory, 'private')), [])
})

test.serial(
  'what dead daemons had still to remove, of whatever VM, goes with the next mount; nothing else does',
  async (t) => {
    const { request, open } = makePlace(t)
    const [other, removed] = ['ab'.repeat(16), 'removed-00112233445566aa']
    const places = [
      path.join(request.clientDirectory, 'sessions', other),
      path.join(request.clientDirectory, 'private'),
      path.join(request.cacheDirectory, other, '3')
    ]
    for (const place of places) {
      fs.mkdirSync(path.join(place, removed), { recursive: true, mode: 0o700 })
      fs.writeFileSync(path.join(place, removed, '7-0'), 'x')
      fs.writeFileSync(path.join(place, 'kept'), 'x')
    }
    const vm = await open()
    await removals()
    for (const place of places) t.deepEqual(fs.readdirSync(place), ['kept'])
    await abandon(vm)
    await vm.release()
  }
)
