/** The share's directory: what is read, what is refused, and what is written exclusively. */
import { execFileSync } from 'node:child_process'
import fs from 'node:fs'
import path from 'node:path'
import test from 'ava'
import { IntegrityError, ShareError } from '../../src/base/errors.js'
import { sha256Hex } from '../../src/base/digest.js'
import { nodeFileSystem } from '../../src/share/file-system.js'
import { Share } from '../../src/share/share.js'
import { FaultyShare } from '../support/faulty-share.js'
import { temporaryDirectory } from '../support/make-vm.js'

const content = Buffer.alloc(100_000, 'content')
const name = `chunks/${sha256Hex(content).slice(0, 2)}/${sha256Hex(content)}`

test('a rename that reports failure after it happened is believed only after looking', (t) => {
  const root = temporaryDirectory('rename')
  const liar = {
    ...nodeFileSystem,
    renameSync: (from: fs.PathLike, to: fs.PathLike) => {
      fs.renameSync(from, to)
      throw Object.assign(new Error('retransmitted'), { code: 'ENOENT' })
    }
  }
  const share = new Share(root, liar)
  share.write('vm.json', content)
  t.is(share.size('vm.json'), content.length)
  share.createDirectory('generations/00000001', new Map([['manifest.json', content]]))
  t.deepEqual(share.list('generations/00000001'), ['manifest.json'])
})

test('exclusive creation: the second one changes nothing and leaves nothing behind', (t) => {
  const share = new Share(temporaryDirectory('exclusive'))
  share.createDirectory('leases/00000001', new Map([['lease.json', Buffer.from('first')]]))
  share.createDirectory('leases/00000001', new Map([['lease.json', Buffer.from('second')]]))
  t.is(share.read('leases/00000001/lease.json', 100).toString(), 'first')
  t.deepEqual(share.list('tmp'), [])
})

test('a file of another client that was missing before is found, although opening its name still says it is missing', (t) => {
  const root = temporaryDirectory('negative')
  let isRemembered = true
  const nfsClient = {
    ...nodeFileSystem,
    openSync: ((file: string, ...rest: [string | number]) => {
      if (isRemembered && file.endsWith('released.json')) throw Object.assign(new Error('cached'), { code: 'ENOENT' })
      return fs.openSync(file, ...rest)
    }) as typeof fs.openSync,
    readdirSync: ((directory: string) => {
      isRemembered = false
      return fs.readdirSync(directory)
    }) as typeof fs.readdirSync
  }
  const share = new Share(root, nfsClient)
  fs.mkdirSync(path.join(root, 'leases'))
  t.is(share.readListed('leases/released.json', 100), undefined)
  fs.writeFileSync(path.join(root, 'leases', 'released.json'), 'released')
  isRemembered = true
  t.is(share.readListed('leases/released.json', 100)?.toString(), 'released')
})

test('files that NFS clients keep for those who have them open are in no listing', (t) => {
  const root = temporaryDirectory('silly')
  fs.writeFileSync(path.join(root, '.nfs000000000000003400000006'), '')
  fs.writeFileSync(path.join(root, 'vm.json'), '')
  t.deepEqual(new Share(root).list('.'), ['vm.json'])
})

test('a directory that cannot be made says why, also when several are missing', (t) => {
  const root = temporaryDirectory('read-only')
  const readOnly = {
    ...nodeFileSystem,
    mkdirSync: (() => {
      throw Object.assign(new Error('EROFS'), { code: 'EROFS' })
    }) as typeof fs.mkdirSync
  }
  const error = t.throws(() => new Share(root, readOnly).makeDirectory('chunks/23'), { instanceOf: ShareError })
  t.is(error.message, `cannot create the directory ${root}/chunks: the share is read-only`)
})

test('only regular files of the expected size are read: no links, no fifos, no directories, nothing huge', (t) => {
  const share = new Share(temporaryDirectory('read'))
  fs.writeFileSync(share.pathOf('file'), content)
  fs.symlinkSync('file', share.pathOf('link'))
  execFileSync('mkfifo', [share.pathOf('fifo')])
  fs.mkdirSync(share.pathOf('directory'))
  t.is(share.read('file', 1e6).length, content.length)
  t.throws(() => share.read('file', 10), { instanceOf: IntegrityError, message: /more than/ })
  t.throws(() => share.readRange('file', 99_999, 2), { instanceOf: IntegrityError, message: /ends at byte/ })
  t.throws(() => share.read('link', 1e6), { instanceOf: ShareError, message: /symbolic link/ })
  t.throws(() => share.read('fifo', 1e6), { instanceOf: IntegrityError })
  t.throws(() => share.read('directory', 1e6))
  const missing = t.throws(() => share.read('missing', 1), { instanceOf: ShareError })
  t.is(missing.errno, 'ENOENT')
  t.is(share.size('missing'), undefined)
  t.false(share.exists('missing'))
  t.true(share.exists('link'))
  t.true(share.freeBytes() > 0)
  t.throws(() => new Share(path.join(share.root, 'nowhere')).freeBytes(), { instanceOf: ShareError })
})

