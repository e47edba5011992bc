/** What a machine may lack for a mount, each with its own message. */
import fs from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import anyTest, { type TestFn } from 'ava'
import { checkMachine, type Machine, prepareCacheDirectory, prepareDirectory } from '../../src/cli/prerequisites.js'

const test = anyTest as TestFn<{ root: string; machine: Machine }>

test.beforeEach((t) => {
  const root = fs.mkdtempSync(path.join(os.tmpdir(), 'isrfs-test-machine-'))
  const write = (name: string, text: string): string => {
    fs.writeFileSync(path.join(root, name), text, { mode: 0o755 })
    return path.join(root, name)
  }
  write('fusermount3', '')
  t.context.root = root
  t.context.machine = {
    uid: 1000,
    searchPath: `/nowhere:${root}`,
    fuseDevice: write('fuse', ''),
    fuseConfiguration: write('fuse.conf', '# user_allow_other\n'),
    maxRequestTimeout: write('max_request_timeout', '0\n')
  }
})
test.afterEach.always((t) => {
  fs.rmSync(t.context.root, { recursive: true })
})

test('a machine that has everything is accepted', (t) => {
  t.notThrows(() => checkMachine(t.context.machine, { allowOther: false }))
})

test('a missing /dev/fuse says how to get it', (t) => {
  const error = t.throws(() =>
    checkMachine({ ...t.context.machine, fuseDevice: '/nowhere/fuse' }, { allowOther: false })
  )
  t.regex(error.message, /\/nowhere\/fuse is missing/)
  t.like(error, { hint: 'as root: modprobe fuse; in a container: --device /nowhere/fuse --cap-add SYS_ADMIN' })
})

test('a missing fusermount3 names the package', (t) => {
  const error = t.throws(() => checkMachine({ ...t.context.machine, searchPath: '/nowhere' }, { allowOther: false }))
  t.like(error, { message: 'fusermount3 is not in PATH', hint: 'apt-get install fuse3' })
})

test('a kernel that ends slow mounts is refused', (t) => {
  fs.writeFileSync(t.context.machine.maxRequestTimeout, '30\n')
  t.throws(() => checkMachine(t.context.machine, { allowOther: false }), { message: /longer than 30 s/ })
})

test('--allow-other needs user_allow_other, but not for root', (t) => {
  const { machine } = t.context
  t.throws(() => checkMachine(machine, { allowOther: true }), { message: /user_allow_other/ })
  t.notThrows(() => checkMachine({ ...machine, uid: 0 }, { allowOther: true }))
  fs.writeFileSync(machine.fuseConfiguration, 'user_allow_other\n')
  t.notThrows(() => checkMachine(machine, { allowOther: true }))
})

test('a client directory is made, private, or refused with the option that names another', (t) => {
  const directory = path.join(t.context.root, 'a', 'b')
  prepareDirectory(directory, '--client-dir')
  t.is(fs.statSync(directory).mode & 0o777, 0o700)
  const error = t.throws(() => prepareDirectory('/proc/nowhere/x', '--client-dir'))
  t.like(error, { hint: 'name another directory with --client-dir, on a local disk' })
})

test('a cache directory in which others may write is refused, and so is a link that is not one of ours', (t) => {
  const { root } = t.context
  const cache = path.join(root, 'cache')
  t.notThrows(() => prepareCacheDirectory(cache))
  for (const mode of [0o777, 0o1777, 0o770]) {
    fs.chmodSync(cache, mode)
    const error = t.throws(() => prepareCacheDirectory(cache), { message: /other users may write to / })
    t.like(error, { hint: `chmod go-w ${cache}, or name another directory with --cache-dir` })
  }
  fs.chmodSync(cache, 0o755)
  t.notThrows(() => prepareCacheDirectory(cache), 'others may look at it')
  const link = path.join(root, 'link')
  fs.symlinkSync(cache, link)
  t.notThrows(() => prepareCacheDirectory(link))
  fs.chmodSync(cache, 0o777)
  t.throws(() => prepareCacheDirectory(link), { message: /other users may write/ }, 'where it leads counts')
  if (process.getuid?.() !== 0) return
  fs.chmodSync(cache, 0o700)
  fs.lchownSync(link, 4321, 4321)
  t.throws(() => prepareCacheDirectory(link), { message: /symbolic link/ })
  fs.chownSync(cache, 4321, 4321)
  const error = t.throws(() => prepareCacheDirectory(cache), { message: /belongs to another user \(4321\)/ })
  t.regex(String((error as { hint?: string }).hint), /chown -R 0 .*cache; or name another directory with --cache-dir/)
})
