/**
 * A share that is not mounted any more: the VM's directory is gone, or an empty one of the local disk is in its place. Nothing
 * of the VM is called absent then, and nothing is made there.
 */
import fs from 'node:fs'
import path from 'node:path'
import test, { type ExecutionContext } from 'ava'
import { FailedError, IntegrityError, ShareError } from '../../src/base/errors.js'
import { toGeneration } from '../../src/base/units.js'
import { findSession, listBranches, listGenerations, readGeneration } from '../../src/format/generations.js'
import { readTombstone } from '../../src/format/tombstone.js'
import { readVmDescriptor } from '../../src/format/vm.js'
import { nodeFileSystem, type ShareFileSystem } from '../../src/share/file-system.js'
import { acquireLease, beatLease, leaseStillHeld, readLease, releaseLease } from '../../src/share/lease.js'
import { createPin, readPins, removeSessionPins } from '../../src/share/pin.js'
import { Share } from '../../src/share/share.js'
import { OTHER } from '../support/history-bed.js'
import { makeVm, temporaryDirectory } from '../support/make-vm.js'

const CONTENT = Buffer.from('content')
const AWAY = { instanceOf: ShareError, message: /there is no VM at .* any more: is the share mounted\?/ }

function vm(fileSystem?: ShareFileSystem): Share {
  const root = path.join(temporaryDirectory('away'), 'vm')
  makeVm(root, new Map([['disk', CONTENT]]))
  const share = new Share(root, fileSystem)
  readVmDescriptor(share)
  return share
}

interface Way {
  readonly leave: (root: string) => void
  readonly comeBack: (root: string) => void
  /** of what was made meanwhile */
  readonly made: (root: string) => string[]
}

const comeBack = (root: string): void => {
  fs.rmSync(root, { recursive: true, force: true })
  fs.renameSync(`${root}.away`, root)
}
const ways: Readonly<Record<string, Way>> = {
  'is gone': {
    leave: (root) => fs.renameSync(root, `${root}.away`),
    comeBack,
    made: (root) => (fs.existsSync(root) ? [root] : [])
  },
  'is an empty directory of the local disk': {
    leave: (root) => {
      fs.renameSync(root, `${root}.away`)
      fs.mkdirSync(root)
    },
    comeBack,
    made: (root) => fs.readdirSync(root)
  },
  'is one in which others have made directories': {
    leave: (root) => {
      fs.renameSync(root, `${root}.away`)
      for (const name of ['tmp', 'leases', 'generations', 'pins', 'chunks/23']) {
        fs.mkdirSync(path.join(root, name), { recursive: true })
      }
    },
    comeBack,
    made: (root) =>
      fs
        .readdirSync(root, { recursive: true, withFileTypes: true })
        .filter((entry) => entry.isFile() && entry.parentPath !== path.join(root, 'tmp'))
        .map(({ name }) => name)
  }
}

function whileAway(t: ExecutionContext, share: Share, way: Way, look: () => void): void {
  way.leave(share.root)
  try {
    look()
    t.deepEqual(way.made(share.root), [])
  } finally {
    way.comeBack(share.root)
  }
}

for (const [name, way] of Object.entries(ways)) {
  test(`where the VM was ${name}: nothing is absent`, (t) => {
    const share = vm()
    const held = acquireLease(share, OTHER)
    const pin = createPin(share, OTHER, 1)
    whileAway(t, share, way, () => {
      const looks: (() => unknown)[] = [
        () => share.list('leases'),
        () => share.size('chunks/23/45'),
        () => share.read('leases/00000001/lease.json', 1e5),
        () => share.readListed('leases/00000001/released.json', 1e5),
        () => share.modifiedMs(`${pin.name}/beat.json`),
        () => listGenerations(share),
        () => listBranches(share),
        () => readGeneration(share, toGeneration(1)),
        () => findSession(share, 'ab'.repeat(16), 0),
        () => readTombstone(share, 'generations/00000001'),
        () => readPins(share),
        () => removeSessionPins(share, OTHER.client),
        () => readLease(share),
        () => leaseStillHeld(share, held),
        () => beatLease(share, held, 1),
        () => releaseLease(share, held, null),
        () => acquireLease(share, { ...OTHER, client: 'cd'.repeat(16) })
      ]
      for (const look of looks) t.throws(look, AWAY, String(look))
    })
    t.true(beatLease(share, held, 2), 'the lease is held as before')
    t.is(readLease(share)?.beat?.count, 2)
  })

  test(`where the VM was ${name}: nothing is made, and no object counts as written`, (t) => {
    const share = vm()
    whileAway(t, share, way, () => {
      t.throws(() => share.makeDirectory('trash'), AWAY)
      t.throws(() => share.createDirectory('leases/00000001', new Map([['lease.json', CONTENT]])), AWAY)
      t.throws(() => createPin(share, OTHER, 1), AWAY)
      t.throws(() => share.writeContentNamed('chunks/ab/cd', CONTENT), AWAY)
      t.throws(() => share.write('profiles/1.json', CONTENT))
    })
    t.true(share.writeContentNamed('chunks/ab/cd', CONTENT))
    t.false(share.writeContentNamed('chunks/ab/cd', CONTENT), 'it is there')
  })
}

