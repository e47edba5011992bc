/**
 * Checkpoints without a kernel: what is published is the session at one instant whatever goes on meanwhile, and whatever
 * becomes of the process afterwards, the session's next generation follows it.
 */
import fs from 'node:fs'
import path from 'node:path'
import { setImmediate, setTimeout as delay } from 'node:timers/promises'
import test, { type ExecutionContext } from 'ava'
import { sha256Hex } from '../../src/base/digest.js'
import { NotPublishedError } from '../../src/base/errors.js'
import { BLOCK_BYTES, PAGE_BYTES, toGeneration } from '../../src/base/units.js'
import { BaseMaps } from '../../src/cache/base-maps.js'
import { readMapObject } from '../../src/cache/map-object.js'
import type { CheckpointRun } from '../../src/commit/checkpoint.js'
import type { CheckpointLimits } from '../../src/commit/checkpoint-send.js'
import { Checkpointer } from '../../src/commit/checkpointer.js'
import { CommitPool } from '../../src/commit/commit-pool.js'
import { EarlyUpload } from '../../src/commit/early-upload.js'
import { publishGeneration, readGeneration } from '../../src/format/generations.js'
import { encodeManifest, type Manifest } from '../../src/format/manifest.js'
import { Session } from '../../src/session/session.js'
import { Random } from '../support/random.js'
import { CLIENT, CommitBed, contentOf } from './commit-bed.js'

class Bench {
  readonly bed: CommitBed
  readonly random = new Random()
  readonly held: string[] = []
  pins = 0
  checkpointer: Checkpointer

  constructor(t: ExecutionContext, files: Readonly<Record<string, Buffer>>, limits: Partial<CheckpointLimits> = {}) {
    t.log(`seed ${String(this.random.seed)}`)
    this.bed = new CommitBed(files)
    this.bed.openCache()
    this.checkpointer = this.make(limits)
    t.teardown(async () => {
      await this.checkpointer.stop()
      await this.bed.destroy()
    })
  }

  get maps(): BaseMaps {
    return new BaseMaps(async (place) => Buffer.from(readMapObject(this.bed.share, place, undefined).bytes))
  }

  make(limits: Partial<CheckpointLimits> = {}): Checkpointer {
    const { bed } = this
    return new Checkpointer({
      vmPath: bed.root,
      session: bed.session,
      cache: bed.cache,
      maps: this.maps,
      base: bed.base,
      held: bed.held,
      client: { id: CLIENT.client, host: CLIENT.host },
      limits,
      pinBase: () => {
        this.pins++
        return Promise.resolve()
      },
      holdWrites: () => {
        this.held.push('hold')
        return () => this.held.push('let go')
      }
    })
  }

  async checkpoint(how: Partial<CheckpointRun> = {}): ReturnType<Checkpointer['run']> {
    return this.checkpointer.run({ flush: () => Promise.resolve(), onProgress: () => undefined, ...how })
  }

  /** As the next process of this client does. */
  async reopen(): Promise<void> {
    await this.checkpointer.stop()
    await this.bed.reopen()
    this.checkpointer = this.make()
  }

  generation(number: number, name = 'disk'): Buffer {
    return contentOf(this.bed.share, readGeneration(this.bed.share, toGeneration(number)), name)
  }

  write(bytes: Buffer, offset: number, name = 'disk'): void {
    this.bed.session.write(this.bed.file(name), bytes, offset)
  }
}

/** Two files that change at random; remembers every state that they had. */
class Guest {
  readonly states = new Set<string>()
  readonly #bench: Bench
  readonly #model: Record<string, Buffer>

  constructor(bench: Bench, files: Readonly<Record<string, Buffer>>) {
    this.#bench = bench
    this.#model = { ...files }
    this.forget()
  }

