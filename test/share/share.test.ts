/** The share's directory with a file system that fails: final names never show unfinished bytes. */
import { execFileSync } from 'node:child_process'
import fs from 'node:fs'
import path from 'node:path'
import test from 'ava'
import { IntegrityError, ShareError } from '../../src/base/errors.js'
import { sha256Hex } from '../../src/base/digest.js'
import { nodeFileSystem } from '../../src/share/file-system.js'
import { Share } from '../../src/share/share.js'
import { FaultyFileSystem } from '../support/faulty-file-system.js'
import { temporaryDirectory } from '../support/make-vm.js'

const content = Buffer.alloc(100_000, 'content')
const name = `chunks/${sha256Hex(content).slice(0, 2)}/${sha256Hex(content)}`

test('every call of writing an object may fail with any error: the name shows everything or nothing, and a retry succeeds', (t) => {
  let cases = 0
  for (const errno of ['EIO', 'ENOSPC', 'EDQUOT', 'ESTALE', 'EROFS', 'EACCES']) {
    for (let call = 1; ; call++) {
      const root = temporaryDirectory('faulty')
      const faulty = new FaultyFileSystem({ call, errno })
      let failed = false
      try {
        new Share(root, faulty.calls).writeContentNamed(name, content)
      } catch (error) {
        failed = true
        t.true(error instanceof ShareError, String(error))
      }
      const share = new Share(root)
      const size = share.size(name)
      t.true(size === undefined || size === content.length, `${errno} at call ${String(call)}`)
      if (!failed) t.is(size, content.length)
      share.writeContentNamed(name, content)
      t.is(sha256Hex(share.read(name, 1e6)), sha256Hex(content))
      fs.rmSync(root, { recursive: true })
      cases++
      if (!faulty.wasReached) break
    }
  }
  t.true(cases > 50)
})

test('every call of creating a directory may fail: it is there whole or not at all', (t) => {
  const files = new Map([
    ['one', Buffer.from('1')],
    ['two', Buffer.from('2')]
  ])
  for (let call = 1; ; call++) {
    const root = temporaryDirectory('faulty')
    const faulty = new FaultyFileSystem({ call, errno: 'EIO' })
    try {
      new Share(root, faulty.calls).createDirectory('leases/00000001', files)
    } catch (error) {
      t.true(error instanceof ShareError)
    }
    const names = new Share(root).list('leases/00000001').sort()
    t.true(names.length === 0 || names.join() === 'one,two', `call ${String(call)}: ${names.join()}`)
    if (!faulty.wasReached) break
  }
})

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
    const faulty = new FaultyFileSystem({ call: 1, errno })
    t.throws(
      () => {
        new Share(temporaryDirectory('say'), faulty.calls).makeDirectory('chunks')
      },
      { instanceOf: ShareError, message }
    )
  }
})
