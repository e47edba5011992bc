/**
 * The main job on a share that is another distributed file system than NFS: `npm run test:dfs` mounts one and names it in
 * ISRFS_DFS_SHARE; ISRFS_DFS_FAULT is a command that takes a part of it away, ISRFS_DFS_HEAL one that brings it back.
 */
import { execFile } from 'node:child_process'
import { createHash } from 'node:crypto'
import fs from 'node:fs'
import path from 'node:path'
import { promisify } from 'node:util'
import anyTest, { type TestFn } from 'ava'
import { Bed, type Result, waitFor } from '../support/bed.js'
import { Random } from '../support/random.js'

const test = anyTest as TestFn<{ bed: Bed; vm: string; random: Random }>
const run = promisify(execFile)
const share = process.env['ISRFS_DFS_SHARE'] ?? ''
const MIB = 1024 * 1024

test.beforeEach((t) => {
  t.timeout(600_000)
  const random = new Random()
  t.log(`seed ${String(random.seed)}`)
  t.context = { bed: new Bed('dfs'), vm: path.join(share, `vm-${String(random.seed)}`), random }
})
test.afterEach.always((t) => t.context.bed.destroy())

function digests(directory: string): Record<string, string> {
  return Object.fromEntries(
    fs
      .readdirSync(directory)
      .sort()
      .map((name) => [
        name,
        createHash('sha256')
          .update(fs.readFileSync(path.join(directory, name)))
          .digest('hex')
      ])
  )
}

function scatterWrites(file: string, random: Random, count: number): void {
  const fd = fs.openSync(file, 'r+')
  const { size } = fs.fstatSync(fd)
  for (let n = 0; n < count; n++)
    fs.writeSync(fd, random.bytes(1 + random.below(60_000)), 0, undefined, random.below(size))
  fs.fsyncSync(fd)
  fs.closeSync(fd)
}

async function isRun(command: string | undefined): Promise<void> {
  if (command !== undefined && command !== '') await run('sh', ['-c', command])
}

test.serial('two clients, a part of the share lost in the middle of a commit, history', async (t) => {
  const { bed, vm, random } = t.context
  const source = bed.makeDirectory('source')
  fs.writeFileSync(path.join(source, 'disk'), random.bytes(24 * MIB))
  fs.writeFileSync(path.join(source, 'nvram'), random.bytes(8684))
  await bed.mustIsrfs('a', 'import', source, vm)
  const first = await bed.mount('a', vm, 'mnt-a')
  t.deepEqual(digests(first), digests(source))
  t.is((await bed.isrfs('b', 'mount', vm, bed.makeDirectory('mnt-b'))).code, 3)
  scatterWrites(path.join(first, 'disk'), random, 300)
  fs.writeFileSync(path.join(first, 'new'), 'by a')
  const wanted = digests(first)

  const unmounting = bed.spawn(process.execPath, cli(bed, 'a', 'unmount', first))
  const ended = new Promise<number | null>((resolve) => unmounting.once('close', resolve))
  await waitFor(() => fs.readdirSync(path.join(vm, 'tmp')).length > 0, 'the commit to begin to send', 60_000)
  await isRun(process.env['ISRFS_DFS_FAULT'])
  let code = await ended
  if (code === 5) code = (await bed.mustIsrfs('a', 'recover', vm)).code
  t.is(code, 0)

  const second = await bed.mount('b', vm, 'mnt-b')
  t.deepEqual(digests(second), wanted)
  scatterWrites(path.join(second, 'disk'), random, 50)
  fs.rmSync(path.join(second, 'new'))
  const last = digests(second)
  await bed.unmount('b', second)
  await isRun(process.env['ISRFS_DFS_HEAL'])

  const checked = await bed.isrfs('a', 'check', vm, '--read-data')
  t.is(checked.code, 0, checked.stdout + checked.stderr)
  await bed.mustIsrfs('a', 'prune', vm, '--keep', '1', '--grace', '0s', '--yes')
  await bed.mustIsrfs('a', 'prune', vm, '--keep', '1', '--grace', '0s', '--yes')
  await bed.mustIsrfs('c', 'export', vm, bed.path('exported'))
  t.deepEqual(digests(bed.path('exported')), last)
})

test.serial('of two mounts at once one wins; a daemon that is killed loses nothing', async (t) => {
  const { bed, vm, random } = t.context
  const source = bed.makeDirectory('source')
  fs.writeFileSync(path.join(source, 'disk'), random.bytes(MIB))
  await bed.mustIsrfs('a', 'import', source, vm)
  for (const client of ['a', 'b']) {
    bed.rememberMount(bed.makeDirectory(`mnt-${client}`))
  }
  const results = await Promise.all(
    ['a', 'b'].map((client) => bed.isrfs(client, 'mount', vm, bed.path(`mnt-${client}`)))
  )
  t.deepEqual(results.map(({ code }: Result) => code).sort(), [0, 3])
  const winner = results[0]?.code === 0 ? 'a' : 'b'
  const mountpoint = bed.path(`mnt-${winner}`)
  scatterWrites(path.join(mountpoint, 'disk'), random, 30)
  const accepted = digests(mountpoint)
  await bed.killDaemon(winner, mountpoint)
  await bed.mustIsrfs(winner, 'mount', vm, mountpoint)
  t.deepEqual(digests(mountpoint), accepted)
  await bed.unmount(winner, mountpoint)
  await bed.mustIsrfs('c', 'export', vm, bed.path('exported'))
  t.deepEqual(digests(bed.path('exported')), accepted)
})

function cli(bed: Bed, client: string, ...args: string[]): string[] {
  return [path.resolve('build/src/cli/main.js'), '--client-dir', bed.path(`client-${client}`), ...args]
}
