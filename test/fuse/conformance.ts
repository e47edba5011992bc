/**
 * What any mount of a VM must do for programs, whoever serves it: one list of cases, each given an empty directory of
 * its own inside the mount. Run it against every transport and against the real daemon with `defineConformance`.
 * The process that runs the cases must not be the one that serves the mount.
 *
 * Node cannot mmap, fallocate, seek for holes or rename with flags: a line of python3 does. Cases that act as another
 * user need root and a mount with allowOther.
 */
import type { ExecutionContext, TestFn } from 'ava'
import { spawnSync } from 'node:child_process'
import fs from 'node:fs'
import path from 'node:path'

export interface ConformanceCase {
  readonly title: string
  /** acts as another user */
  readonly asOthers?: boolean
  /** only where hard links are kept, or only where they are refused */
  readonly hardLinks?: boolean
  readonly run: (t: ExecutionContext, directory: string) => void
}

export interface ConformanceTarget {
  readonly title: string
  /** a directory inside the mount; asked for when a case starts */
  readonly directory: () => string
  /** whether the mount lets other users in */
  readonly others: boolean
  /** whether the transport keeps hard links */
  readonly hardLinks: boolean
}

/** Defines one serial ava test per case: they share a mount, and some fill its caches. */
export function defineConformance(test: TestFn, target: ConformanceTarget): void {
  const others = target.others && process.getuid?.() === 0
  for (const [index, { title, asOthers, hardLinks, run }] of conformanceCases.entries()) {
    if (hardLinks !== undefined && hardLinks !== target.hardLinks) continue
    const define = asOthers === true && !others ? test.serial.skip : test.serial
    define(`${target.title}: ${title}`, (t) => {
      const directory = path.join(target.directory(), `case ${index}`)
      fs.mkdirSync(directory)
      fs.chmodSync(directory, 0o777)
      run(t, directory)
      fs.rmSync(directory, { recursive: true })
    })
  }
}

/** Runs a line of python3 with the arguments in `a`; answers what it printed. */
function python(script: string, ...words: string[]): string {
  const prelude = 'import os,sys,mmap,errno,ctypes,stat\na=sys.argv[1:]\nlibc=ctypes.CDLL(None,use_errno=True)\n'
  const { status, stdout, stderr } = spawnSync('python3', ['-c', prelude + script, ...words], { encoding: 'utf8' })
  if (status !== 0) throw new Error(`python3: ${stderr}`)
  return stdout.trim()
}

/** renameat2 with flags; answers "ok" or the errno's name. */
function renameWithFlags(source: string, target: string, flags: number): string {
  return python(
    `r=libc.renameat2(-100,a[0].encode(),-100,a[1].encode(),int(a[2]))\n` +
      `print('ok' if r==0 else errno.errorcode[ctypes.get_errno()])`,
    source,
    target,
    String(flags)
  )
}

/** fallocate with FALLOC_FL_* bits; answers "ok" or the errno's name. */
function fallocate(file: string, mode: number, offset: number, length: number): string {
  return python(
    `fd=os.open(a[0],os.O_RDWR)\nr=libc.fallocate64(fd,int(a[1]),ctypes.c_int64(int(a[2])),ctypes.c_int64(int(a[3])))\n` +
      `print('ok' if r==0 else errno.errorcode[ctypes.get_errno()])`,
    file,
    String(mode),
    String(offset),
    String(length)
  )
}

function asNobody(...command: string[]): { status: number | null; output: string } {
  const words = ['--reuid=65534', '--regid=65534', '--clear-groups', ...command]
  const { status, stdout, stderr } = spawnSync('setpriv', words, { encoding: 'utf8' })
  return { status, output: stdout + stderr }
}

function throwsErrno(t: ExecutionContext, code: string, action: () => unknown): void {
  t.throws(action, { code })
}

const KEEP_SIZE = 1
const PUNCH_HOLE = 2
const COLLAPSE_RANGE = 8
const ZERO_RANGE = 16
const NOREPLACE = 1
const EXCHANGE = 2
const GIB = 2 ** 30

/**
 * copy_file_range from pages that only the kernel has (written, mapped, a hole between them) into a file that is not written back
 * either, compared with a bytearray; then both files are written to. Arguments: source, target.
 */
const COPY_RANGE = `
i=os.open(a[0],os.O_RDWR|os.O_CREAT,0o644); o=os.open(a[1],os.O_RDWR|os.O_CREAT,0o644)
want=bytearray(600100)
def put(at,what):
    os.pwrite(i,what,at); want[at:at+len(what)]=what
put(0,b's'*200000); put(500000,bytes(range(250))*400); put(600000,b'end'+b'!'*97)
with mmap.mmap(i,4096,offset=8192) as m:
    m[100:106]=b'mapped'; want[8292:8298]=b'mapped'
    target=bytearray(b't'*700000); os.pwrite(o,bytes(target),0)
    at,done=1000,0
    while done<500000:
        n=os.copy_file_range(i,o,500000-done,at+done,3000+done)
        if n==0: sys.exit('nothing copied at '+str(done))
        done+=n
target[3000:503000]=want[1000:501000]
def check(what,fd,expected):
    got=os.pread(fd,len(expected)+10,0)
    if got!=bytes(expected): sys.exit(what+' differs')
check('target',o,target); check('source',i,want)
if os.copy_file_range(i,o,5000,600000,700000)!=100: sys.exit('not short at the end of the source')
target+=want[600000:]; check('lengthened target',o,target)
os.pwrite(o,b'later',0); target[0:5]=b'later'; os.pwrite(i,b'LATER',0); want[0:5]=b'LATER'
os.pwrite(i,b'source only',2000); want[2000:2011]=b'source only'
check('target',o,target); check('source',i,want)
os.fsync(o); os.fsync(i)
check('synced target',o,target); check('synced source',i,want)
print('equal')
`

