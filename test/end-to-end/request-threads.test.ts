/**
 * A real mount under readers, writers and a truncation at once, on the same regions, while the cache is too small for the file:
 * every byte of every answer is one that the file had during the read. Reads go past the kernel's cache (O_DIRECT).
 */
import fs from 'node:fs'
import { once } from 'node:events'
import path from 'node:path'
import { Worker } from 'node:worker_threads'
import test from 'ava'
import { PAGE_BYTES } from '../../src/base/units.js'
import { Bed } from '../support/bed.js'
import { Random } from '../support/random.js'
import { createVersions, pageOf, type StressData, wrongUnits } from '../support/versioned-pages.js'

const PAGES = 20_000 // 78 MiB, and a cache of 64
const WORKERS = 3
const OPERATIONS = Number(process.env['ISRFS_STRESS_OPERATIONS'] ?? 800)

test.serial('reads are right while the same regions are written, cut and evicted', async (t) => {
  const { seed } = new Random()
  t.log(`seed ${String(seed)}`)
  const bed = new Bed('threads')
  t.teardown(() => bed.destroy())
  const source = bed.makeDirectory('source')
  const content = Buffer.alloc(PAGES * PAGE_BYTES)
  for (let page = 0; page < PAGES; page++) pageOf(page, 0).copy(content, page * PAGE_BYTES)
  fs.writeFileSync(path.join(source, 'disk'), content)
  await bed.mustIsrfs('a', 'import', source, bed.vm())
  const mountpoint = await bed.mount('a', bed.vm(), 'mnt', '--transport', 'direct', '--cache-size', '64M')
  const versions = createVersions(PAGES)
  const wrong = await Promise.all(
    Array.from({ length: WORKERS }, async (_, worker) => {
      const workerData: StressData = {
        file: path.join(mountpoint, 'disk'),
        seed: seed + worker,
        worker,
        workers: WORKERS,
        operations: OPERATIONS,
        versions
      }
      const thread = new Worker(new URL('../support/stress-worker.js', import.meta.url), { workerData })
      const [found] = (await once(thread, 'message')) as [string[]]
      return found
    })
  )
  t.deepEqual(wrong.flat(), [])
  const { stdout } = await bed.mustIsrfs('a', 'status', mountpoint, '--json')
  const status = JSON.parse(stdout) as { threadReads: number; threadWrites: number }
  t.log(`${String(status.threadReads)} reads and ${String(status.threadWrites)} writes answered by threads`)
  t.true(status.threadReads > OPERATIONS / 10)
  t.true(status.threadWrites > OPERATIONS / 100)
  await bed.unmount('a', mountpoint)
  await bed.mustIsrfs('b', 'export', bed.vm(), bed.makeDirectory('exported'))
  const exported = fs.readFileSync(bed.path('exported', 'disk'))
  t.is(exported.length, content.length)
  t.deepEqual(wrongUnits(exported, 0, versions, versions), [])
})
