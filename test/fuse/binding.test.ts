/** The conformance suite against the binding, over the tree in memory, in each way of serving it. */
import test, { type TestFn } from 'ava'
import { spawnSync } from 'node:child_process'
import fs from 'node:fs'
import path from 'node:path'
import { defineConformance } from './conformance.js'
import { mountMemory, type MemoryMount } from './memory-mount.js'

const canMount = process.getuid?.() === 0 && fs.existsSync('/dev/fuse')
const mounts: Record<string, MemoryMount> = {}
const served: Record<string, string[]> = {
  writeback: ['writeback', 'others'],
  'write-through': ['others'],
  'slow image': ['writeback', 'async', 'others']
}

if (canMount) {
  test.before(async () => {
    for (const [title, words] of Object.entries(served)) mounts[title] = await mountMemory(...words)
  })
  test.after.always(async () => {
    await Promise.all(Object.values(mounts).map((mount) => mount.remove()))
  })
}

const define = canMount ? test : skipping(test)
for (const title of Object.keys(served)) {
  defineConformance(define, { title, directory: () => mounts[title]!.directory, others: true })
}

define.serial(
  'what was unlinked leaves nothing behind, and the order of the end is DESTROY, drained, closed',
  async (t) => {
    const mount = await mountMemory('writeback')
    try {
      const descriptor = fs.openSync(path.join(mount.directory, 'gone'), 'w+')
      fs.unlinkSync(path.join(mount.directory, 'gone'))
      fs.writeFileSync(path.join(mount.directory, 'stays'), 'x')
      t.throws(() => fs.writeFileSync(path.join(mount.directory, '.fuse_hidden0000000100000002'), ''), {
        code: 'EPERM'
      })
      await t.throwsAsync(mount.unmount(), { message: /busy/ })
      fs.closeSync(descriptor)
      t.is(await mount.unmount(), 0)
      t.deepEqual(mount.lines, ['mounted', 'ended', 'drained', 'closed handles=0 inodes=2 names=["stays"]'])
    } finally {
      await mount.remove()
    }
  }
)

define.serial(
  'a lazily detached mount ends only when its last file is closed, and keeps what is written until then',
  async (t) => {
    const mount = await mountMemory('writeback')
    try {
      const descriptor = fs.openSync(path.join(mount.directory, 'f'), 'w+')
      t.is(spawnSync('fusermount3', ['-uz', mount.directory]).status, 0)
      t.deepEqual(fs.readdirSync(mount.directory), [])
      fs.writeSync(descriptor, 'late')
      fs.fsyncSync(descriptor)
      t.deepEqual(mount.lines, ['mounted'])
      fs.closeSync(descriptor)
      t.is(await mount.exited, 0)
      t.deepEqual(mount.lines, ['mounted', 'ended', 'drained', 'closed handles=0 inodes=2 names=["f"]'])
    } finally {
      await mount.remove()
    }
  }
)

define.serial('giving up with close() takes the mount away while files are open', async (t) => {
  const mount = await mountMemory('writeback', 'close-on-term')
  try {
    const descriptor = fs.openSync(path.join(mount.directory, 'f'), 'w+')
    mount.terminate()
    t.is(await mount.exited, 0)
    t.throws(() => {
      fs.writeSync(descriptor, 'x')
      fs.fsyncSync(descriptor)
    })
    t.throws(() => fs.closeSync(descriptor), { code: 'ENOTCONN' })
  } finally {
    await mount.remove()
  }
})

define.serial('a read-only mount refuses every change with EROFS', async (t) => {
  const mount = await mountMemory('read-only')
  try {
    const at = (name: string) => path.join(mount.directory, name)
    t.throws(() => fs.writeFileSync(at('f'), ''), { code: 'EROFS' })
    t.throws(() => fs.mkdirSync(at('d')), { code: 'EROFS' })
    t.throws(() => fs.symlinkSync('x', at('l')), { code: 'EROFS' })
    t.throws(() => fs.chmodSync(mount.directory, 0o700), { code: 'EROFS' })
    t.throws(() => fs.utimesSync(mount.directory, 1, 1), { code: 'EROFS' })
    t.deepEqual(fs.readdirSync(mount.directory), [])
    t.regex(fs.readFileSync('/proc/self/mountinfo', 'utf8'), new RegExp(`${mount.directory} ro,`))
  } finally {
    await mount.remove()
  }
})

define.serial('the mount carries nosuid, nodev, its type and the name of its VM', async (t) => {
  const mount = await mountMemory('writeback')
  try {
    const line = fs
      .readFileSync('/proc/self/mountinfo', 'utf8')
      .split('\n')
      .find((at) => at.includes(mount.directory))
    t.regex(line ?? '', /nosuid,nodev.* - fuse\.isrfs in-memory .*default_permissions/)
  } finally {
    await mount.remove()
  }
})

function skipping(all: TestFn): TestFn {
  // the suite only uses test.serial, whose skipping form takes the same arguments
  return { serial: Object.assign(all.serial.skip, { skip: all.serial.skip }) } as unknown as TestFn
}
