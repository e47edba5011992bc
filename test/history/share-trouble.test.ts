/** Trouble of the share is not damage: a check that cannot look ends with what stopped it, and calls nothing bad. */
import fs from 'node:fs'
import test, { type ExecutionContext } from 'ava'
import { sha256Hex } from '../../src/base/digest.js'
import { IntegrityError, ShareError } from '../../src/base/errors.js'
import { toGeneration } from '../../src/base/units.js'
import { commitTasks } from '../../src/commit/commit-tasks.js'
import { generationName, readGeneration } from '../../src/format/generations.js'
import type { BlockPlace } from '../../src/format/place.js'
import { readVmDescriptor } from '../../src/format/vm.js'
import { checkVm } from '../../src/history/check.js'
import { prune } from '../../src/history/prune.js'
import { readLive, readPage, readRoot, rootsOf } from '../../src/history/references.js'
import { repairManifests } from '../../src/history/repair-manifests.js'
import { rollBack } from '../../src/history/rollback.js'
import { acquireLease } from '../../src/share/lease.js'
import { createPin } from '../../src/share/pin.js'
import { nodeFileSystem } from '../../src/share/file-system.js'
import { Share } from '../../src/share/share.js'
import { CLIENT, type History, historyOf, ignore, OTHER } from '../support/history-bed.js'

const check = (share: Share): ReturnType<typeof checkVm> =>
  checkVm({ share, readData: false, onProgress: ignore, threads: 1 })

/** The VM's share, on which opening these files fails. */
function troubled(history: History, isTroubled: (file: string) => boolean, code: string): Share {
  const openSync: typeof fs.openSync = (file, ...rest) => {
    if (isTroubled(String(file))) throw Object.assign(new Error(code), { code })
    return fs.openSync(file, ...rest)
  }
  const share = new Share(history.share.root, { ...nodeFileSystem, openSync })
  readVmDescriptor(share)
  return share
}

function blocksOf(share: Share): BlockPlace[] {
  return [...rootsOf(readLive(share).live).values()].flatMap(({ place }) =>
    [...readRoot(share, place).values()].flatMap((page) => {
      const map = readPage(share, page)
      return [0, 1, 2, 3, 4, 5].flatMap((index) => map.place(index) ?? [])
    })
  )
}

async function withLeaseAndPin(t: ExecutionContext): Promise<History> {
  const history = await historyOf(t, 2)
  acquireLease(history.share, OTHER)
  createPin(history.share, OTHER, 1)
  return history
}

test('a check of what the share does not show for now ends with that, whatever it was looking at', async (t) => {
  const history = await withLeaseAndPin(t)
  t.deepEqual((await check(troubled(history, () => false, ''))).bad, [])
  const chunks = new Set([...rootsOf(readLive(history.share).live).values()].map(({ place }) => place.chunk))
  const files: Record<string, (file: string) => boolean> = {
    lease: (file) => file.endsWith('lease.json'),
    pin: (file) => file.endsWith('pin.json'),
    manifest: (file) => file.endsWith('00000001/manifest.json'),
    map: (file) => chunks.has(file.split('/').at(-1) ?? ''),
    chunk: (file) => file.includes('/chunks/')
  }
  for (const [name, isTroubled] of Object.entries(files)) {
    for (const code of ['EIO', 'ESTALE', 'EACCES']) {
      const error = await t.throwsAsync(check(troubled(history, isTroubled, code)), { instanceOf: ShareError }, name)
      t.is(error.errno, code)
    }
  }
})

test('blocks that cannot be read for now are not called bad', async (t) => {
  const history = await historyOf(t, 1)
  const places = blocksOf(history.share)
  t.true(places.length > 0)
  t.deepEqual(commitTasks.examine(history.share, { places }), [])
  const share = troubled(history, (file) => file.includes('/chunks/'), 'EIO')
  t.throws(() => commitTasks.examine(share, { places }), { instanceOf: ShareError })
  const [chunk] = new Set(places.map((place) => share.pathOf(`chunks/${place.chunk.slice(0, 2)}/${place.chunk}`)))
  fs.rmSync(chunk ?? '')
  t.regex(commitTasks.examine(history.share, { places })[0]?.why ?? '', /missing on the share/)
})

