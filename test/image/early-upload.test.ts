/**
 * Changes that were sent to the share before the suspend: random operations on files, of which any region may have been
 * uploaded, against plain buffers; through restarts and a commit.
 */
import fs from 'node:fs'
import path from 'node:path'
import test, { type ExecutionContext } from 'ava'
import { BLOCK_BYTES, BLOCKS_PER_REGION, PAGE_BYTES, REGION_BYTES } from '../../src/base/units.js'
import type { Cache } from '../../src/cache/cache.js'
import { EarlyUpload } from '../../src/commit/early-upload.js'
import { SharePool } from '../../src/fetch/share-pool.js'
import { Images } from '../../src/image/images.js'
import { CommitBed } from '../commit/commit-bed.js'
import { waitFor } from '../support/bed.js'
import { Random } from '../support/random.js'

const PUNCH = 3 // keep size, punch hole

interface Opened {
  readonly bed: CommitBed
  readonly cache: Cache
  readonly pool: SharePool
  images: Images
  /** uploads that many units */
  upload(units: number): Promise<void>
  reopen(): Promise<void>
}

function open(t: ExecutionContext, files: Readonly<Record<string, Buffer>>): Opened {
  const bed = new CommitBed(files)
  const cache = bed.openCache()
  const pool = new SharePool(bed.root, { threads: 2 })
  const makeImages = (): Images =>
    new Images({
      session: bed.session,
      cache,
      pool,
      onDamage: (message) => t.fail(message),
      onWarning: (message) => t.fail(message)
    })
  const opened: Opened = {
    bed,
    cache,
    pool,
    images: makeImages(),
    upload: async (units) => {
      let left = units
      const upload = new EarlyUpload({
        vmPath: bed.root,
        session: bed.session,
        cache,
        maps: opened.images.maps,
        isEnough: () => left-- <= 0,
        onWarning: (message) => t.fail(message),
        onUploaded: (inode, blocks) => {
          for (const block of blocks)
            cache.forget(inode.id, Math.floor(block / BLOCKS_PER_REGION), block % BLOCKS_PER_REGION)
        }
      })
      await upload.makeSpace()
    },
    reopen: async () => {
      await bed.reopen()
      opened.images = makeImages()
    }
  }
  t.teardown(async () => {
    await pool.close()
    await bed.destroy()
  })
  return opened
}

async function content(images: Images, bed: CommitBed, name: string): Promise<Buffer> {
  const inode = bed.file(name)
  const bytes = Buffer.alloc(inode.sizeBytes)
  for (let at = 0; at < bytes.length; at += REGION_BYTES / 4)
    await images.read(inode, bytes.subarray(at, at + REGION_BYTES / 4), at)
  return bytes
}

function regionFiles(bed: CommitBed): string[] {
  return fs.readdirSync(path.dirname(bed.session.regionPath(bed.file('disk').id, 0)))
}

test('what was uploaded takes no space here, reads as before, and needs no transfer at the commit', async (t) => {
  const random = new Random()
  t.log(`seed ${String(random.seed)}`)
  const disk = random.bytes(2 * REGION_BYTES)
  const opened = open(t, { disk })
  const { bed } = opened
  const file = bed.file('disk')
  const written = random.bytes(20 * BLOCK_BYTES)
  await opened.images.write(file, written, PAGE_BYTES)
  written.copy(disk, PAGE_BYTES)
  await opened.images.write(file, written.subarray(0, PAGE_BYTES), REGION_BYTES)
  written.copy(disk, REGION_BYTES, 0, PAGE_BYTES)
  t.is(regionFiles(bed).length, 2)
  await opened.upload(10)
  t.deepEqual(regionFiles(bed), [])
  t.is(bed.session.namespace.dirtyPages, 0)
  t.true((await content(opened.images, bed, 'disk')).equals(disk))
  await opened.reopen()
  t.true((await content(opened.images, bed, 'disk')).equals(disk))
  const { published, sentBytes } = await bed.commit()
  t.truthy(published)
  t.true(sentBytes < BLOCK_BYTES, `${String(sentBytes)} bytes: only maps`)
  t.is(published?.manifest.changedBytes, 22 * BLOCK_BYTES)
})

test('a region that is written while it is sent keeps its bytes', async (t) => {
  const opened = open(t, { disk: Buffer.alloc(REGION_BYTES, 1) })
  const { bed } = opened
  const file = bed.file('disk')
  await opened.images.write(file, Buffer.alloc(BLOCK_BYTES, 2), 0)
  const uploading = opened.upload(1)
  await opened.images.write(file, Buffer.alloc(PAGE_BYTES, 3), 0)
  await uploading
  t.is(file.uploaded.size, 0)
  t.is(regionFiles(bed).length, 1)
  const bytes = await content(opened.images, bed, 'disk')
  t.true(bytes.subarray(0, PAGE_BYTES).equals(Buffer.alloc(PAGE_BYTES, 3)))
})

