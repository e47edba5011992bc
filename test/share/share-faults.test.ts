/**
 * Every call of every operation fails once with every error, before and after it was carried out. At every moment a
 * final name shows old or new content, never anything else; success is reported only for what is there; a retry succeeds.
 */
import fs from 'node:fs'
import path from 'node:path'
import test from 'ava'
import { ShareError } from '../../src/base/errors.js'
import { sha256Hex } from '../../src/base/digest.js'
import { Share } from '../../src/share/share.js'
import { FaultyShare } from '../support/faulty-share.js'
import { temporaryDirectory } from '../support/make-vm.js'

const FAULTS = [
  ...['EIO', 'ENOSPC', 'EDQUOT', 'ESTALE', 'EROFS', 'EACCES', 'ENOENT', 'EEXIST'].map((errno) => ({
    errno,
    after: false
  })),
  ...['EIO', 'ETIMEDOUT', 'ENOENT'].map((errno) => ({ errno, after: true }))
]
const OLD = Buffer.alloc(3000, 'old ')
const NEW = Buffer.alloc(5000, 'new!')
const CHUNK = `chunks/${sha256Hex(NEW).slice(0, 2)}/${sha256Hex(NEW)}`
const FILES = new Map([
  ['manifest.json', NEW],
  ['manifest.sha256', Buffer.from('digest')]
])

interface Operation {
  readonly title: string
  readonly prepare: (share: Share) => void
  readonly run: (share: Share) => void
  /** what a final name shows: anything but 'old' and 'new' is a broken promise */
  readonly look: (root: string) => string
}

const operations: Operation[] = [
  {
    title: 'replacing a file',
    prepare: (share) => share.write('vm.json', OLD),
    run: (share) => share.write('vm.json', NEW),
    look: (root) => contentOf(path.join(root, 'vm.json'))
  },
  {
    title: 'writing a chunk',
    prepare: () => undefined,
    run: (share) => void share.writeContentNamed(CHUNK, NEW),
    look: (root) => contentOf(path.join(root, CHUNK))
  },
  {
    title: 'writing a chunk that is there',
    prepare: (share) => void share.writeContentNamed(CHUNK, NEW),
    run: (share) => void share.writeContentNamed(CHUNK, NEW),
    look: (root) => contentOf(path.join(root, CHUNK))
  },
  {
    title: 'creating a directory',
    prepare: () => undefined,
    run: (share) => share.createDirectory('generations/00000001', FILES),
    look: (root) => {
      const directory = path.join(root, 'generations/00000001')
      if (!fs.existsSync(directory)) return 'old'
      const whole = [...FILES].every(([name, bytes]) => bytes.equals(fs.readFileSync(path.join(directory, name))))
      return whole && fs.readdirSync(directory).length === FILES.size ? 'new' : 'something else'
    }
  }
]

function contentOf(file: string): string {
  if (!fs.existsSync(file)) return 'old'
  const bytes = fs.readFileSync(file)
  return bytes.equals(NEW) ? 'new' : bytes.equals(OLD) ? 'old' : 'something else'
}

for (const { title, prepare, run, look } of operations) {
  test(`${title}: whatever fails, a final name is old or new`, (t) => {
    const root = temporaryDirectory('faults')
    const problems: string[] = []
    let cases = 0
    for (const { errno, after } of FAULTS) {
      for (let call = 1, wasReached = true; wasReached; call++) {
        const vm = path.join(root, `${errno}-${String(call)}-${String(after)}`)
        fs.mkdirSync(vm)
        prepare(new FaultyShare(vm).share)
        const expect = (good: boolean, what: string): void => {
          if (!good) problems.push(`${errno} ${after ? 'after' : 'instead of'} call ${String(call)}: ${what}`)
        }
        const watch = (): void => expect(look(vm) === 'old' || look(vm) === 'new', 'unfinished bytes were seen')
        const faulty = new FaultyShare(vm, { call, errno, after }, { pieceBytesMax: 1777, afterEachCall: watch })
        try {
          run(faulty.share)
          expect(look(vm) === 'new', 'success was reported without it')
        } catch (error) {
          expect(error instanceof ShareError, String(error))
        }
        wasReached = faulty.wasReached
        run(new FaultyShare(vm).share)
        expect(look(vm) === 'new', 'the retry did not help')
        fs.rmSync(vm, { recursive: true })
        cases++
      }
    }
    t.deepEqual(problems, [])
    t.true(cases > 100, `${String(cases)} cases`)
  })
}

