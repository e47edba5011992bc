/**
 * Trickle: what is quiet goes to the share while the guest runs, and whatever happens meanwhile (writes, a crash, a power
 * cut that takes the records or a server that has lost the chunks) the generation has exactly what was written.
 */
import fs from 'node:fs'
import path from 'node:path'
import test, { type ExecutionContext } from 'ava'
import { BLOCK_BYTES, PAGE_BYTES, REGION_BYTES } from '../../src/base/units.js'
import { BaseMaps } from '../../src/cache/base-maps.js'
import { readMapObject } from '../../src/cache/map-object.js'
import { QUIET_MS, Trickle } from '../../src/commit/trickle.js'
import { Uploads } from '../../src/session/uploads.js'
import { Random } from '../support/random.js'
import { CommitBed, contentOf } from './commit-bed.js'

class Bench {
  readonly bed: CommitBed
  readonly random = new Random()
  readonly warnings: string[] = []
  nowMs = 0
  isBusy = false
  trickle: Trickle

  constructor(t: ExecutionContext, disk: Buffer) {
    t.log(`seed ${String(this.random.seed)}`)
    this.bed = new CommitBed({ disk })
    this.bed.openCache()
    this.trickle = this.#make()
    t.teardown(async () => {
      this.trickle.stop()
      await this.bed.destroy()
    })
  }

  #make(): Trickle {
    const maps = new BaseMaps(async (place) => Buffer.from(readMapObject(this.bed.share, place, undefined).bytes))
    return new Trickle({
      vmPath: this.bed.root,
      session: this.bed.session,
      cache: this.bed.cache,
      maps,
      isBusy: () => this.isBusy,
      bring: () => Promise.resolve(),
      onWarning: (message) => this.warnings.push(message),
      nowMs: () => this.nowMs,
      pause: () => Promise.resolve()
    })
  }

  /** As after a crash of the daemon. */
  async reopen(): Promise<void> {
    this.trickle.stop()
    await this.bed.reopen()
    this.trickle = this.#make()
  }

  /** Time passes in which nothing is written; then everything that is quiet is sent. */
  async quiet(durationMs = 2 * QUIET_MS): Promise<void> {
    await this.trickle.pass()
    this.nowMs += durationMs
    for (let pass = 0; pass < 4; pass++) await this.trickle.pass()
  }

  write(offset: number, bytes: Buffer): void {
    this.bed.session.write(this.bed.file('disk'), bytes, offset)
  }
}

test('what is quiet is sent, stays here, and the suspend sends only maps', async (t) => {
  const disk = new Random(3).bytes(2 * REGION_BYTES)
  const bench = new Bench(t, disk)
  const { bed, random } = bench
  const written = random.bytes(40 * BLOCK_BYTES)
  bench.write(PAGE_BYTES, written)
  written.copy(disk, PAGE_BYTES)
  const { dirtyPages } = bed.session.namespace
  await bench.trickle.pass()
  bench.nowMs += QUIET_MS / 2
  await bench.trickle.pass()
  t.is(bench.trickle.sentBytes, 0, 'not quiet for long enough')
  await bench.quiet()
  t.true(bench.trickle.sentBytes > written.length)
  t.is(bed.session.namespace.dirtyPages, dirtyPages, 'nothing was given up')
  const blocks = Array.from({ length: 41 }, (_none, block) => block)
  t.true(blocks.every((block) => bench.trickle.isSent(bed.file('disk'), block)))
  t.false(bench.trickle.isSent(bed.file('disk'), 41), 'never changed')
  const { sentBytes, published } = await bed.commit()
  t.true(sentBytes < BLOCK_BYTES, `${String(sentBytes)} bytes: only maps`)
  t.true(published !== undefined && contentOf(bed.share, published, 'disk').equals(disk))
  t.deepEqual(bench.warnings, [])
})

test('a block that is written again is sent again, later each time, and its old record goes', async (t) => {
  const bench = new Bench(t, new Random(3).bytes(REGION_BYTES))
  const { bed, random } = bench
  bench.write(0, random.bytes(64 * BLOCK_BYTES))
  await bench.quiet()
  const first = bench.trickle.sentBytes
  t.true(first > 60 * BLOCK_BYTES)
  t.is([...bed.session.uploads.entries()].length, 64)
  bench.write(5 * BLOCK_BYTES, random.bytes(50 * BLOCK_BYTES))
  const isSent = (block: number): boolean => bench.trickle.isSent(bed.file('disk'), block)
  t.deepEqual([4, 5, 54, 55].map(isSent), [true, false, false, true], 'what was written since is not on the share')
  await bench.trickle.pass()
  bench.nowMs += QUIET_MS + 1
  for (let pass = 0; pass < 4; pass++) await bench.trickle.pass()
  t.is(bench.trickle.sentBytes, first, 'what was written again waits twice as long')
  await bench.quiet()
  t.true(bench.trickle.sentBytes > first + 49 * BLOCK_BYTES)
  t.true(isSent(5))
  t.is([...bed.session.uploads.entries()].length, 64)
})