/** A small fsx: random operations on a file and on a bytearray, compared as it goes. Arguments: file, seed, steps. */
const RANDOM_FILE = `
import random
r=random.Random(int(a[1])); M=600000; want=bytearray(); log=[]
if os.path.exists(a[0]): os.unlink(a[0])
fd=os.open(a[0],os.O_RDWR|os.O_CREAT,0o644)
def grow(n):
    if len(want)<n: want.extend(bytes(n-len(want)))
def check(o,n):
    got=os.pread(fd,n,o)
    if got!=bytes(want[o:o+n]): sys.exit('differs at '+str((o,n))+' after '+repr(log[-12:]))
for i in range(int(a[2])):
    op=r.choice(['write']*4+['small']*2+['read']*3+['trunc','punch','zero','map','sync','reopen'])
    o=r.randrange(M); n=r.randrange(1,70000); log.append((op,o,n))
    if op in('write','small'):
        if op=='small': n=r.randrange(1,9)
        b=r.randbytes(n); assert os.pwrite(fd,b,o)==n; grow(o+n); want[o:o+n]=b
    elif op=='read': check(o,n)
    elif op=='trunc':
        os.ftruncate(fd,o); del want[o:]; grow(o)
    elif op=='punch':
        assert libc.fallocate64(fd,3,ctypes.c_int64(o),ctypes.c_int64(n))==0
        e=min(o+n,len(want))
        if e>o: want[o:e]=bytes(e-o)
    elif op=='zero':
        assert libc.fallocate64(fd,16,ctypes.c_int64(o),ctypes.c_int64(n))==0
        grow(o+n); want[o:o+n]=bytes(n)
    elif op=='map' and want:
        m=mmap.mmap(fd,len(want)); o%=len(want); n=min(n,len(want)-o)
        b=r.randbytes(n); m[o:o+n]=b; want[o:o+n]=b; m.close()
    elif op=='sync': os.fsync(fd)
    elif op=='reopen':
        os.close(fd); fd=os.open(a[0],os.O_RDWR)
    if os.fstat(fd).st_size!=len(want): sys.exit('size differs after '+repr(log[-12:]))
check(0,len(want)+1)
os.fsync(fd); os.posix_fadvise(fd,0,0,4); check(0,len(want)+1)
print('equal')
`