test('a read whose file was replaced on the server meanwhile reads its successor; a sync is never tried twice', (t) => {
  const root = temporaryDirectory('stale')
  new Share(root).write('beat.json', NEW)
  for (const only of ['openSync', 'readSync', 'fstatSync'] as const) {
    const faulty = new FaultyShare(root, { call: 1, errno: 'ESTALE', only })
    t.true(faulty.share.read('beat.json', 10_000).equals(NEW), only)
    t.true(faulty.wasReached)
  }
  const faulty = new FaultyShare(root, { call: 1, errno: 'ESTALE', only: 'fsyncSync' })
  t.throws(() => faulty.share.syncDirectory('.'), { instanceOf: ShareError, message: /make durable/ })
})

test('errors at the end of a write count: a failed fsync or close is a failed write', (t) => {
  for (const only of ['writeSync', 'fsyncSync', 'closeSync'] as const) {
    const root = temporaryDirectory('late')
    new Share(root).makeDirectory('tmp')
    const faulty = new FaultyShare(root, { call: 1, errno: 'EDQUOT', only })
    t.throws(() => faulty.share.write('file', NEW), {
      instanceOf: ShareError,
      message: /quota on the share is used up/
    })
    t.false(fs.existsSync(path.join(root, 'file')))
    t.deepEqual(fs.readdirSync(path.join(root, 'tmp')), [], 'nothing is left')
  }
})

test('everything is durable before its name: data, then the directory, and new directories in theirs', (t) => {
  const faulty = new FaultyShare(temporaryDirectory('order'))
  faulty.share.writeContentNamed(CHUNK, NEW)
  const { calls } = faulty
  const rename = calls.indexOf('renameSync')
  t.true(calls.lastIndexOf('writeSync', rename) < calls.lastIndexOf('fsyncSync', rename))
  t.true(calls.lastIndexOf('fsyncSync') > rename)
  // the file and its directory; the directories that hold tmp, chunks, and chunks/ab
  t.is(calls.filter((name) => name === 'fsyncSync').length, 5)
})

test('after an unclear rename of a directory its temporary name is left alone: it may still become the final one', (t) => {
  const root = temporaryDirectory('pending')
  const faulty = new FaultyShare(root, { call: 1, errno: 'ETIMEDOUT', only: 'renameSync' })
  t.throws(() => faulty.share.createDirectory('generations/00000002', FILES), { instanceOf: ShareError })
  const [pending = ''] = fs.readdirSync(path.join(root, 'tmp'))
  fs.renameSync(path.join(root, 'tmp', pending), path.join(root, 'generations/00000002'))
  t.deepEqual(fs.readdirSync(path.join(root, 'generations/00000002')).sort(), [...FILES.keys()])
})

test('a lost race is one even when the answer to rename is all that tells: what the winner wrote stays', (t) => {
  for (const errno of ['ENOTEMPTY', 'EEXIST', 'EIO', 'EACCES']) {
    const root = temporaryDirectory('race')
    new Share(root).createDirectory('leases/00000001', new Map([['lease.json', OLD]]))
    const faulty = new FaultyShare(root, { call: 1, errno, only: 'renameSync' })
    t.notThrows(() => faulty.share.createDirectory('leases/00000001', new Map([['lease.json', NEW]])))
    t.true(fs.readFileSync(path.join(root, 'leases/00000001/lease.json')).equals(OLD))
  }
})