  /** only what is from now on may be published */
  forget(): void {
    this.states.clear()
    this.states.add(this.#state(this.#model))
  }

  has(contents: Record<string, Buffer>): boolean {
    return this.states.has(this.#state(contents))
  }

  act(): void {
    const { random, bed } = this.#bench
    const name = random.below(2) === 0 ? 'disk' : 'log'
    const inode = bed.file(name)
    const before = this.#model[name] ?? Buffer.alloc(0)
    const pages = Math.floor(before.length / PAGE_BYTES)
    const page = random.below(Math.max(1, pages - 4))
    switch (random.below(8)) {
      case 0: {
        const lengthBytes = Math.min(random.below(40) + 1, pages - page) * PAGE_BYTES
        if (lengthBytes <= 0) break
        bed.punch(inode, page * PAGE_BYTES, lengthBytes)
        this.#model[name] = Buffer.from(before).fill(0, page * PAGE_BYTES, page * PAGE_BYTES + lengthBytes)
        break
      }
      case 1: {
        const size = random.below(10 * BLOCK_BYTES) + 1
        bed.resize(inode, size)
        this.#model[name] = Buffer.concat([before.subarray(0, size), Buffer.alloc(Math.max(0, size - before.length))])
        break
      }
      default: {
        if (before.length === 0) break
        // whole pages, or to the end of the file: what the session takes
        const offset = Math.floor(random.below(before.length) / PAGE_BYTES) * PAGE_BYTES
        const end = Math.min(before.length, offset + (random.below(20) + 1) * PAGE_BYTES)
        const bytes = random.bytes(end - offset)
        bed.session.write(inode, bytes, offset)
        const after = Buffer.from(before)
        bytes.copy(after, offset)
        this.#model[name] = after
      }
    }
    this.states.add(this.#state(this.#model))
  }

  #state(files: Record<string, Buffer>): string {
    return sha256Hex(
      Buffer.concat([
        Buffer.from(`${String(files['disk']?.length)},`),
        ...['disk', 'log'].map((name) => files[name] ?? Buffer.alloc(0))
      ])
    )
  }
}

/** every second one beside an early upload */
const ROUNDS = Number(process.env['ISRFS_CHECKPOINT_ROUNDS'] ?? 2)

for (const instantBlocks of [512, 3]) {
  test(`what is published is one state between two changes (${String(instantBlocks)} blocks at once)`, async (t) => {
    const random = new Random()
    const files = { disk: random.bytes(9 * BLOCK_BYTES + 100), log: random.bytes(5 * BLOCK_BYTES) }
    const bench = new Bench(t, files, { restBlocks: 2, instantBlocks })
    const { bed } = bench
    const guest = new Guest(bench, files)
    for (let round = 2; round < 2 + ROUNDS; round++) {
      guest.forget()
      const end = new AbortController()
      const isHeld = (): boolean => bench.held.at(-1) === 'hold'
      const life = (async () => {
        while (!end.signal.aborted) {
          if (!isHeld()) guest.act()
          await delay(2)
        }
      })()
      const early =
        round % 2 === 0
          ? undefined
          : new EarlyUpload({
              vmPath: bed.root,
              session: bed.session,
              cache: bed.cache,
              maps: bench.maps,
              isEnough: () => end.signal.aborted,
              onWarning: (message) => t.fail(message),
              onUploaded: () => undefined
            })
      const uploading = early?.makeSpace()
      for (let act = 0; act < 50; act++) guest.act()
      const { published, holdMs } = await bench.checkpoint({
        flush: async () => {
          for (let act = 0; act < 20; act++) guest.act()
          await setImmediate()
        }
      })
      end.abort()
      early?.stop()
      await Promise.all([life, uploading])
      t.is(published?.number, toGeneration(round))
      t.true(holdMs >= 0)
      const contents = { disk: bench.generation(round), log: bench.generation(round, 'log') }
      t.true(guest.has(contents), `generation ${String(round)} is no state that the files had`)
    }
    t.is(bench.pins, 1)
    guest.forget()
    await bench.reopen()
    const { published } = await bed.commit()
    t.is(published?.number, toGeneration(2 + ROUNDS))
    t.true(guest.has({ disk: bench.generation(2 + ROUNDS), log: bench.generation(2 + ROUNDS, 'log') }))
  })
}

test('the suspend follows the checkpoint and sends only what has changed since', async (t) => {
  const bench = new Bench(t, { disk: Buffer.alloc(8 * BLOCK_BYTES, 1) })
  const bytes = bench.random.bytes(6 * BLOCK_BYTES)
  bench.write(bytes, 0)
  const checkpoint = await bench.checkpoint()
  t.is(checkpoint.changedBytes, 6 * BLOCK_BYTES)
  t.like(checkpoint.published?.manifest, {
    parent: { generation: 1, digest: bench.bed.base.digest },
    checkpoint: { session: bench.bed.session.identity.sessionId, sequence: 1 }
  })
  t.not(checkpoint.published?.manifest.session, bench.bed.session.identity.sessionId)
  t.is((await bench.checkpoint()).published, undefined, 'nothing has changed since')
  bench.write(bytes.subarray(0, PAGE_BYTES), BLOCK_BYTES)
  const { published, sentBytes } = await bench.bed.commit()
  t.is(published?.number, toGeneration(3))
  t.is(published?.manifest.parent?.digest, checkpoint.published?.digest)
  t.true(sentBytes < 2 * BLOCK_BYTES, `${String(sentBytes)} bytes`)
  bytes.copy(bytes, BLOCK_BYTES, 0, PAGE_BYTES)
  t.true(bench.generation(3).subarray(0, bytes.length).equals(bytes))
})

test('a suspend without changes after a checkpoint publishes nothing more, also of bytes that were sent twice', async (t) => {
  const bench = new Bench(t, { disk: Buffer.alloc(40 * BLOCK_BYTES) })
  const bytes = bench.random.bytes(BLOCK_BYTES)
  for (const block of [0, 1, 39]) bench.write(bytes, block * BLOCK_BYTES)
  for (let block = 2; block < 39; block++) bench.write(bench.random.bytes(PAGE_BYTES), block * BLOCK_BYTES)
  const { published } = await bench.checkpoint()
  const { published: again, head } = await bench.bed.commit()
  t.is(again, undefined)
  t.is(head.digest, published?.digest ?? '')
})

test('a crash between the publish and its note: the checkpoint is recognised by its announced digest', async (t) => {
  const bench = new Bench(t, { disk: Buffer.alloc(BLOCK_BYTES) })
  const bytes = bench.random.bytes(BLOCK_BYTES)
  bench.write(bytes, 0)
  bench.bed.session.confirmCheckpoint = () => {
    throw new Error('killed')
  }
  const { published } = await bench.checkpoint()
  await bench.reopen()
  t.is(bench.bed.session.checkpoint, undefined)
  bench.write(bytes.subarray(0, PAGE_BYTES), BLOCK_BYTES - PAGE_BYTES)
  const result = await bench.bed.commit()
  t.is(result.branch, undefined)
  t.like(result.published?.manifest, { generation: 3, parent: { generation: 2, digest: published?.digest ?? '' } })
})

test('a try that comes through late has its number: the next checkpoint follows it', async (t) => {
  const bench = new Bench(t, { disk: Buffer.alloc(BLOCK_BYTES) })
  const { session, share, base } = bench.bed
  const late: Manifest = {
    ...base.manifest,
    generation: 2,
    parent: { generation: 1, digest: base.digest },
    session: 'eeeeeeeeeeeeeeee',
    checkpoint: { session: session.identity.sessionId, sequence: 1 }
  }
  session.announceCheckpoint({ generation: 2, digest: sha256Hex(encodeManifest(late)), sequence: 1 })
  const announce = session.announceCheckpoint.bind(session)
  session.announceCheckpoint = (reference) => {
    announce(reference)
    if (reference.generation === 2) publishGeneration(share, late)
  }
  bench.write(bench.random.bytes(BLOCK_BYTES), 0)
  const { published } = await bench.checkpoint()
  t.like(published?.manifest, { generation: 3, parent: { generation: 2 }, checkpoint: { sequence: 3 } })
  t.is(session.checkpoint?.generation, 3)
})

test('a session directory that was restored from before the checkpoint does not follow it: a branch', async (t) => {
  const bench = new Bench(t, { disk: Buffer.alloc(BLOCK_BYTES) })
  const { bed } = bench
  bench.write(bench.random.bytes(BLOCK_BYTES), 0)
  await bed.session.sync()
  const directory = path.join(bed.directory, 'session')
  fs.cpSync(directory, `${directory}.old`, { recursive: true })
  await bench.checkpoint()
  await bed.session.close()
  fs.rmSync(directory, { recursive: true })
  fs.renameSync(`${directory}.old`, directory)
  await bench.reopen()
  const { published, branch } = await bed.commit()
  t.is(published, undefined)
  t.regex(branch?.why ?? '', /generation 2 was published .* since generation 1/)
})

test("somebody else's generation ends it: the checkpoint is refused, the suspend makes a branch after the last own one", async (t) => {
  const bench = new Bench(t, { disk: Buffer.alloc(BLOCK_BYTES) })
  const { bed } = bench
  bench.write(bench.random.bytes(BLOCK_BYTES), 0)
  const { published } = await bench.checkpoint()
  const own = published?.manifest
  if (own === undefined || published === undefined) throw new Error('no checkpoint')
  publishGeneration(bed.share, {
    ...own,
    generation: 3,
    parent: { generation: 2, digest: published.digest },
    session: 'eeeeeeeeeeeeeeee',
    checkpoint: undefined
  })
  bench.write(bench.random.bytes(PAGE_BYTES), 0)
  await t.throwsAsync(bench.checkpoint(), {
    instanceOf: NotPublishedError,
    message: /generation 3 .* since generation 2/
  })
  const { branch } = await bed.commit()
  t.like(branch?.published.manifest, { generation: 3, parent: { generation: 2, digest: published.digest } })
})

/** A share that takes nothing from now on, until the returned function is called. */
function hang(task: string): () => void {
  const run = Object.getOwnPropertyDescriptor(CommitPool.prototype, 'run')?.value as CommitPool['run']
  CommitPool.prototype.run = function (this: CommitPool, name: string, input: object) {
    return name === task ? new Promise(() => undefined) : run.call(this, name as 'encode', input as never)
  } as CommitPool['run']
  return () => {
    CommitPool.prototype.run = run
  }
}

test.serial(
  'a share that dies while writes are held lets them go after a while; a later checkpoint goes well',
  async (t) => {
    const bench = new Bench(
      t,
      { disk: Buffer.alloc(8 * BLOCK_BYTES) },
      { restBlocks: 8, instantBlocks: 0, holdMs: 5000 }
    )
    const { bed } = bench
    bench.write(bench.random.bytes(3 * BLOCK_BYTES), 0)
    const back = hang('encode')
    t.teardown(back)
    await t.throwsAsync(bench.checkpoint(), { instanceOf: NotPublishedError, message: /while writes were held/ })
    t.deepEqual(bench.held, ['hold', 'let go'])
    t.is(bed.newest().number, toGeneration(1))
    back()
    const bytes = bench.random.bytes(3 * BLOCK_BYTES)
    bench.write(bytes, 0)
    const { published, holdMs } = await bench.checkpoint({})
    t.is(published?.number, toGeneration(2))
    t.deepEqual(bench.held, ['hold', 'let go', 'hold', 'let go'])
    t.true(holdMs > 0)
    t.true(bench.generation(2).subarray(0, bytes.length).equals(bytes))
  }
)

test.serial('the end of the mount does not wait for a checkpoint that sends, but for one that publishes', async (t) => {
  const bench = new Bench(t, { disk: Buffer.alloc(8 * BLOCK_BYTES) }, { restBlocks: 0 })
  bench.write(bench.random.bytes(3 * BLOCK_BYTES), 0)
  const back = hang('encode')
  t.teardown(back)
  const hanging = bench.checkpoint()
  await setImmediate()
  await bench.checkpointer.stop()
  await t.throwsAsync(hanging, { instanceOf: NotPublishedError, message: /being ended/ })
  back()

  bench.checkpointer = bench.make()
  const announce = bench.bed.session.announceCheckpoint.bind(bench.bed.session)
  let stopped: Promise<void> | undefined
  bench.bed.session.announceCheckpoint = (reference) => {
    announce(reference)
    stopped = bench.checkpointer.stop()
  }
  const { published } = await bench.checkpoint()
  await stopped
  t.is(published?.number, toGeneration(2))
  t.is(bench.bed.session.checkpoint?.generation, 2)
  await t.throwsAsync(bench.checkpoint(), { message: /being ended/ })
})

test('what was synced before a checkpoint is in the session after it, also when its note was all that was written', async (t) => {
  const bench = new Bench(t, { disk: Buffer.alloc(BLOCK_BYTES) })
  const { bed } = bench
  const bytes = bench.random.bytes(BLOCK_BYTES)
  bench.write(bytes, 0)
  await bench.checkpoint()
  // a power cut now: everything that the checkpoint has is durable, without a barrier of anybody else
  const directory = path.join(bed.directory, 'session')
  const file = path.join(directory, 'session.json')
  const copy = path.join(bed.directory, 'copy')
  fs.cpSync(directory, copy, { recursive: true })
  const identity = JSON.parse(fs.readFileSync(file, 'utf8')) as { boot: string }
  fs.writeFileSync(path.join(copy, 'session.json'), JSON.stringify({ ...identity, boot: 'another boot' }))
  const { baseImageOf } = await import('../../src/image/base-image.js')
  const recovered = Session.open(copy, baseImageOf(bed.base.manifest))
  t.teardown(() => recovered.destroy())
  t.is(recovered.recovered?.droppedPages, 0)
  t.is(recovered.checkpoint?.generation, 2)
})

test('a session with lost writes is not published by a checkpoint either', async (t) => {
  const bench = new Bench(t, { disk: Buffer.alloc(BLOCK_BYTES) })
  bench.write(bench.random.bytes(BLOCK_BYTES), 0)
  bench.bed.session.lost.add(bench.bed.file('disk').id, 'a broken disk')
  await t.throwsAsync(bench.checkpoint(), { instanceOf: NotPublishedError, message: /a broken disk/ })
})
