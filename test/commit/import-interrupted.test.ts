import { randomBytes } from 'node:crypto'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import fs from 'node:fs'
import path from 'node:path'
import { fileURLToPath } from 'node:url'
import anyTest, { type TestFn } from 'ava'
import { LeaseHeldError } from '../../src/base/errors.js'
import { differences } from '../support/compare.js'
import { Random } from '../support/random.js'
import { ImportBed } from './import-bed.js'

const test = anyTest as TestFn<ImportBed>
test.beforeEach((t) => {
  t.context = new ImportBed()
})
test.afterEach.always((t) => {
  t.context.destroy()
})

const MIB = 2 ** 20

test('an import that is killed leaves no VM, and its repetition sends only what was not sent', async (t) => {
  const bed = t.context
  fs.writeFileSync(bed.inSource('disk'), randomBytes(96 * MIB))
  const script = fileURLToPath(new URL('./import-child.js', import.meta.url))
  const child = spawn(process.execPath, [script, bed.source, bed.vm], { stdio: 'inherit' })
  const [, signal] = (await once(child, 'exit')) as [unknown, string]
  t.is(signal, 'SIGKILL')
  t.false(fs.existsSync(bed.vm))
  t.deepEqual(fs.readdirSync(bed.share), ['.testvm.isrfs-import'])
  t.false(fs.existsSync(path.join(bed.share, '.testvm.isrfs-import', 'vm.json')))

  const again = await bed.import()
  t.true(again.sentBytes < 81 * MIB, `${again.sentBytes}`)
  t.deepEqual(fs.readdirSync(bed.share), ['testvm'])
  await bed.export(bed.path('out'))
  t.deepEqual(differences(bed.source, bed.path('out')), [])
})

test('chunks of an interrupted import that are of no use any more are removed', async (t) => {
  const bed = t.context
  const random = new Random()
  fs.writeFileSync(bed.inSource('disk'), random.bytes(64 * MIB))
  const abort = new AbortController()
  const onProgress = ({ sentBytes }: { sentBytes: number }): void => {
    if (sentBytes > 0) abort.abort()
  }
  const error = await t.throwsAsync(bed.import({ signal: abort.signal, onProgress, threads: 1 }))
  t.regex(error.message, /interrupted/)
  const staging = bed.path('share', '.testvm.isrfs-import')
  t.true(bed.chunks(staging).length > 0)
  t.false(fs.existsSync(bed.vm))
  fs.writeFileSync(bed.inSource('disk'), random.bytes(20 * MIB))
  await bed.import()
  t.is(bed.chunks().length, 4) // two of the disk, its map page, its root
})

test('of two imports to one place the second is refused while the first runs', async (t) => {
  const bed = t.context
  fs.writeFileSync(bed.inSource('disk'), randomBytes(20 * MIB))
  const results = await Promise.allSettled([bed.import(), bed.import()])
  t.is(results.filter(({ status }) => status === 'fulfilled').length, 1)
  const failed = results.find((result) => result.status === 'rejected')
  t.true(failed?.reason instanceof LeaseHeldError)
  t.regex(String(failed?.reason), /another import to this place is running/)
  await bed.export(bed.path('out'))
})

test('an import that was begun on another machine is not judged from here', async (t) => {
  const bed = t.context
  fs.writeFileSync(bed.inSource('file'), 'x')
  const abort = new AbortController()
  abort.abort()
  const staging = bed.path('share', '.testvm.isrfs-import')
  const record = {
    format: 'isrfs-import',
    version: 1,
    token: '1'.repeat(32),
    host: 'elsewhere',
    machine: 'm',
    boot: 'b',
    processes: 'p',
    pid: 7,
    started: '1',
    since: 'today'
  }
  fs.mkdirSync(path.join(staging, 'tmp', 'import-00000004'), { recursive: true })
  fs.writeFileSync(path.join(staging, 'tmp', 'import-00000004', 'owner.json'), JSON.stringify(record))
  const error = await t.throwsAsync(bed.import(), { instanceOf: LeaseHeldError })
  t.regex(error.message, /elsewhere/)
  t.true(error.hint?.includes(staging))
  fs.rmSync(staging, { recursive: true })
  await bed.import()
})

test('a file that is written during the import fails it', async (t) => {
  const bed = t.context
  fs.writeFileSync(bed.inSource('disk'), randomBytes(40 * MIB))
  fs.writeFileSync(bed.inSource('log'), 'x')
  let changed = false
  const onProgress = ({ phase, doneBytes }: { phase: string; doneBytes: number }): void => {
    if (phase === 'data' && doneBytes > 0 && !changed) fs.appendFileSync(bed.inSource('log'), 'y')
    changed ||= doneBytes > 0
  }
  const error = await t.throwsAsync(bed.import({ onProgress, threads: 1 }))
  t.regex(error.message, /log (changed|became shorter)/)
  t.false(fs.existsSync(bed.vm))
})

test('a file that gets shorter or disappears during the import fails it', async (t) => {
  const bed = t.context
  for (const change of [(name: string) => fs.truncateSync(name, 10), (name: string) => fs.rmSync(name)]) {
    fs.writeFileSync(bed.inSource('disk'), randomBytes(40 * MIB))
    let done = false
    const onProgress = ({ phase }: { phase: string }): void => {
      if (phase === 'data' && !done) change(bed.inSource('disk'))
      done ||= phase === 'data'
    }
    await t.throwsAsync(bed.import({ onProgress, threads: 1 }), {
      message: /disk (changed|became shorter)|cannot read .*disk/
    })
  }
  t.false(fs.existsSync(bed.vm))
})