test('a chunk whose bytes the server cannot read, while it answers for others, is listed; nothing is when it does not', async (t) => {
  const history = await historyOf(t, 2)
  const places = blocksOf(history.share)
  let broken = places[0]?.chunk ?? ''
  const eio = (syscall: string): Error => Object.assign(new Error('EIO'), { code: 'EIO', syscall })
  let isAway = false
  const fds = new Set<number>()
  const openSync: typeof fs.openSync = (file, ...rest) => {
    if (isAway && String(file).endsWith('vm.json')) throw eio('open')
    const fd = fs.openSync(file, ...rest)
    if (String(file).endsWith(broken)) fds.add(fd)
    else fds.delete(fd)
    return fd
  }
  const readSync = (fd: number, ...rest: unknown[]): number => {
    if (!fds.has(fd)) return Reflect.apply(nodeFileSystem.readSync, undefined, [fd, ...rest]) as number // what it returns
    isAway = isDying
    throw eio('read')
  }
  let isDying = false
  const share = new Share(history.share.root, { ...nodeFileSystem, openSync, readSync })
  readVmDescriptor(share)
  const found = commitTasks.examine(share, { places })
  t.deepEqual(
    found.map(({ position }) => position),
    places.flatMap(({ chunk }, position) => (chunk === broken ? [position] : []))
  )
  t.regex(found[0]?.why ?? '', /the server cannot read its bytes/)

  broken = [...rootsOf(readLive(history.share).live).values()][0]?.place.chunk ?? ''
  const { bad } = await check(share)
  t.deepEqual(
    bad.map(({ path }) => path),
    [share.pathOf(`chunks/${broken.slice(0, 2)}/${broken}`)]
  )
  t.true((bad[0]?.suffers.length ?? 0) > 0)

  broken = places[0]?.chunk ?? ''
  isDying = true
  t.throws(() => commitTasks.examine(share, { places }), { instanceOf: ShareError })
})

/** The VM's share, whose server cannot read the bytes that these files have now. */
function withBrokenFiles(history: History, ...names: string[]): Share {
  const broken = new Set(names.map((name) => fs.statSync(history.share.pathOf(name)).ino))
  const readSync = (fd: number, ...rest: unknown[]): number => {
    if (broken.has(fs.fstatSync(fd).ino)) throw Object.assign(new Error('EIO'), { code: 'EIO', syscall: 'read' })
    return Reflect.apply(nodeFileSystem.readSync, undefined, [fd, ...rest]) as number // what it returns
  }
  const share = new Share(history.share.root, { ...nodeFileSystem, readSync })
  readVmDescriptor(share)
  return share
}

test('a manifest whose bytes the server cannot read is listed, and a copy puts it back', async (t) => {
  const history = await historyOf(t, 2)
  const name = `${generationName(1)}/manifest.json`
  const copy = fs.readFileSync(history.share.pathOf(name))
  const share = withBrokenFiles(history, name)
  const { bad } = await check(share)
  t.deepEqual(
    bad.map(({ path, suffers }) => [path, suffers.map(({ generation }) => generation)]),
    [[share.pathOf(generationName(1)), ['1']]]
  )
  t.regex(bad[0]?.why ?? '', /cannot read its bytes/)
  t.deepEqual(repairManifests(share, { needed: [], copyOf: () => undefined }).repaired, [])
  const copies = { needed: [], copyOf: (digest: string) => (digest === sha256Hex(copy) ? copy : undefined) }
  t.deepEqual(repairManifests(share, copies), { repaired: [share.pathOf(generationName(1))], failed: [] })
  t.deepEqual((await check(share)).bad, [])
  t.deepEqual(fs.readFileSync(share.pathOf(name)), copy)
})

test('a generation whose files the server cannot read keeps nothing from going on: a rollback, and a prune that gives it up by name', async (t) => {
  const history = await historyOf(t, 3)
  const newest = generationName(3)
  for (const names of [[`${newest}/manifest.json`], [`${newest}/manifest.json`, `${newest}/manifest.sha256`]]) {
    const share = withBrokenFiles(history, ...names)
    const source = readGeneration(share, toGeneration(2))
    const options = { share, name: '2', source, client: CLIENT, acceptMissing: false }
    t.is(rollBack(options)?.number, toGeneration(names.length + 3))
    const pruning = { share, client: CLIENT, keep: 9, branches: [], graceMs: 0, yes: true }
    t.throws(() => prune(pruning), { instanceOf: IntegrityError, message: /nothing is removed/ })
    if (names.length === 1) continue
    t.deepEqual(prune({ ...pruning, giveUp: ['3'] }).removed, ['3'])
    t.deepEqual((await check(share)).bad, [])
  }
  t.true((await history.contentOf(5)).equals(history.contents[1] ?? Buffer.alloc(0)))
})

test('of a share that is not mounted, chunks are not missing', async (t) => {
  const history = await historyOf(t, 1)
  const { share } = history
  const places = blocksOf(share)
  readVmDescriptor(share)
  fs.renameSync(share.root, `${share.root}.away`)
  fs.mkdirSync(share.root)
  const away = { instanceOf: ShareError, message: /is the share mounted/ }
  t.throws(() => commitTasks.examine(share, { places }), away)
  t.throws(() => commitTasks.checkChunks(share, { places }), away)
  t.throws(() => readLive(share), away)
  await t.throwsAsync(check(share), away)
  fs.rmdirSync(share.root)
  fs.renameSync(`${share.root}.away`, share.root)
  t.deepEqual((await check(share)).bad, [])
})
