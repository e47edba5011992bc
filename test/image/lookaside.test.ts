/** A share that is slow is not asked for blocks that another cache of this client has; whose caches these may be. */
import { randomBytes } from 'node:crypto'
import fs from 'node:fs'
import path from 'node:path'
import test, { type ExecutionContext } from 'ava'
import { BLOCK_BYTES, BLOCKS_PER_REGION, REGION_BYTES } from '../../src/base/units.js'
import { Cache } from '../../src/cache/cache.js'
import { noteOrigin } from '../../src/cache/origin.js'
import { SharePool } from '../../src/fetch/share-pool.js'
import type { PublishedGeneration } from '../../src/format/generations.js'
import { baseImageOf } from '../../src/image/base-image.js'
import { Images } from '../../src/image/images.js'
import type { Inode } from '../../src/session/namespace-types.js'
import { Session } from '../../src/session/session.js'
import { makeVm, temporaryDirectory } from '../support/make-vm.js'
import { Random } from '../support/random.js'

const BLOCKS = 180
/** of the disk, that differ between the two VMs */
const CHANGED = 20
/** that may be fetched until the share is known to be slow, and the caches have been looked into */
const FIRST = 40

const disk = new Random(11).bytes(BLOCKS * BLOCK_BYTES)
/** As it was cloned: other blocks at the end, and everything four blocks further on. */
const clone = Buffer.concat([
  new Random(12).bytes(4 * BLOCK_BYTES),
  disk.subarray(0, (BLOCKS - CHANGED) * BLOCK_BYTES),
  new Random(13).bytes(CHANGED * BLOCK_BYTES)
])

/** A share with VMs, and one client. */
class Client {
  readonly directory = temporaryDirectory('lookaside')
  readonly #t: ExecutionContext

  constructor(t: ExecutionContext) {
    this.#t = t
  }

  vmPath(name: string, share = 'share'): string {
    return path.join(this.directory, share, name)
  }

  make(vmPath: string, content: Buffer, more: Record<string, Buffer> = {}): PublishedGeneration {
    return makeVm(vmPath, new Map(Object.entries({ 'disk.img': content, ...more }))).generation
  }

