/** What every transport must do, over the tree in memory, in each way of serving it: the conformance suite, and each way of ending. */
import type { TestFn } from 'ava'
import { spawnSync } from 'node:child_process'
import fs from 'node:fs'
import path from 'node:path'
import { defineConformance } from './conformance.js'
import { mountMemory, type MemoryMount } from './memory-mount.js'

export const canMount = process.getuid?.() === 0 && fs.existsSync('/dev/fuse')
const served: Record<string, string[]> = {
  writeback: ['writeback', 'others'],
  'write-through': ['others'],
  'slow image': ['writeback', 'async', 'others']
}

/** Without root or FUSE every case is skipped. */
export function defineTransportSuite(test: TestFn, transport: 'binding' | 'direct'): void {
  const mount = (...words: string[]): Promise<MemoryMount> => mountMemory(transport, ...words)
  const mounts: Record<string, MemoryMount> = {}
  if (canMount) {
    test.before(async () => {
      for (const [title, words] of Object.entries(served)) mounts[title] = await mount(...words)
    })
    test.after.always(async () => {
      await Promise.all(Object.values(mounts).map((each) => each.remove()))
    })
  }
  const define = canMount ? test : skipping(test)
  for (const title of Object.keys(served)) {
    defineConformance(define, {
      title,
      directory: () => mounts[title]!.directory,
      others: true,
      hardLinks: transport === 'direct'
    })
  }

  define.serial(
    'what was unlinked leaves nothing behind, and the order of the end is DESTROY, drained, closed',
    async (t) => {
      const mounted = await mount('writeback')
      try {
        const descriptor = fs.openSync(path.join(mounted.directory, 'gone'), 'w+')
        fs.unlinkSync(path.join(mounted.directory, 'gone'))
        fs.writeFileSync(path.join(mounted.directory, 'stays'), 'x')
        await t.throwsAsync(mounted.unmount(), { message: /busy/ })
        fs.closeSync(descriptor)
        t.is(await mounted.unmount(), 0)
        t.deepEqual(mounted.lines, ['mounted', 'ended', 'drained', 'closed handles=0 inodes=2 names=["stays"]'])
      } finally {
        await mounted.remove()
      }
    }
  )

  define.serial(
    'a lazily detached mount ends only when its last file is closed, and keeps what is written until then',
    async (t) => {
      const mounted = await mount('writeback')
      try {
        const descriptor = fs.openSync(path.join(mounted.directory, 'f'), 'w+')
        t.is(spawnSync('fusermount3', ['-uz', mounted.directory]).status, 0)
        t.deepEqual(fs.readdirSync(mounted.directory), [])
        fs.writeSync(descriptor, 'late')
        fs.fsyncSync(descriptor)
        t.deepEqual(mounted.lines, ['mounted'])
        fs.closeSync(descriptor)
        t.is(await mounted.exited, 0)
        t.deepEqual(mounted.lines, ['mounted', 'ended', 'drained', 'closed handles=0 inodes=2 names=["f"]'])
      } finally {
        await mounted.remove()
      }
    }
  )

  define.serial('giving up with close() takes the mount away while files are open', async (t) => {
    const mounted = await mount('writeback', 'close-on-term')
    try {
      const descriptor = fs.openSync(path.join(mounted.directory, 'f'), 'w+')
      mounted.terminate()
      t.is(await mounted.exited, 0)
      t.throws(() => {
        fs.writeSync(descriptor, 'x')
        fs.fsyncSync(descriptor)
      })
      t.throws(() => fs.closeSync(descriptor), { code: 'ENOTCONN' })
    } finally {
      await mounted.remove()
    }
  })

  define.serial('a read-only mount refuses every change with EROFS', async (t) => {
    const mounted = await mount('read-only')
    try {
      const at = (name: string) => path.join(mounted.directory, name)
      t.throws(() => fs.writeFileSync(at('f'), ''), { code: 'EROFS' })
      t.throws(() => fs.mkdirSync(at('d')), { code: 'EROFS' })
      t.throws(() => fs.symlinkSync('x', at('l')), { code: 'EROFS' })
      t.throws(() => fs.chmodSync(mounted.directory, 0o700), { code: 'EROFS' })
      t.throws(() => fs.utimesSync(mounted.directory, 1, 1), { code: 'EROFS' })
      t.deepEqual(fs.readdirSync(mounted.directory), [])
      t.regex(fs.readFileSync('/proc/self/mountinfo', 'utf8'), new RegExp(`${mounted.directory} ro,`))
    } finally {
      await mounted.remove()
    }
  })

  define.serial('the mount carries nosuid, nodev, its type and the name of its VM', async (t) => {
    const mounted = await mount('writeback')
    try {
      const line = fs
        .readFileSync('/proc/self/mountinfo', 'utf8')
        .split('\n')
        .find((at) => at.includes(mounted.directory))
      t.regex(line ?? '', /nosuid,nodev.* - fuse\.isrfs in-memory .*default_permissions/)
    } finally {
      await mounted.remove()
    }
  })
}

function skipping(all: TestFn): TestFn {
  // the suite only uses test.serial, whose skipping form takes the same arguments
  return { serial: Object.assign(all.serial.skip, { skip: all.serial.skip }) } as unknown as TestFn
}