test('messages say what is wrong with the share', (t) => {
  const explained: [string, RegExp][] = [
    ['ENOSPC', /full/],
    ['EDQUOT', /quota/],
    ['EROFS', /read-only/],
    ['EACCES', /permission/],
    ['ESTALE', /stale/],
    ['EIO', /EIO|injected/]
  ]
  for (const [errno, message] of explained) {
    const faulty = new FaultyShare(temporaryDirectory('say'), { call: 1, errno, only: 'mkdirSync' })
    t.throws(() => faulty.share.makeDirectory('chunks'), { instanceOf: ShareError, message })
  }
})

test('no part of a name may be a symbolic link: nothing is read, made or removed outside of the VM', (t) => {
  const outside = temporaryDirectory('outside')
  fs.mkdirSync(path.join(outside, '00000001'))
  fs.writeFileSync(path.join(outside, '00000001', 'precious'), 'precious')
  const share = new Share(temporaryDirectory('links'))
  fs.symlinkSync(outside, share.pathOf('leases'))
  const link = { instanceOf: IntegrityError, message: /leases is a symbolic link/ }
  t.throws(() => share.list('leases'), link)
  t.throws(() => share.read('leases/00000001/precious', 100), link)
  t.throws(() => share.readRange('leases/00000001/precious', 0, 1), link)
  t.throws(() => share.size('leases/00000001/precious'), link)
  t.throws(() => share.makeDirectory('leases/00000002'), link)
  t.throws(() => share.write('leases/00000001/precious', content), link)
  t.throws(() => share.createDirectory('leases/00000002', new Map()), link)
  t.throws(() => share.remove('leases/00000001'), link)
  t.throws(() => share.touch('leases/00000001/precious'), link)
  share.removeQuietly('leases/00000001')
  t.is(fs.readFileSync(path.join(outside, '00000001', 'precious'), 'utf8'), 'precious')
  t.deepEqual(fs.readdirSync(outside), ['00000001'])
  share.remove('leases')
  t.true(fs.existsSync(path.join(outside, '00000001', 'precious')), 'removing the link removes the link')
  fs.rmSync(share.pathOf('tmp'), { recursive: true })
  fs.symlinkSync(outside, share.pathOf('tmp'))
  t.throws(() => share.write('vm.json', content), { instanceOf: IntegrityError, message: /tmp is a symbolic link/ })
  t.throws(() => share.read('../other', 1), { message: /upwards/ })
})

test('a chunk that is there whole is kept and dated anew; a damaged or cut one is written again', (t) => {
  const share = new Share(temporaryDirectory('chunk'))
  const longAgo = new Date('2001-02-03')
  t.true(share.writeContentNamed(name, content))
  fs.utimesSync(share.pathOf(name), longAgo, longAgo)
  t.false(share.writeContentNamed(name, content))
  t.true(fs.statSync(share.pathOf(name)).mtimeMs > Date.now() - 3_600_000)
  fs.writeFileSync(share.pathOf(name), Buffer.alloc(content.length))
  t.true(share.writeContentNamed(name, content), 'the same size with other bytes')
  fs.truncateSync(share.pathOf(name), 10)
  t.true(share.writeContentNamed(name, content), 'cut')
  t.true(fs.readFileSync(share.pathOf(name)).equals(content))
  const faulty = new FaultyShare(share.root, { call: 1, errno: 'EPERM', only: 'utimesSync' })
  t.true(faulty.share.writeContentNamed(name, content), 'not to be dated by this user')
  t.deepEqual(share.list('tmp'), [])
})

test('a file that shrinks while it is read is damaged, one that comes in pieces is not', (t) => {
  const root = temporaryDirectory('pieces')
  fs.writeFileSync(path.join(root, 'file'), content)
  t.true(new FaultyShare(root, undefined, { pieceBytesMax: 999 }).share.read('file', 1e6).equals(content))
  let calls = 0
  const afterEachCall = (): void => {
    if (++calls === 6) fs.truncateSync(path.join(root, 'file'), 1500)
  }
  const shrinking = new FaultyShare(root, undefined, { pieceBytesMax: 999, afterEachCall })
  t.throws(() => shrinking.share.read('file', 1e6), {
    instanceOf: IntegrityError,
    message: /ends at byte \d+, but 100000/
  })
})

test.serial('the clock of the server is asked again when that of this machine was set', (t) => {
  const share = new Share(temporaryDirectory('clock'))
  const now = Date.now
  const before = share.serverNowMs()
  t.teardown(() => {
    Date.now = now
  })
  const dayMs = 86_400_000
  Date.now = () => now() + dayMs
  t.true(Math.abs(share.serverNowMs() - before) < dayMs / 2, 'a grace is not over because somebody has set a clock')
  Date.now = () => now() - dayMs
  t.true(Math.abs(share.serverNowMs() - before) < dayMs / 2)
  t.deepEqual(share.list('tmp'), [])
})