export const conformanceCases: readonly ConformanceCase[] = [
  {
    title: 'open(2) follows its flags',
    run: (t, directory) => {
      const file = path.join(directory, 'f')
      throwsErrno(t, 'ENOENT', () => fs.openSync(file, 'r'))
      fs.writeFileSync(file, 'hello', { flag: 'wx' })
      throwsErrno(t, 'EEXIST', () => fs.openSync(file, 'wx'))
      fs.appendFileSync(file, ' world')
      t.is(fs.readFileSync(file, 'utf8'), 'hello world')
      fs.closeSync(fs.openSync(file, 'w'))
      t.is(fs.statSync(file).size, 0)
      throwsErrno(t, 'EISDIR', () => fs.openSync(directory, 'w'))
      throwsErrno(t, 'ENOTDIR', () => fs.openSync(path.join(file, 'below'), 'r'))
    }
  },
  {
    title: 'O_APPEND writes at the end whatever the position, also beside another writer',
    run: (t, directory) => {
      const file = path.join(directory, 'f')
      const first = fs.openSync(file, 'a')
      const second = fs.openSync(file, 'a')
      for (let round = 0; round < 10; round++) {
        fs.writeSync(first, `a${round}`)
        fs.writeSync(second, `b${round}`)
      }
      fs.closeSync(first)
      fs.closeSync(second)
      t.is(fs.readFileSync(file, 'utf8'), 'a0b0a1b1a2b2a3b3a4b4a5b5a6b6a7b7a8b8a9b9')
    }
  },
  {
    title: 'a part of a page can be written through a write-only descriptor',
    run: (t, directory) => {
      const file = path.join(directory, 'f')
      fs.writeFileSync(file, Buffer.alloc(10_000, 'x'))
      const descriptor = fs.openSync(file, fs.constants.O_WRONLY)
      fs.writeSync(descriptor, 'abcd', 4094)
      fs.fsyncSync(descriptor)
      fs.closeSync(descriptor)
      t.is(fs.readFileSync(file, 'utf8').slice(4092, 4100), 'xxabcdxx')
    }
  },
  {
    title: 'many megabytes come back as they were written',
    run: (t, directory) => {
      const file = path.join(directory, 'f')
      const bytes = Buffer.alloc(9 * 2 ** 20 + 1234)
      for (let index = 0; index < bytes.length; index += 4)
        bytes.writeUInt32LE(index, Math.min(index, bytes.length - 4))
      fs.writeFileSync(file, bytes)
      t.true(fs.readFileSync(file).equals(bytes))
      t.is(fs.statSync(file).size, bytes.length)
    }
  },
  {
    title: 'offsets past 4 GiB are kept apart, and the space between reads as zeros',
    run: (t, directory) => {
      const file = path.join(directory, 'f')
      const descriptor = fs.openSync(file, 'w+')
      const places = [0, 2 ** 31, 2 ** 32 + 5, 5 * GIB + 4095, 2 ** 42]
      for (const place of places) fs.writeSync(descriptor, Buffer.from(`at ${place}`), 0, undefined, place)
      fs.fsyncSync(descriptor)
      for (const place of places) {
        const expected = `at ${place}`
        const bytes = Buffer.alloc(expected.length)
        fs.readSync(descriptor, bytes, 0, bytes.length, place)
        t.is(bytes.toString(), expected)
      }
      const between = Buffer.alloc(8192, 1)
      fs.readSync(descriptor, between, 0, 8192, 3 * GIB)
      t.true(between.every((byte) => byte === 0))
      t.is(fs.fstatSync(descriptor).size, 2 ** 42 + `at ${2 ** 42}`.length)
      fs.closeSync(descriptor)
    }
  },
  {
    title: 'a file cannot grow past 16 TiB',
    run: (t, directory) => {
      const file = path.join(directory, 'f')
      fs.writeFileSync(file, 'x')
      fs.truncateSync(file, 16 * 2 ** 40)
      t.is(fs.statSync(file).size, 16 * 2 ** 40)
      throwsErrno(t, 'EFBIG', () => fs.truncateSync(file, 16 * 2 ** 40 + 1))
      t.is(fallocate(file, 0, 16 * 2 ** 40, 1), 'EFBIG')
    }
  },
  {
    title: 'truncate cuts, grows with zeros and never shows old bytes again',
    run: (t, directory) => {
      const file = path.join(directory, 'f')
      fs.writeFileSync(file, Buffer.alloc(20_000, 'x'))
      fs.truncateSync(file, 5000)
      t.is(fs.readFileSync(file).length, 5000)
      fs.truncateSync(file, 20_000)
      const bytes = fs.readFileSync(file)
      t.is(bytes.length, 20_000)
      t.true(bytes.subarray(0, 5000).every((byte) => byte === 0x78))
      t.true(bytes.subarray(5000).every((byte) => byte === 0))
      throwsErrno(t, 'EISDIR', () => fs.truncateSync(directory, 0))
    }
  },
  {
    title: 'a shared mapping writes the file, and reads what is written',
    run: (t, directory) => {
      const file = path.join(directory, 'f')
      fs.writeFileSync(file, Buffer.alloc(3 * 4096))
      python(
        `fd=os.open(a[0],os.O_RDWR)\nm=mmap.mmap(fd,3*4096)\nm[4090:4100]=b'0123456789'\nm.flush()\n` +
          `os.pwrite(fd,b'written',9000)\nassert m[9000:9007]==b'written'\nm.close()\nos.close(fd)`,
        file
      )
      const bytes = fs.readFileSync(file)
      t.is(bytes.toString('latin1', 4090, 4100), '0123456789')
      t.is(bytes.toString('latin1', 9000, 9007), 'written')
    }
  },
  {
    title: 'fallocate grows, keeps the size, punches and zeroes',
    run: (t, directory) => {
      const file = path.join(directory, 'f')
      fs.writeFileSync(file, Buffer.alloc(16_384, 'x'))
      t.is(fallocate(file, 0, 16_384, 4096), 'ok')
      t.is(fs.statSync(file).size, 20_480)
      t.is(fallocate(file, KEEP_SIZE, 0, 1_000_000), 'ok')
      t.is(fs.statSync(file).size, 20_480)
      t.is(fallocate(file, PUNCH_HOLE | KEEP_SIZE, 4000, 5000), 'ok')
      t.is(fallocate(file, ZERO_RANGE, 12_000, 10), 'ok')
      const expected = Buffer.alloc(20_480)
      expected.fill('x', 0, 16_384)
      expected.fill(0, 4000, 9000)
      expected.fill(0, 12_000, 12_010)
      t.true(fs.readFileSync(file).equals(expected))
      t.is(fallocate(file, COLLAPSE_RANGE, 0, 4096), 'ENOTSUP') // python's name for EOPNOTSUPP
    }
  },
  {
    title: 'SEEK_DATA and SEEK_HOLE lose no byte, closed or still being written',
    run: (t, directory) => {
      const file = path.join(directory, 'f')
      const seek = `fd=os.open(a[0],os.O_RDONLY)\ndef s(o,w):\n try: return os.lseek(fd,o,w)\n except OSError as e: return errno.errorcode[e.errno]\n`
      const descriptor = fs.openSync(file, 'w+')
      fs.writeSync(descriptor, 'first', 0)
      fs.writeSync(descriptor, 'last', 8 * 2 ** 20)
      const end = 8 * 2 ** 20 + 4
      const open = python(seek + 'print(s(0,3), s(8<<20,3), s((8<<20)+4,3))', file)
      t.is(open, `0 ${8 * 2 ** 20} ENXIO`)
      fs.closeSync(descriptor)
      const closed = python(seek + 'print(s(0,3), s(8<<20,3), s((8<<20)+4,3), s(0,4)<=(8<<20)+4)', file)
      t.is(closed, `0 ${8 * 2 ** 20} ENXIO True`)
      const copy = path.join(directory, 'copy')
      t.is(spawnSync('cp', ['--sparse=auto', file, copy]).status, 0)
      t.is(fs.statSync(copy).size, end)
      t.true(fs.readFileSync(copy).equals(fs.readFileSync(file)))
    }
  },
  {
    title: 'copy_file_range copies what is not written back yet, holes too, and later writes go to one file only',
    run: (t, directory) => {
      const [source, target] = [path.join(directory, 'source'), path.join(directory, 'target')]
      t.is(python(COPY_RANGE, source, target), 'equal')
      const [read, copied] = [fs.readFileSync(source), fs.readFileSync(target)]
      t.is(read.length, 600_100)
      t.is(copied.subarray(0, 5).toString(), 'later')
      t.true(copied.subarray(5, 3000).equals(Buffer.alloc(2995, 't')), 'what lies before the copy')
      t.true(copied.subarray(8000, 503_000).equals(read.subarray(6000, 501_000)), 'the copy')
    }
  },
  {
    title: 'a file under random reads, writes, truncates, holes, mappings and reopens equals a buffer',
    run: (t, directory) => {
      const file = path.join(directory, 'f')
      for (const seed of ['1', '2', '3']) t.is(python(RANDOM_FILE, file, seed, '400'), 'equal')
    }
  },
  {
    title: 'rename replaces files and empty directories, and nothing else',
    run: (t, directory) => {
      const at = (name: string) => path.join(directory, name)
      fs.writeFileSync(at('a'), 'a')
      fs.writeFileSync(at('b'), 'b')
      fs.renameSync(at('a'), at('b'))
      t.is(fs.readFileSync(at('b'), 'utf8'), 'a')
      t.false(fs.existsSync(at('a')))
      fs.mkdirSync(at('d'))
      fs.mkdirSync(at('e'))
      fs.mkdirSync(at('e/full'))
      throwsErrno(t, 'EISDIR', () => fs.renameSync(at('b'), at('d')))
      throwsErrno(t, 'ENOTDIR', () => fs.renameSync(at('d'), at('b')))
      throwsErrno(t, 'ENOTEMPTY', () => fs.renameSync(at('d'), at('e')))
      fs.renameSync(at('e'), at('d'))
      t.deepEqual(fs.readdirSync(at('d')), ['full'])
      throwsErrno(t, 'EINVAL', () => fs.renameSync(at('d'), at('d/full/loop')))
      throwsErrno(t, 'ENOENT', () => fs.renameSync(at('nothing'), at('x')))
      fs.renameSync(at('b'), at('b'))
      t.true(fs.existsSync(at('b')))
    }
  },
  {
    title: 'renameat2 knows NOREPLACE and EXCHANGE',
    run: (t, directory) => {
      const at = (name: string) => path.join(directory, name)
      fs.writeFileSync(at('a'), 'a')
      fs.mkdirSync(at('d'))
      fs.writeFileSync(at('d/inside'), '')
      t.is(renameWithFlags(at('a'), at('d'), NOREPLACE), 'EEXIST')
      t.is(renameWithFlags(at('a'), at('d'), EXCHANGE), 'ok')
      t.deepEqual(fs.readdirSync(at('a')), ['inside'])
      t.is(fs.readFileSync(at('d'), 'utf8'), 'a')
      t.is(renameWithFlags(at('a'), at('none'), EXCHANGE), 'ENOENT')
      t.is(renameWithFlags(at('a'), at('none'), NOREPLACE), 'ok')
      t.is(renameWithFlags(at('none'), at('none/inside'), EXCHANGE), 'EINVAL')
    }
  },
  {
    title: 'a renamed directory keeps its open files',
    run: (t, directory) => {
      const at = (name: string) => path.join(directory, name)
      fs.mkdirSync(at('old/deep'), { recursive: true })
      const descriptor = fs.openSync(at('old/deep/f'), 'w+')
      fs.writeSync(descriptor, 'before')
      fs.renameSync(at('old'), at('new'))
      fs.writeSync(descriptor, ' after')
      fs.fchmodSync(descriptor, 0o600)
      t.is(fs.readFileSync(at('new/deep/f'), 'utf8'), 'before after')
      fs.closeSync(descriptor)
    }
  },
  {
    title: 'an unlinked file lives until its last close, and its directory can go before it',
    run: (t, directory) => {
      const below = path.join(directory, 'd')
      fs.mkdirSync(below)
      const file = path.join(below, 'f')
      const descriptor = fs.openSync(file, 'w+')
      fs.writeSync(descriptor, 'kept')
      fs.unlinkSync(file)
      t.deepEqual(fs.readdirSync(below), [])
      throwsErrno(t, 'ENOENT', () => fs.statSync(file))
      fs.writeFileSync(file, 'another')
      t.is(fs.fstatSync(descriptor).nlink, 0)
      fs.ftruncateSync(descriptor, 2)
      fs.writeSync(descriptor, '!', 2)
      fs.fsyncSync(descriptor)
      t.is(fs.readFileSync(file, 'utf8'), 'another')
      fs.unlinkSync(file)
      fs.rmdirSync(below)
      const bytes = Buffer.alloc(10)
      t.is(fs.readSync(descriptor, bytes, 0, 10, 0), 3)
      t.is(bytes.toString('latin1', 0, 3), 'ke!')
      fs.closeSync(descriptor)
    }
  },
  {
    title: 'a file replaced by a rename stays readable for those who have it open',
    run: (t, directory) => {
      const at = (name: string) => path.join(directory, name)
      fs.writeFileSync(at('f'), 'old')
      fs.writeFileSync(at('f.new'), 'new')
      const descriptor = fs.openSync(at('f'), 'r')
      fs.renameSync(at('f.new'), at('f'))
      t.is(fs.readFileSync(descriptor, 'utf8'), 'old')
      t.is(fs.readFileSync(at('f'), 'utf8'), 'new')
      t.deepEqual(fs.readdirSync(directory), ['f'])
      fs.closeSync(descriptor)
    }
  },
  {
    title: 'unlink and rmdir tell files from directories',
    run: (t, directory) => {
      const at = (name: string) => path.join(directory, name)
      fs.mkdirSync(at('d'))
      fs.writeFileSync(at('d/f'), '')
      throwsErrno(t, 'ENOTEMPTY', () => fs.rmdirSync(at('d')))
      throwsErrno(t, 'ENOTDIR', () => fs.rmdirSync(at('d/f')))
      throwsErrno(t, 'EISDIR', () => fs.unlinkSync(at('d')))
      throwsErrno(t, 'EEXIST', () => fs.mkdirSync(at('d')))
      fs.unlinkSync(at('d/f'))
      fs.rmdirSync(at('d'))
      throwsErrno(t, 'ENOENT', () => fs.rmdirSync(at('d')))
    }
  },
  {
    title: 'names are up to 255 bytes of UTF-8',
    run: (t, directory) => {
      const longest = 'ü'.repeat(127) + 'x'
      fs.writeFileSync(path.join(directory, longest), 'x')
      t.deepEqual(fs.readdirSync(directory), [longest])
      throwsErrno(t, 'ENAMETOOLONG', () => fs.writeFileSync(path.join(directory, longest + 'x'), ''))
      throwsErrno(t, 'ENAMETOOLONG', () => fs.statSync(path.join(directory, 'a'.repeat(256))))
      throwsErrno(t, 'ENAMETOOLONG', () => fs.mkdirSync(path.join(directory, 'a'.repeat(256))))
      throwsErrno(t, 'EILSEQ', () => fs.writeFileSync(Buffer.from(`${directory}/\xff`, 'latin1'), ''))
      t.is(fs.readdirSync(directory).length, 1)
    }
  },
  {
    title: 'hard links are refused with EPERM',
    hardLinks: false,
    run: (t, directory) => {
      fs.writeFileSync(path.join(directory, 'f'), '')
      throwsErrno(t, 'EPERM', () => fs.linkSync(path.join(directory, 'f'), path.join(directory, 'g')))
      t.is(fs.statSync(path.join(directory, 'f')).nlink, 1)
    }
  },
  {
    title: 'names of one file are one file: content, attributes, links counted, and it lives as long as any of them',
    hardLinks: true,
    run: (t, directory) => {
      const at = (name: string) => path.join(directory, name)
      const links = (name: string) => fs.statSync(at(name)).nlink
      fs.mkdirSync(at('d'))
      fs.writeFileSync(at('a'), 'first')
      fs.linkSync(at('a'), at('d/b'))
      fs.linkSync(at('d/b'), at('c'))
      t.deepEqual([links('a'), links('d/b'), links('c')], [3, 3, 3])
      t.is(fs.statSync(at('a')).ino, fs.statSync(at('d/b')).ino)
      const descriptor = fs.openSync(at('d/b'), 'r+')
      fs.writeSync(descriptor, ' and more, unflushed', 5)
      t.is(fs.readFileSync(at('c'), 'utf8'), 'first and more, unflushed')
      fs.truncateSync(at('a'), 5)
      t.is(fs.fstatSync(descriptor).size, 5)
      fs.chmodSync(at('c'), 0o604)
      t.is(fs.statSync(at('a')).mode & 0o777, 0o604)
      throwsErrno(t, 'EEXIST', () => fs.linkSync(at('a'), at('c')))
      throwsErrno(t, 'EPERM', () => fs.linkSync(at('d'), at('e')))
      throwsErrno(t, 'ENOENT', () => fs.linkSync(at('none'), at('e')))
      throwsErrno(t, 'ENAMETOOLONG', () => fs.linkSync(at('a'), at('x'.repeat(256))))
      fs.unlinkSync(at('a'))
      t.is(links('c'), 2)
      t.is(fs.readFileSync(at('d/b'), 'utf8'), 'first')
      fs.unlinkSync(at('c'))
      fs.unlinkSync(at('d/b'))
      t.is(fs.fstatSync(descriptor).nlink, 0)
      fs.writeSync(descriptor, 'F', 0)
      const bytes = Buffer.alloc(5)
      fs.readSync(descriptor, bytes, 0, 5, 0)
      t.is(bytes.toString(), 'First')
      fs.closeSync(descriptor)
      fs.rmdirSync(at('d'))
      t.deepEqual(fs.readdirSync(directory), [])
    }
  },
  {
    title: 'rename of hard links: onto itself nothing happens, over another file one name goes, exchanged they stay',
    hardLinks: true,
    run: (t, directory) => {
      const at = (name: string) => path.join(directory, name)
      fs.writeFileSync(at('a'), 'a')
      fs.linkSync(at('a'), at('b'))
      fs.renameSync(at('a'), at('b'))
      t.deepEqual(fs.readdirSync(directory).sort(), ['a', 'b'])
      t.is(renameWithFlags(at('a'), at('b'), EXCHANGE), 'ok')
      t.is(renameWithFlags(at('a'), at('b'), NOREPLACE), 'EEXIST')
      fs.writeFileSync(at('c'), 'c')
      fs.linkSync(at('c'), at('d'))
      fs.renameSync(at('a'), at('c'))
      t.is(fs.readFileSync(at('d'), 'utf8'), 'c')
      t.is(fs.statSync(at('d')).nlink, 1)
      t.is(fs.statSync(at('c')).ino, fs.statSync(at('b')).ino)
      t.is(fs.statSync(at('c')).nlink, 2)
      t.is(renameWithFlags(at('b'), at('d'), EXCHANGE), 'ok')
      t.is(fs.readFileSync(at('b'), 'utf8'), 'c')
      t.is(fs.readFileSync(at('d'), 'utf8'), 'a')
      fs.symlinkSync('x', at('l'))
      fs.linkSync(at('l'), at('m'))
      fs.unlinkSync(at('l'))
      t.is(fs.readlinkSync(at('m')), 'x')
      python(`os.mkfifo(a[0])\nos.link(a[0],a[1])`, at('p'), at('q'))
      t.is(fs.statSync(at('q')).nlink, 2)
      t.deepEqual(fs.readdirSync(directory).sort(), ['b', 'c', 'd', 'm', 'p', 'q'])
    }
  },
  {
    title: 'hard links and their removal mark the times of the file and of the directory',
    hardLinks: true,
    run: (t, directory) => {
      const at = (name: string) => path.join(directory, name)
      fs.mkdirSync(at('d'))
      fs.writeFileSync(at('f'), 'x')
      for (const step of [() => fs.linkSync(at('f'), at('d/g')), () => fs.unlinkSync(at('d/g'))]) {
        fs.utimesSync(at('d'), 1, 1)
        fs.utimesSync(at('f'), 1, 1)
        const before = fs.statSync(at('f'), { bigint: true }).ctimeNs
        while (BigInt(Date.now()) * 1_000_000n <= before + 10_000_000n) continue // file times are no finer than the kernel's tick
        step()
        t.true(fs.statSync(at('d')).mtimeMs > 1000)
        t.is(fs.statSync(at('f')).mtimeMs, 1000)
        t.true(fs.statSync(at('f'), { bigint: true }).ctimeNs > before)
      }
    }
  },
  {
    title: 'symbolic links keep their target and are not followed by lstat',
    run: (t, directory) => {
      const link = path.join(directory, 'l')
      const target = 'a/'.repeat(2000) + 'ü'
      fs.symlinkSync(target, link)
      t.is(fs.readlinkSync(link), target)
      t.true(fs.lstatSync(link).isSymbolicLink())
      t.is(fs.lstatSync(link).size, Buffer.byteLength(target))
      throwsErrno(t, 'EEXIST', () => fs.symlinkSync('x', link))
      fs.writeFileSync(path.join(directory, 'f'), 'through')
      fs.symlinkSync('f', path.join(directory, 'm'))
      t.is(fs.readFileSync(path.join(directory, 'm'), 'utf8'), 'through')
      fs.symlinkSync('loop', path.join(directory, 'loop'))
      throwsErrno(t, 'ELOOP', () => fs.readFileSync(path.join(directory, 'loop')))
      fs.lutimesSync(link, 1, 2)
      t.is(fs.lstatSync(link).mtimeMs, 2000)
    }
  },
  {
    title: 'fifos and sockets can be made',
    run: (t, directory) => {
      const at = (name: string) => path.join(directory, name)
      python(
        `os.mkfifo(a[0],0o640)\nos.mknod(a[1],stat.S_IFSOCK|0o600)\nos.mknod(a[2],stat.S_IFREG|0o604)`,
        at('p'),
        at('s'),
        at('f')
      )
      t.true(fs.statSync(at('p')).isFIFO())
      t.is(fs.statSync(at('p')).mode & 0o7777, 0o640)
      t.true(fs.statSync(at('s')).isSocket())
      t.true(fs.statSync(at('f')).isFile())
      t.is(
        python(
          `r,w=os.pipe()\nif os.fork()==0:\n open(a[0],'w').write('through'); os._exit(0)\nprint(open(a[0]).read())`,
          at('p')
        ),
        'through'
      )
    }
  },
  {
    title: 'root makes device nodes with their numbers',
    asOthers: true,
    run: (t, directory) => {
      const device = path.join(directory, 'dev')
      python(`os.mknod(a[0],stat.S_IFBLK|0o600,os.makedev(259,4660))`, device)
      t.true(fs.statSync(device).isBlockDevice())
      t.is(python(`s=os.stat(a[0]).st_rdev\nprint(os.major(s),os.minor(s))`, device), '259 4660')
    }
  },
  {
    title: 'times are kept to the nanosecond, also before 1970, with UTIME_NOW and UTIME_OMIT',
    run: (t, directory) => {
      const file = path.join(directory, 'f')
      fs.writeFileSync(file, 'x')
      python(`os.utime(a[0],ns=(1234567890123456789,-1500000001))`, file)
      let { atimeNs, mtimeNs, ctimeNs } = fs.statSync(file, { bigint: true })
      t.is(atimeNs, 1234567890123456789n)
      t.is(mtimeNs, -1500000001n)
      const now = BigInt(Date.now()) * 1_000_000n
      t.true(now - ctimeNs < 60_000_000_000n)
      const times = `t=(ctypes.c_long*4)(0,int(a[1]),7,int(a[2]))\nassert libc.utimensat(-100,a[0].encode(),ctypes.byref(t),0)==0`
      python(times, file, String(0x3ffffffe), '8') // omit atime
      ;({ atimeNs, mtimeNs, ctimeNs } = fs.statSync(file, { bigint: true }))
      t.is(atimeNs, 1234567890123456789n)
      t.is(mtimeNs, 7_000_000_008n)
      python(times, file, String(0x3fffffff), String(0x3ffffffe)) // atime now, omit mtime
      ;({ atimeNs, mtimeNs } = fs.statSync(file, { bigint: true }))
      t.true(now - atimeNs < 60_000_000_000n)
      t.is(mtimeNs, 7_000_000_008n)
    }
  },
  {
    title: 'changes mark the times of the file and of its directory',
    run: (t, directory) => {
      const at = (name: string) => path.join(directory, name)
      const long = 86_400
      const age = (name: string) => fs.utimesSync(at(name), long, long)
      const isFresh = (name: string) => fs.statSync(at(name)).mtimeMs > long * 1000
      fs.mkdirSync(at('d'))
      fs.mkdirSync(at('e'))
      const steps: [title: string, step: () => void, directories: string[]][] = [
        ['create', () => fs.writeFileSync(at('d/f'), 'x'), ['d']],
        ['mkdir', () => fs.mkdirSync(at('d/s')), ['d']],
        ['rename', () => fs.renameSync(at('d/f'), at('e/f')), ['d', 'e']],
        ['rmdir', () => fs.rmdirSync(at('d/s')), ['d']],
        ['symlink', () => fs.symlinkSync('x', at('d/l')), ['d']],
        ['unlink', () => fs.unlinkSync(at('d/l')), ['d']]
      ]
      for (const [title, step, directories] of steps) {
        age('d')
        age('e')
        step()
        for (const name of ['d', 'e']) t.is(isFresh(name), directories.includes(name), `${title} ${name}`)
      }
      age('e/f')
      fs.chmodSync(at('e/f'), 0o600)
      t.false(isFresh('e/f'))
      fs.truncateSync(at('e/f'), 0)
      t.true(isFresh('e/f'))
      age('e/f')
      fs.appendFileSync(at('e/f'), 'more')
      t.true(isFresh('e/f'))
      age('e/f')
      t.false(isFresh('e/f'))
    }
  },
  {
    title: 'a directory counts its subdirectories in its links',
    run: (t, directory) => {
      t.is(fs.statSync(directory).nlink, 2)
      fs.mkdirSync(path.join(directory, 'a'))
      fs.mkdirSync(path.join(directory, 'b'))
      t.is(fs.statSync(directory).nlink, 4)
      fs.renameSync(path.join(directory, 'a'), path.join(directory, 'b/a'))
      t.is(fs.statSync(directory).nlink, 3)
    }
  },
  {
    title: 'a directory that shrinks while it is read shows every other entry exactly once',
    run: (t, directory) => {
      const names = Array.from({ length: 700 }, (_, index) => `entry-with-a-longer-name-${index}`)
      for (const name of names) fs.writeFileSync(path.join(directory, name), '')
      const seen: string[] = []
      const reader = fs.opendirSync(directory, { bufferSize: 1 })
      for (let entry = reader.readSync(); entry !== null; entry = reader.readSync()) {
        seen.push(entry.name)
        fs.unlinkSync(path.join(directory, entry.name))
      }
      reader.closeSync()
      t.deepEqual(seen.sort(), names.sort())
      t.deepEqual(fs.readdirSync(directory), [])
    }
  },
  {
    title: 'chmod keeps set-id and sticky bits, and umask counts',
    run: (t, directory) => {
      const at = (name: string) => path.join(directory, name)
      python(
        `os.umask(0o027)\nos.close(os.open(a[0],os.O_CREAT|os.O_WRONLY,0o666))\nos.mkdir(a[1],0o777)`,
        at('f'),
        at('d')
      )
      t.is(fs.statSync(at('f')).mode & 0o7777, 0o640)
      t.is(fs.statSync(at('d')).mode & 0o7777, 0o750)
      fs.chmodSync(at('d'), 0o1777)
      fs.chmodSync(at('f'), 0o6711)
      t.is(fs.statSync(at('d')).mode & 0o7777, 0o1777)
      t.is(fs.statSync(at('f')).mode & 0o7777, 0o6711)
    }
  },
  {
    title: 'permissions hold for another user, and what he makes is his',
    asOthers: true,
    run: (t, directory) => {
      const at = (name: string) => path.join(directory, name)
      fs.writeFileSync(at('secret'), 'x', { mode: 0o600 })
      t.not(asNobody('cat', at('secret')).status, 0)
      t.is(asNobody('touch', at('his')).status, 0)
      t.is(fs.statSync(at('his')).uid, 65534)
      t.is(fs.statSync(at('his')).gid, 65534)
      t.not(asNobody('chown', '0:0', at('his')).status, 0)
      t.not(asNobody('chmod', '777', at('secret')).status, 0)
      t.is(asNobody('mkdir', at('hisdir')).status, 0)
      t.is(fs.statSync(at('hisdir')).uid, 65534)
      fs.chmodSync(directory, 0o1777)
      t.not(asNobody('rm', '-f', at('secret')).status, 0)
      t.is(asNobody('rm', at('his')).status, 0)
    }
  },
  {
    title: 'a set-group-id directory hands its group down',
    asOthers: true,
    run: (t, directory) => {
      const at = (name: string) => path.join(directory, name)
      fs.mkdirSync(at('d'))
      fs.chownSync(at('d'), 0, 1234)
      fs.chmodSync(at('d'), 0o2777)
      asNobody('touch', at('d/f'))
      asNobody('mkdir', at('d/e'))
      t.is(fs.statSync(at('d/f')).gid, 1234)
      t.is(fs.statSync(at('d/e')).gid, 1234)
      t.is(fs.statSync(at('d/e')).mode & 0o2000, 0o2000)
    }
  },
  {
    title: 'set-id bits go when another user writes, truncates or the owner changes',
    asOthers: true,
    run: (t, directory) => {
      const file = path.join(directory, 'f')
      const mode = () => fs.statSync(file).mode & 0o7777
      const renew = () => {
        fs.writeFileSync(file, 'x')
        fs.chmodSync(file, 0o6777)
      }
      renew()
      asNobody('sh', '-c', `printf y >> '${file}'`)
      t.is(mode(), 0o777)
      renew()
      asNobody('sh', '-c', `printf y > '${file}'`)
      t.is(mode(), 0o777)
      renew()
      fs.chownSync(file, 65534, 65534)
      t.is(mode(), 0o777)
    }
  },
  {
    title: 'flock(1) excludes a second holder and lets go at close',
    run: (t, directory) => {
      const file = path.join(directory, 'f')
      fs.writeFileSync(file, '')
      const script = `flock -n 9 || exit 9; flock -n '${file}' true && exit 1; exit 0`
      t.is(spawnSync('sh', ['-c', `( ${script} ) 9> '${file}'`]).status, 0)
      t.is(spawnSync('flock', ['-n', file, 'true']).status, 0)
      const record =
        `import fcntl\nf=open(a[0],'r+')\nfcntl.lockf(f,fcntl.LOCK_EX|fcntl.LOCK_NB,10)\n` +
        `if os.fork()==0:\n g=open(a[0],'r+')\n try: fcntl.lockf(g,fcntl.LOCK_EX|fcntl.LOCK_NB,10); os._exit(1)\n except OSError: os._exit(0)\n` +
        `print(os.waitstatus_to_exitcode(os.wait()[1]))`
      t.is(python(record, file), '0')
    }
  },
  {
    title: 'statfs answers with room and 255 bytes for names',
    run: (t, directory) => {
      const { bsize, blocks, bavail } = fs.statfsSync(directory)
      t.true(bsize > 0 && blocks > 0 && bavail >= 0)
      t.is(python('print(os.statvfs(a[0]).f_namemax)', directory), '255')
    }
  },
  {
    title: 'fsync, fdatasync, O_SYNC, O_DIRECT and a directory fsync work',
    run: (t, directory) => {
      const file = path.join(directory, 'f')
      const descriptor = fs.openSync(file, fs.constants.O_RDWR | fs.constants.O_CREAT | fs.constants.O_SYNC)
      fs.writeSync(descriptor, 'synced')
      fs.fdatasyncSync(descriptor)
      fs.fsyncSync(descriptor)
      fs.closeSync(descriptor)
      const opened = fs.openSync(directory, 'r')
      fs.fsyncSync(opened)
      fs.closeSync(opened)
      python(
        `fd=os.open(a[0],os.O_RDWR|os.O_DIRECT)\nm=mmap.mmap(-1,8192)\nm[:]=b'd'*8192\n` +
          `assert os.pwritev(fd,[m],4096)==8192\nassert os.preadv(fd,[m],4096)==8192\nos.close(fd)`,
        file
      )
      const bytes = fs.readFileSync(file)
      t.is(bytes.length, 12_288)
      t.is(bytes.toString('latin1', 0, 6), 'synced')
      t.true(bytes.subarray(4096).every((byte) => byte === 0x64))
    }
  }
]