test('a block of the base that comes after another version of it was sent is not the one that is read', async (t) => {
  const opened = open(t, { disk: Buffer.alloc(REGION_BYTES, 1) })
  const { bed, images, pool } = opened
  const file = bed.file('disk')
  const page = Buffer.alloc(PAGE_BYTES)
  await images.read(file, page, REGION_BYTES - PAGE_BYTES) // the map is known
  let letGo = (): void => undefined
  const gate = new Promise<void>((resolve) => (letGo = resolve))
  const { run } = pool
  let isAsked = false
  pool.run = async (name, input, options) => {
    isAsked = true
    await gate
    return run.call(pool, name, input as never, options) as never
  }
  const early = images.read(file, page, 0)
  await waitFor(() => isAsked, 'the base to be asked for')
  await images.write(file, Buffer.alloc(BLOCK_BYTES, 2), 0)
  await opened.upload(1)
  t.is(file.uploaded.size, 1)
  letGo()
  await early
  t.true((await content(images, bed, 'disk')).subarray(0, BLOCK_BYTES).equals(Buffer.alloc(BLOCK_BYTES, 2)))
})

test('a share that refuses the upload costs nothing but the space', async (t) => {
  const opened = open(t, { disk: Buffer.alloc(REGION_BYTES, 1) })
  const { bed } = opened
  const file = bed.file('disk')
  await opened.images.write(file, Buffer.alloc(BLOCK_BYTES, 2), 0)
  await content(opened.images, bed, 'disk') // the map is known
  fs.renameSync(path.join(bed.root, 'chunks'), path.join(bed.root, 'chunks.away'))
  const warnings: string[] = []
  const upload = new EarlyUpload({
    vmPath: bed.root,
    session: bed.session,
    cache: opened.cache,
    maps: opened.images.maps,
    isEnough: () => false,
    onWarning: (message) => warnings.push(message),
    onUploaded: () => t.fail()
  })
  fs.writeFileSync(path.join(bed.root, 'chunks'), 'in the way')
  await upload.makeSpace()
  t.regex(warnings.join(), /cannot be sent to the share/)
  await upload.makeSpace()
  t.is(warnings.length, 1, 'not again at once')
  t.is(regionFiles(bed).length, 1)
})

test('random writes, truncates, holes, uploads and restarts read as plain files do, and so does the generation', async (t) => {
  for (let round = 0; round < 3; round++) {
    const random = new Random()
    const seed = `seed ${String(random.seed)}`
    t.log(seed)
    const sizes = { disk: REGION_BYTES + 5 * BLOCK_BYTES + 777, small: 3 * PAGE_BYTES + 5 }
    const model = new Map(Object.entries(sizes).map(([name, size]) => [name, random.bytes(size)]))
    const opened = open(t, Object.fromEntries([...model].map(([name, bytes]) => [name, Buffer.from(bytes)])))
    const { bed } = opened
    for (let step = 0; step < 250; step++) {
      const name = random.below(4) === 0 ? 'small' : 'disk'
      const inode = bed.file(name)
      let bytes = model.get(name) ?? Buffer.alloc(0)
      const offset = random.below(bytes.length + 1)
      const action = random.below(20)
      if (action < 9) {
        const part = random.bytes(1 + random.below(random.below(3) === 0 ? 3 * BLOCK_BYTES : 3 * PAGE_BYTES))
        if (offset + part.length > bytes.length)
          bytes = Buffer.concat([bytes, Buffer.alloc(offset + part.length - bytes.length)])
        part.copy(bytes, offset)
        await opened.images.write(inode, part, offset)
      } else if (action < 11) {
        const size = random.below(2) === 0 ? offset : Math.min(offset + random.below(3 * BLOCK_BYTES), 2 * REGION_BYTES)
        bytes = Buffer.concat([bytes.subarray(0, size), Buffer.alloc(Math.max(0, size - bytes.length))])
        opened.images.truncate(inode, size)
      } else if (action < 13) {
        const length = Math.min(1 + random.below(4 * BLOCK_BYTES), bytes.length - offset)
        if (length <= 0) continue
        bytes.fill(0, offset, offset + length)
        await opened.images.fallocate(inode, PUNCH, offset, length)
      } else if (action < 17) {
        const into = Buffer.alloc(Math.min(1 + random.below(2 * BLOCK_BYTES), bytes.length - offset))
        await opened.images.read(inode, into, offset)
        t.true(into.equals(bytes.subarray(offset, offset + into.length)), `${seed}, step ${String(step)}`)
      } else if (action === 17) {
        const into = Buffer.alloc(Math.min(BLOCK_BYTES, bytes.length - offset))
        const uploading = opened.upload(1 + random.below(2))
        const reading = opened.images.read(inode, into, offset)
        await Promise.all([uploading, reading])
        t.true(into.equals(bytes.subarray(offset, offset + into.length)), `${seed}, step ${String(step)}, uploading`)
      } else if (action === 18) await opened.upload(5)
      else if (random.below(3) === 0) await opened.reopen()
      model.set(name, bytes)
    }
    for (const [name, bytes] of model) {
      const first = await content(opened.images, bed, name)
      t.true(first.equals(bytes), `${seed}, ${name} before the commit`)
    }
    await bed.publish()
    await opened.cache.close() // what it has verified, it has verified for this mount only
    const after = new Images({
      session: bed.session,
      cache: bed.openCache(),
      pool: opened.pool,
      onDamage: (message) => t.fail(message),
      onWarning: (message) => t.fail(message)
    })
    for (const [name, bytes] of model)
      t.true((await content(after, bed, name)).equals(bytes), `${seed}, ${name} published`)
  }
})