  /** As a mount has it; the share counts as slow whatever it is. */
  open(vmPath: string, base: PublishedGeneration, slowBytesPerSecond = Infinity): Opened {
    const vmId = base.manifest.vm
    const directory = path.join(this.directory, 'cache', vmId)
    const cache = Cache.open({ directory, bytesMax: 2 ** 30, onWarning: (message) => this.#t.fail(message) })
    noteOrigin(cache.directory, vmPath)
    const session = Session.create(
      path.join(this.directory, `session-${randomBytes(4).toString('hex')}`),
      {
        sessionId: randomBytes(16).toString('hex'),
        vmId,
        client: '0123456789abcdef',
        baseGeneration: base.number,
        baseDigest: base.digest,
        createdIso: new Date().toISOString(),
        leaseNumber: null,
        discard: true
      },
      baseImageOf(base.manifest)
    )
    const pool = new SharePool(vmPath, { threads: 2 })
    const images = new Images({
      session,
      cache,
      pool,
      slowBytesPerSecond,
      onDamage: (message) => this.#t.fail(message),
      onWarning: () => undefined
    })
    return new Opened({ session, cache, pool, images })
  }

  /** Mounts it, warms it, and unmounts it. */
  async warm(vmPath: string, base: PublishedGeneration): Promise<void> {
    const opened = this.open(vmPath, base, 0)
    await opened.images.warm(
      () => undefined,
      () => false
    )
    await opened.close()
  }

  regionFiles(vmId: string): string[] {
    const slot = path.join(this.directory, 'cache', vmId, '0')
    return fs
      .readdirSync(slot)
      .filter((name) => /^\d+-\d+$/.test(name))
      .map((name) => path.join(slot, name))
  }
}

class Opened {
  readonly images: Images
  readonly pool: SharePool
  readonly #session: Session
  readonly #cache: Cache

  constructor(parts: { session: Session; cache: Cache; pool: SharePool; images: Images }) {
    this.images = parts.images
    this.pool = parts.pool
    this.#session = parts.session
    this.#cache = parts.cache
  }

  /** All of it, a block at a time; before that a few, scattered so that none is read ahead, and the caches are looked into. */
  async readAll(name = 'disk.img'): Promise<Buffer> {
    const file = this.#file(name)
    const blocks = file.sizeBytes / BLOCK_BYTES
    const content = Buffer.alloc(file.sizeBytes)
    const read = async (block: number): Promise<unknown> =>
      this.images.read(file, content.subarray(block * BLOCK_BYTES, (block + 1) * BLOCK_BYTES), block * BLOCK_BYTES)
    for (let index = 0; index < FIRST; index++) await read(4 * index)
    await this.images.lookaside.filled
    for (let block = 0; block < blocks; block++) await read(block)
    return content
  }

  /** So that others can tell what is in the cache. */
  flush(): Promise<void> {
    return this.#cache.flush()
  }

  async close(): Promise<void> {
    this.images.stop()
    await this.images.lookaside.filled
    await this.pool.close()
    this.#session.destroy()
    await this.#cache.close()
  }

  #file(wanted: string): Inode {
    for (const inode of this.#session.namespace.inodes()) if (inode.name === wanted) return inode
    throw new Error(`no ${wanted}`)
  }
}

/** What was fetched of the second VM after the first one was warmed, and what came from the cache of the first. */
async function fetchedOf(
  t: ExecutionContext,
  prepare: (client: Client, paths: { readonly warmed: string; readonly other: string }) => void,
  { share = 'share', slowBytesPerSecond = Infinity } = {}
): Promise<{ fetched: number; copied: number; bytes: number }> {
  const client = new Client(t)
  const warmed = client.vmPath('warmed')
  const other = client.vmPath('other', share)
  await client.warm(warmed, client.make(warmed, disk))
  const base = client.make(other, clone)
  prepare(client, { warmed, other })
  const opened = client.open(other, base, slowBytesPerSecond)
  t.true((await opened.readAll()).equals(clone))
  const { fetchedBlocks, lookasideBlocks, fetchedBytes } = opened.pool.counters
  await opened.close()
  return { fetched: fetchedBlocks, copied: lookasideBlocks, bytes: fetchedBytes }
}

test('most of a VM that was cloned from one that is here is copied, not fetched; all that differs is right', async (t) => {
  const { fetched, copied, bytes } = await fetchedOf(t, () => undefined)
  t.is(fetched + copied, BLOCKS + 4)
  t.true(fetched <= FIRST + CHANGED + 4, String(fetched))
  t.true(bytes < (FIRST + CHANGED + 8) * BLOCK_BYTES, String(bytes))
})

test('what was copied stays in the cache of the VM that needed it', async (t) => {
  const client = new Client(t)
  const [warmed, other] = [client.vmPath('warmed'), client.vmPath('other')]
  const base = client.make(other, clone)
  await client.warm(warmed, client.make(warmed, disk))
  const first = client.open(other, base)
  await first.readAll()
  await first.close()
  fs.renameSync(path.join(other, 'chunks'), path.join(other, 'away'))
  const second = client.open(other, base)
  t.true((await second.readAll()).equals(clone))
  t.is(second.pool.counters.fetchedBlocks + second.pool.counters.lookasideBlocks, 0)
  await second.close()
})

test('a share that is fast is asked itself', async (t) => {
  const { fetched, copied } = await fetchedOf(t, () => undefined, { slowBytesPerSecond: 0 })
  t.deepEqual([fetched, copied], [BLOCKS + 4, 0])
})

test('damaged, cut and evicted files of other caches cost a fetch and nothing else', async (t) => {
  let files = 0
  const { fetched, copied } = await fetchedOf(t, (client) => {
    const [vm = ''] = fs.readdirSync(path.join(client.directory, 'cache'))
    const [damaged = '', cut = ''] = client.regionFiles(vm)
    files = client.regionFiles(vm).length
    const fd = fs.openSync(damaged, 'r+')
    for (let block = 60; block < 90; block++) fs.writeSync(fd, 'bit rot', block * BLOCK_BYTES + 1000)
    fs.closeSync(fd)
    fs.truncateSync(cut, REGION_BYTES - 1)
  })
  t.is(files, Math.ceil(BLOCKS / BLOCKS_PER_REGION))
  t.true(
    copied > 0 && fetched >= CHANGED + 4 + 15 + (BLOCKS - CHANGED - BLOCKS_PER_REGION),
    `${String(fetched)}, ${String(copied)}`
  )
})

test('caches of VMs of another share, of other people, or that are not there any more, are not looked into', async (t) => {
  const cases: Record<string, Parameters<typeof fetchedOf>[1]> = {
    'other permissions': (_, { warmed, other }) => {
      fs.chmodSync(warmed, 0o700)
      fs.chmodSync(other, 0o755)
    },
    'a link': (_, { warmed }) => {
      fs.renameSync(warmed, `${warmed}.moved`)
      fs.symlinkSync(`${warmed}.moved`, warmed)
    },
    'another VM in its place': (client, { warmed }) => {
      fs.renameSync(warmed, path.join(client.directory, 'moved'))
      client.make(warmed, Buffer.alloc(BLOCK_BYTES, 1))
    },
    gone: (_, { warmed }) => fs.rmSync(warmed, { recursive: true })
  }
  for (const [name, prepare] of Object.entries(cases)) {
    t.deepEqual((await fetchedOf(t, prepare)).copied, 0, name)
  }
  t.is((await fetchedOf(t, () => undefined, { share: 'another' })).copied, 0)
})

test('the same VM as another mount of this client has it is looked into, and what it has at another place', async (t) => {
  const client = new Client(t)
  const vm = client.vmPath('vm')
  const base = client.make(vm, disk, { 'copy.img': clone })
  const first = client.open(vm, base, 0)
  t.true((await first.readAll()).equals(disk))
  await first.flush()
  const beside = client.open(vm, base)
  t.true((await beside.readAll()).equals(disk))
  t.true(beside.pool.counters.fetchedBlocks <= FIRST)
  await beside.close()
  await first.close()
  const again = client.open(vm, base)
  t.true((await again.readAll('copy.img')).equals(clone))
  t.is(again.pool.counters.fetchedBlocks + again.pool.counters.lookasideBlocks, BLOCKS + 4)
  t.true(again.pool.counters.fetchedBlocks <= FIRST + CHANGED + 4)
  await again.close()
})
