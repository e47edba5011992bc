/**
 * Changes that would be sent to a share that is not mounted: nothing counts as sent, nothing is given up here, nothing is made
 * on the local disk in the share's place, and everything is published when it is back.
 */
import fs from 'node:fs'
import path from 'node:path'
import test, { type ExecutionContext } from 'ava'
import { NotPublishedError, ShareError } from '../../src/base/errors.js'
import { BLOCK_BYTES, PAGE_BYTES, REGION_BYTES } from '../../src/base/units.js'
import { BaseMaps } from '../../src/cache/base-maps.js'
import { readMapObject } from '../../src/cache/map-object.js'
import { CommitPool } from '../../src/commit/commit-pool.js'
import { EarlyUpload } from '../../src/commit/early-upload.js'
import { QUIET_MS, Trickle } from '../../src/commit/trickle.js'
import { Random } from '../support/random.js'
import { CommitBed, contentOf } from './commit-bed.js'

interface Away {
  readonly bed: CommitBed
  readonly disk: Buffer
  readonly warnings: string[]
  readonly maps: BaseMaps
  /** Where the VM was is a directory of the local disk, with these directories in it. */
  leave(directories: readonly string[]): void
  comeBack(): void
}

function makeBed(t: ExecutionContext): Away {
  const random = new Random()
  t.log(`seed ${String(random.seed)}`)
  const disk = random.bytes(REGION_BYTES)
  const bed = new CommitBed({ disk })
  bed.openCache()
  t.teardown(() => bed.destroy())
  const written = random.bytes(40 * BLOCK_BYTES)
  bed.session.write(bed.file('disk'), written, PAGE_BYTES * 32)
  written.copy(disk, PAGE_BYTES * 32)
  const maps = new BaseMaps(async (place) => Buffer.from(readMapObject(bed.share, place, undefined).bytes))
  return {
    bed,
    disk,
    maps,
    warnings: [],
    leave: (directories) => {
      fs.renameSync(bed.root, `${bed.root}.away`)
      for (const name of ['.', ...directories]) fs.mkdirSync(path.join(bed.root, name), { recursive: true })
    },
    comeBack: () => {
      fs.rmSync(bed.root, { recursive: true })
      fs.renameSync(`${bed.root}.away`, bed.root)
    }
  }
}

const byte = (value: number): string => value.toString(16).padStart(2, '0')
/** all that a chunk is written through, so that every call on it succeeds */
const LIKE_A_VM = ['tmp', ...Array.from({ length: 256 }, (_none, value) => `chunks/${byte(value)}`)]

for (const [name, directories] of Object.entries({ 'an empty directory': [], 'one like that of a VM': LIKE_A_VM })) {
  test(`nothing is uploaded early into ${name} in the place of the share`, async (t) => {
    const away = makeBed(t)
    const { bed, disk, maps, warnings } = away
    const regionFile = bed.session.regionPath(bed.file('disk').id, 0)
    const makeUpload = (): EarlyUpload => {
      let units = 1
      return new EarlyUpload({
        vmPath: bed.root,
        session: bed.session,
        cache: bed.cache,
        maps,
        isEnough: () => units-- <= 0,
        onWarning: (message) => warnings.push(message),
        onUploaded: () => undefined
      })
    }
    await maps.page(bed.file('disk').base?.map ?? null, 0)
    away.leave(directories)
    await makeUpload().makeSpace()
    t.regex(warnings.join(), /there is no VM at .* is the share mounted/)
    t.is(bed.file('disk').uploaded.size, 0)
    t.true(fs.existsSync(regionFile), 'the bytes are here')
    if (directories.length === 0) t.deepEqual(fs.readdirSync(bed.root), [])
    away.comeBack()
    await makeUpload().makeSpace()
    t.false(fs.existsSync(regionFile))
    const { published } = await bed.commit()
    t.true(published !== undefined && contentOf(bed.share, published, 'disk').equals(disk))
  })

  test(`nothing trickles into ${name} in the place of the share`, async (t) => {
    const away = makeBed(t)
    const { bed, disk, maps, warnings } = away
    let nowMs = 0
    const trickle = new Trickle({
      vmPath: bed.root,
      session: bed.session,
      cache: bed.cache,
      maps,
      isBusy: () => false,
      bring: () => Promise.resolve(),
      onWarning: (message) => warnings.push(message),
      nowMs: () => nowMs,
      pause: () => Promise.resolve()
    })
    t.teardown(() => trickle.stop())
    await maps.page(bed.file('disk').base?.map ?? null, 0)
    away.leave(directories)
    const quiet = async (): Promise<void> => {
      await trickle.pass()
      nowMs += 4 * QUIET_MS
      for (let pass = 0; pass < 4; pass++) await trickle.pass()
    }
    await quiet()
    t.regex(warnings.join(), /there is no VM at .* is the share mounted/)
    t.is([...bed.session.uploads.entries()].length, 0, 'no place is recorded')
    t.false(trickle.isSent(bed.file('disk'), 1))
    if (directories.length === 0) t.deepEqual(fs.readdirSync(bed.root), [])
    away.comeBack()
    await quiet()
    t.is([...bed.session.uploads.entries()].length, 40)
    const { published } = await bed.commit()
    t.true(published !== undefined && contentOf(bed.share, published, 'disk').equals(disk))
  })

  test(`nothing is published into ${name} in the place of the share`, async (t) => {
    const away = makeBed(t)
    const { bed, disk } = away
    away.leave(directories)
    await t.throwsAsync(bed.commit(), { instanceOf: NotPublishedError, message: /is the share mounted/ })
    const pool = new CommitPool(bed.root, { vmId: bed.session.identity.vmId, threads: 1 })
    t.teardown(() => pool.close())
    const objects = pool.run('objects', { objects: [Buffer.from('a map page')] })
    await t.throwsAsync(objects, { instanceOf: ShareError, message: /is the share mounted/ })
    const { manifest } = bed.base
    await t.throwsAsync(pool.run('publish', { manifest }), { instanceOf: ShareError, message: /is the share mounted/ })
    if (directories.length === 0) t.deepEqual(fs.readdirSync(bed.root), [])
    away.comeBack()
    const { published, branch } = await bed.commit()
    t.is(branch, undefined)
    t.true(published !== undefined && contentOf(bed.share, published, 'disk').equals(disk))
  })
}

test('places of an earlier try count only in the VM', async (t) => {
  const away = makeBed(t)
  const { bed } = away
  const pool = new CommitPool(bed.root, { vmId: bed.session.identity.vmId, threads: 1 })
  t.teardown(() => pool.close())
  const file = path.join(bed.directory, 'plain')
  fs.writeFileSync(file, new Random(5).bytes(BLOCK_BYTES))
  const blocks = [{ kind: 'file' as const, parts: [{ path: file, offset: 0, lengthBytes: BLOCK_BYTES }] }]
  const [first] = (await pool.run('encode', { blocks })).results
  if (first?.state !== 'placed') throw new Error('not placed')
  const known = [[first.place.digest.toString('hex'), first.place]] as const
  t.is((await pool.run('encode', { blocks, known })).sentBytes, 0)
  away.leave([])
  fs.cpSync(path.join(`${bed.root}.away`, 'chunks'), path.join(bed.root, 'chunks'), { recursive: true })
  await t.throwsAsync(pool.run('encode', { blocks, known }), { instanceOf: ShareError })
  away.comeBack()
})