test('nothing is sent while somebody waits for the share; a share in trouble costs nothing but the head start', async (t) => {
  const disk = new Random(3).bytes(REGION_BYTES)
  const bench = new Bench(t, disk)
  const { bed, random } = bench
  const written = random.bytes(64 * BLOCK_BYTES)
  bench.write(0, written)
  written.copy(disk)
  bench.isBusy = true
  await bench.quiet()
  t.is(bench.trickle.sentBytes, 0)
  bench.isBusy = false
  fs.renameSync(bed.root, `${bed.root}-away`)
  await bench.quiet()
  fs.renameSync(`${bed.root}-away`, bed.root)
  t.is(bench.warnings.length, 1)
  const { published } = await bed.commit()
  t.true(published !== undefined && contentOf(bed.share, published, 'disk').equals(disk))
})

test('writes while blocks are sent, crashes, lost records and lost chunks: the generation is what was written', async (t) => {
  const disk = new Random(3).bytes(3 * REGION_BYTES)
  const bench = new Bench(t, disk)
  const { bed, random } = bench
  for (let round = 0; round < 12; round++) {
    const writeSome = (): void => {
      const bytes = random.bytes(PAGE_BYTES * (1 + random.below(64)))
      const offset = PAGE_BYTES * random.below((disk.length - bytes.length) / PAGE_BYTES)
      bench.write(offset, bytes)
      bytes.copy(disk, offset)
    }
    for (let count = 0; count < 30; count++) writeSome()
    await bench.trickle.pass()
    bench.nowMs += 1000 * QUIET_MS
    const state = { isSending: true }
    const sent = (async () => {
      for (let pass = 0; pass < 4; pass++) await bench.trickle.pass()
      state.isSending = false
    })()
    while (state.isSending) {
      writeSome()
      await new Promise((resolve) => setImmediate(resolve))
    }
    await sent
    const uploads = path.join(bed.directory, 'session', 'uploads')
    if (round % 3 === 1) {
      await bench.reopen()
      // a power cut: the records are cut anywhere, or end in what was on the disk before
      const content = fs.existsSync(uploads) ? fs.readFileSync(uploads) : Buffer.alloc(0)
      const kept = content.subarray(0, random.below(content.length + 1))
      fs.writeFileSync(uploads, Buffer.concat([kept, Buffer.alloc(random.below(3) * 100, random.below(256))]))
      await bench.reopen()
    }
    if (round % 4 === 2) {
      // the server has lost a chunk that no generation names
      const known = [...bed.session.uploads.entries()].map(([, { chunk }]) => chunk)
      const chunk = known[random.below(known.length || 1)]
      if (chunk !== undefined) fs.rmSync(path.join(bed.root, 'chunks', chunk.slice(0, 2), chunk), { force: true })
    }
    if (round % 6 === 5) {
      const published = await bed.publish()
      t.true(contentOf(bed.share, published, 'disk').equals(disk), `round ${String(round)}`)
      await bench.reopen()
    }
  }
  t.deepEqual(bench.warnings, [])
})

test('records that say nothing any more are taken out of the file', async (t) => {
  const bench = new Bench(t, Buffer.alloc(PAGE_BYTES))
  const file = path.join(bench.bed.directory, 'list')
  const uploads = new Uploads(file)
  const place = (count: number) => ({
    encoding: 'raw' as const,
    chunk: 'ab'.repeat(32),
    offset: 0,
    storedBytes: 1,
    digest: Buffer.from(String(count).padStart(64, '0'), 'hex')
  })
  for (let count = 0; count < 10_000; count += 1000) {
    await uploads.addLater(Array.from({ length: 1000 }, (_, index) => place(count + index)))
    for (let index = 0; index < 990; index++) uploads.forget(place(count + index).digest.toString('hex'))
  }
  await uploads.addLater([place(20_000)])
  t.is([...new Uploads(file).entries()].filter(([digest]) => uploads.get(digest) === undefined).length < 6000, true)
  t.truthy(new Uploads(file).get(place(20_000).digest.toString('hex')))
  t.is([...uploads.entries()].length, 101)
})