test('a chunk that was written while the share was away does not count, although it comes back before anybody looks', (t) => {
  let isAway = false
  const share = vm({
    ...nodeFileSystem,
    renameSync: (from, to) => {
      if (!String(to).includes('chunks')) {
        fs.renameSync(from, to)
        return
      }
      // unmounted after the directory was looked for; the mountpoint has directories of the same names
      fs.renameSync(share.root, `${share.root}.away`)
      fs.mkdirSync(path.join(share.root, 'tmp'), { recursive: true })
      fs.mkdirSync(path.dirname(String(to)), { recursive: true })
      fs.writeFileSync(String(to), CONTENT)
      isAway = true
    },
    fsyncSync: (fd) => {
      fs.fsyncSync(fd)
      if (!isAway) return
      isAway = false
      comeBack(share.root)
    }
  })
  t.throws(() => share.writeContentNamed('chunks/ab/cd', CONTENT), {
    instanceOf: ShareError,
    message: /a fresh open sees 0/
  })
})

test('what is missing for one look only is not absent', (t) => {
  let absent = 0
  const once = <Result>(real: () => Result): Result => {
    if (absent-- > 0) throw Object.assign(new Error('ENOENT'), { code: 'ENOENT' })
    return real()
  }
  const share = vm({
    ...nodeFileSystem,
    openSync: (file, ...rest) =>
      String(file).endsWith('vm.json') ? fs.openSync(file, ...rest) : once(() => fs.openSync(file, ...rest)),
    readdirSync: ((directory: string) => once(() => fs.readdirSync(directory))) as typeof fs.readdirSync
  })
  absent = 1
  t.deepEqual(listGenerations(share).map(Number), [1])
  absent = 1
  t.is(Number(readGeneration(share, toGeneration(1)).number), 1)
  t.deepEqual(share.list('leases'), [], 'there are none')
  t.is(share.size('chunks/23/45'), undefined)
})

test('a lease that somebody has removed, of a VM that is there, is lost', (t) => {
  const share = vm()
  const held = acquireLease(share, OTHER)
  fs.rmSync(share.pathOf('leases'), { recursive: true })
  t.false(beatLease(share, held, 1))
})

test('another VM at the same place is not the one that was opened', (t) => {
  const share = vm()
  const held = acquireLease(share, OTHER)
  fs.renameSync(share.root, `${share.root}.away`)
  makeVm(share.root, new Map([['disk', CONTENT]]))
  t.throws(() => beatLease(share, held, 1), { instanceOf: ShareError, message: /another VM is at/ })
  t.throws(() => readVmDescriptor(share), { instanceOf: ShareError, message: /another VM is at/ })
  t.throws(() => share.writeContentNamed('chunks/ab/cd', CONTENT), { instanceOf: ShareError })
})

test('a damaged vm.json is damage, and names the way on', (t) => {
  const share = vm()
  fs.writeFileSync(share.pathOf('vm.json'), 'x')
  const error = t.throws(() => share.requireVm(), { instanceOf: IntegrityError })
  t.regex(error.hint ?? '', /--repair/)
})

test('the directory of a VM is made by whoever makes a VM, and by nothing else', (t) => {
  const root = path.join(temporaryDirectory('away'), 'vm')
  const share = new Share(root)
  const error = t.throws(() => share.makeDirectory('chunks/23'), { instanceOf: ShareError })
  t.regex(error.hint ?? '', /is the share mounted/)
  t.throws(() => share.createDirectory('leases/00000001', new Map()), { instanceOf: ShareError })
  t.false(fs.existsSync(root))
  t.throws(() => readVmDescriptor(share), { instanceOf: FailedError })
  t.deepEqual(share.list('tmp'), [], 'nobody has said that there is a VM')
  share.createRoot()
  share.createRoot()
  share.makeDirectory('chunks/23')
  t.true(fs.existsSync(path.join(root, 'chunks/23')))
})
