/** Commits whose units are compressed in different ways: to readers, retries and repairs they are all the same. */
import { randomBytes } from 'node:crypto'
import fs from 'node:fs'
import test, { type ExecutionContext } from 'ava'
import { sha256 } from '../../src/base/digest.js'
import { NotPublishedError } from '../../src/base/errors.js'
import { BLOCK_BYTES } from '../../src/base/units.js'
import type { CachedBytes } from '../../src/cache/find-cached.js'
import { CompressionChoice } from '../../src/commit/compression-choice.js'
import { type Compression, COMPRESSION_LEVELS, encodeBlock } from '../../src/format/block-codec.js'
import { repairChunks } from '../../src/history/repair.js'
import { CommitBed, contentOf } from './commit-bed.js'

const WAYS: readonly Compression[] = ['raw', ...COMPRESSION_LEVELS]

let chosen: Compression = 1
Object.defineProperty(CompressionChoice.prototype, 'compression', { get: () => chosen })

function bedOf(t: ExecutionContext): CommitBed {
  const bed = new CommitBed({ disk: randomBytes(BLOCK_BYTES) })
  t.teardown(() => bed.destroy())
  return bed
}

/** Blocks of words in an order of their own: levels differ in what they make of them. */
function texts(count: number): Buffer {
  const words = Array.from({ length: 512 }, () => randomBytes(5).toString('hex'))
  const text = (): string => Array.from(randomBytes(BLOCK_BYTES / 8), (at, n) => words[(at + n) % 512] ?? '').join(' ')
  return Buffer.concat(Array.from({ length: count }, () => Buffer.from(text()).subarray(0, BLOCK_BYTES)))
}

test.serial('what was compressed in any way is read back', async (t) => {
  const bed = bedOf(t)
  const sent: number[] = []
  for (chosen of WAYS) {
    const content = texts(4)
    bed.session.write(bed.file('disk'), content, 0)
    const published = await bed.publish()
    sent.push(published.manifest.sentBytes)
    t.true(contentOf(bed.share, published, 'disk').equals(content), String(chosen))
  }
  t.true((sent[0] ?? 0) > 4 * BLOCK_BYTES, 'raw')
  t.is(new Set(sent).size, WAYS.length, `the ways differ: ${sent.join(' ')}`)
})

test.serial('a try with another level than the one before sends only what was not sent', async (t) => {
  const bed = bedOf(t)
  const content = texts(4)
  bed.session.write(bed.file('disk'), content, 0)
  chosen = 9
  const onProgress = ({ phase }: { phase: string }): void => {
    if (phase === 'publish') throw new Error('the share went away')
  }
  await t.throwsAsync(bed.commit({ onProgress }), { instanceOf: NotPublishedError })
  await bed.reopen()
  chosen = 1
  t.is((await bed.commit()).sentBytes, 0)
  t.true(contentOf(bed.share, bed.newest(), 'disk').equals(content))
})

test.serial('chunks of every level, and raw ones, are repaired from a cache', async (t) => {
  const bed = bedOf(t)
  for (chosen of WAYS) {
    const content = texts(3)
    bed.session.write(bed.file('disk'), content, 0)
    const before = bed.chunks()
    await bed.publish()
    const blocks = new Map(
      [0, 1, 2].map((index) => {
        const block = content.subarray(index * BLOCK_BYTES, (index + 1) * BLOCK_BYTES)
        return [sha256(block).toString('hex'), block]
      })
    )
    const cached = { block: (digest: string) => blocks.get(digest), mapObject: () => undefined }
    const [[file] = ['']] = [...bed.chunks()].filter(([name]) => !before.has(name)).sort((a, b) => b[1] - a[1])
    const whole = fs.readFileSync(file)
    fs.writeFileSync(file, whole.subarray(0, whole.length / 2))
    // a stand-in for what is on a client's disk
    const { repaired, failed } = repairChunks(bed.share, [file], cached as unknown as CachedBytes)
    t.deepEqual(failed, [])
    t.deepEqual(repaired, [file], String(chosen))
    t.true(fs.readFileSync(file).equals(whole))
  }
})

test('raw leaves out the zeros at the end', (t) => {
  const block = Buffer.alloc(BLOCK_BYTES)
  block.write('text')
  t.deepEqual(encodeBlock(block, 'raw'), { encoding: 'raw', bytes: Buffer.from('text') })
})
