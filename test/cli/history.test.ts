/** log, diff, check, rollback and prune as a person types them: what they print, and their exit codes. */
import fs from 'node:fs'
import path from 'node:path'
import anyTest, { type TestFn } from 'ava'
import { createSessionPin } from '../../src/share/pin.js'
import { Share } from '../../src/share/share.js'
import { Bed } from '../support/bed.js'
import { Random } from '../support/random.js'

const test = anyTest as TestFn<{ bed: Bed }>

test.beforeEach(async (t) => {
  const bed = new Bed('history')
  t.context.bed = bed
  const random = new Random(1)
  const source = bed.makeDirectory('source')
  for (let generation = 1; generation <= 3; generation++) {
    fs.writeFileSync(path.join(source, 'disk'), random.bytes(300_000))
    await bed.mustIsrfs('a', 'import', source, bed.vm(), ...(generation === 1 ? [] : ['--update']))
  }
})
test.afterEach.always((t) => t.context.bed.destroy())

test('the history of a VM: seen, compared, checked, rolled back and pruned', async (t) => {
  const { bed } = t.context
  const differences = await bed.mustIsrfs('a', 'diff', bed.vm(), '1', '3')
  t.regex(differences.stdout, /changed +384 KiB +\/disk/)
  t.true((JSON.parse((await bed.mustIsrfs('a', 'diff', bed.vm(), '1', '3', '--json')).stdout) as object[]).length > 0)
  t.regex((await bed.mustIsrfs('a', 'diff', bed.vm(), '2', '2')).stderr, /nothing differs/)
  t.regex((await bed.mustIsrfs('a', 'check', bed.vm(), '--read-data')).stderr, /is whole: 3 generations/)
  t.regex((await bed.mustIsrfs('a', 'rollback', bed.vm(), '1')).stdout, /generation 4 .* content of 1/)
  t.regex((await bed.mustIsrfs('a', 'rollback', bed.vm(), '4')).stdout, /newest one already/)
  t.regex(
    (await bed.mustIsrfs('a', 'prune', bed.vm(), '--keep', '1', '--grace', '0s')).stdout,
    /would remove generations 1, 2, 3/
  )
  t.regex(
    (await bed.mustIsrfs('a', 'prune', bed.vm(), '--keep', '1', '--grace', '0s', '--yes')).stdout,
    /^removed generations 1, 2, 3/
  )
  const log = (await bed.mustIsrfs('a', 'log', bed.vm())).stdout
  t.regex(log, /restores 1/)
  t.is(log.match(/pruned/g)?.length, 3)
  const entries = JSON.parse((await bed.mustIsrfs('a', 'log', bed.vm(), '--json')).stdout) as { pruned?: string }[]
  t.is(entries.filter(({ pruned }) => pruned !== undefined).length, 3)
  const gone = await bed.isrfs('a', 'mount', bed.vm(), bed.makeDirectory('mnt'), '--generation', '2')
  t.is(gone.code, 1)
  t.regex(gone.stderr, /was pruned/)
  await bed.mustIsrfs('b', 'export', bed.vm(), bed.path('out'))
})

test('a prune without any grace leaves a living read-only mount what it shows', async (t) => {
  const { bed } = t.context
  await bed.mustIsrfs('a', 'export', bed.vm(), bed.path('first'), '--generation', '1')
  const mountpoint = await bed.mount('b', bed.vm(), 'mnt', '--read-only', '--generation', '1')
  for (const expected of [/^removed generations 2;/, /^removed no generation;/]) {
    const pruned = await bed.mustIsrfs('a', 'prune', bed.vm(), '--keep', '1', '--grace', '0s', '--yes')
    t.regex(pruned.stdout, expected)
    t.regex(pruned.stderr, /generation 1 stays: in use by .*mnt, since .*: rm -r /)
  }
  const wanted = fs.readFileSync(bed.path('first', 'disk'))
  t.true(fs.readFileSync(path.join(mountpoint, 'disk')).equals(wanted))
  await bed.unmount('b', mountpoint)
})

test('a prune that may remove no chunk says because of whom, and how that ends', async (t) => {
  const { bed } = t.context
  const holder = { client: 'ab'.repeat(16), host: 'gone.example', user: 'u', pid: 1, boot: 'b', mountpoint: '/m' }
  const { name } = createSessionPin(new Share(bed.vm()), holder, 1, 3)
  const prune = ['prune', bed.vm(), '--keep', '1', '--grace', '0s']
  const pin = path.join(bed.vm(), name)
  for (const words of [prune, [...prune, '--yes']]) {
    const { stderr } = await bed.mustIsrfs('a', ...words)
    t.regex(stderr, /no chunk is removed: gone\.example may have changes .* since 20\d\d-.*; isrfs recover \/.* there/)
    t.true(stderr.includes(`for good: rm -r ${pin}\n`), stderr)
    t.notRegex(stderr, /a later prune removes them/)
  }
  fs.rmSync(pin, { recursive: true })
  const freed = await bed.mustIsrfs('a', ...prune, '--yes')
  t.regex(freed.stdout, /moved [1-9]\d* unused chunks/)
  t.notRegex(freed.stderr, /no chunk is removed/)
})

test('damage is exit 4 and names object, generation, file and range', async (t) => {
  const { bed } = t.context
  const chunks = path.join(bed.vm(), 'chunks')
  const files = fs
    .readdirSync(chunks)
    .flatMap((name) => fs.readdirSync(path.join(chunks, name)).map((chunk) => path.join(chunks, name, chunk)))
  const largest = files.sort((first, second) => fs.statSync(second).size - fs.statSync(first).size)[0] ?? ''
  fs.truncateSync(largest, 1000)
  const checked = await bed.isrfs('a', 'check', bed.vm())
  t.is(checked.code, 4)
  t.true(checked.stdout.startsWith(largest), checked.stdout)
  t.regex(checked.stdout, /generation \d: disk, bytes 0 to 300000/)
  const json = JSON.parse((await bed.isrfs('a', 'check', bed.vm(), '--json')).stdout) as { bad: { path: string }[] }
  t.deepEqual(
    json.bad.map((object) => object.path),
    [largest]
  )
})

test('wrong words are usage errors', async (t) => {
  const { bed } = t.context
  t.is((await bed.isrfs('a', 'prune', bed.vm(), '--keep', '0')).code, 2)
  t.is((await bed.isrfs('a', 'rollback', bed.vm(), 'newest')).code, 2)
  t.is((await bed.isrfs('a', 'rollback', bed.vm(), '9')).code, 1)
  t.is((await bed.isrfs('a', 'rollback', bed.vm(), '9-abc')).code, 1)
})

test('check --cache drops cached blocks that are not what their region claims', async (t) => {
  const { bed } = t.context
  const mountpoint = await bed.mount('a', bed.vm(), 'mnt')
  const disk = fs.readFileSync(path.join(mountpoint, 'disk'))
  t.regex((await bed.mustIsrfs('a', 'check', '--cache')).stderr, /a mount is using it/)
  await bed.unmount('a', mountpoint)
  const good = await bed.mustIsrfs('a', 'check', '--cache')
  t.regex(good.stderr, /3 cached blocks, 0 bad/)
  const cache = bed.path('client-a', 'cache')
  const region = (fs.readdirSync(cache, { recursive: true }) as string[]).find((name) => /\/\d+-\d+$/.test(name)) ?? ''
  const fd = fs.openSync(path.join(cache, region), 'r+')
  fs.writeSync(fd, 'damage', 1000)
  fs.closeSync(fd)
  t.regex((await bed.mustIsrfs('a', 'check', '--cache')).stdout, /dropped: .*, block 0/)
  t.regex((await bed.mustIsrfs('a', 'check', '--cache', '--json')).stdout, /"blocks":2,"bad":\[\]/)
  t.is((await bed.isrfs('a', 'check')).code, 2)
  const again = await bed.mount('a', bed.vm(), 'mnt', '--read-only')
  t.true(fs.readFileSync(path.join(again, 'disk')).equals(disk))
  await bed.unmount('a', again)
})

test('check --repair puts chunks back that a client has in its cache, and says what it cannot put back', async (t) => {
  const { bed } = t.context
  const mountpoint = await bed.mount('a', bed.vm(), 'mnt')
  const content = fs.readFileSync(path.join(mountpoint, 'disk'))
  await bed.unmount('a', mountpoint)
  const checked = JSON.parse((await bed.mustIsrfs('a', 'check', bed.vm(), '--json')).stdout) as { bad: unknown[] }
  t.deepEqual(checked.bad, [])
  const chunks = path.join(bed.vm(), 'chunks')
  const files = fs
    .readdirSync(chunks)
    .flatMap((name) => fs.readdirSync(path.join(chunks, name)).map((chunk) => path.join(chunks, name, chunk)))
  const newestFirst = files.sort((first, second) => fs.statSync(second).mtimeMs - fs.statSync(first).mtimeMs)
  const originals = new Map(files.map((file) => [file, fs.readFileSync(file)]))
  for (const [index, file] of newestFirst.entries()) {
    if (index % 3 === 0) fs.rmSync(file)
    else if (index % 3 === 1) fs.truncateSync(file, Math.floor(fs.statSync(file).size / 2))
    else fs.writeFileSync(file, Buffer.alloc(fs.statSync(file).size, 7))
  }
  const repaired = await bed.isrfs('a', 'check', bed.vm(), '--repair')
  t.is(repaired.code, 4, 'blocks of older generations were never read here')
  t.regex(repaired.stderr, /put back from the cache: /)
  t.regex(repaired.stderr, /not put back: .*: this client's cache lacks \d+ of its \d+ pieces/)
  for (const [file, bytes] of originals) {
    if (repaired.stderr.includes(`put back from the cache: ${file}`)) t.true(fs.readFileSync(file).equals(bytes))
  }
  t.is((await bed.isrfs('b', 'check', bed.vm(), '--generation', '3', '--read-data')).code, 0)
  const elsewhere = await bed.mount('b', bed.vm(), 'mnt-b', '--read-only')
  t.true(fs.readFileSync(path.join(elsewhere, 'disk')).equals(content))
  await bed.unmount('b', elsewhere)
})

test('check --repair leaves a chunk that cannot be put back as it was, with a generation that has the same content', async (t) => {
  const { bed } = t.context
  const source = bed.path('source')
  const disk = fs.readFileSync(path.join(source, 'disk'))
  disk.fill(1, 0, 1000) // the first of three blocks: the chunk of the third generation keeps a piece that nobody uses
  fs.writeFileSync(path.join(source, 'disk'), disk)
  await bed.mustIsrfs('a', 'import', source, bed.vm(), '--update')
  await bed.mustIsrfs('a', 'prune', bed.vm(), '--keep', '1', '--grace', '0s', '--yes')
  const mountpoint = await bed.mount('a', bed.vm(), 'mnt')
  t.true(fs.readFileSync(path.join(mountpoint, 'disk')).equals(disk))
  const lost = largestChunk(bed.vm())
  fs.rmSync(lost)
  const inUse = await bed.isrfs('a', 'check', bed.vm(), '--repair')
  t.is(inUse.code, 4)
  t.regex(inUse.stderr, /not published once more without what is damaged: .*unmount it first/)
  await bed.unmount('a', mountpoint)
  const repaired = await bed.isrfs('a', 'check', bed.vm(), '--repair')
  t.is(repaired.code, 4, 'the fourth generation needs the lost chunk for ever')
  t.regex(repaired.stderr, /generation 5 has the same content as generation 4/)
  t.regex(repaired.stdout, /generation 4: disk/)
  t.notRegex(repaired.stdout, /generation 5: disk/)
  await bed.mustIsrfs('a', 'prune', bed.vm(), '--keep', '1', '--grace', '0s', '--yes')
  await bed.mustIsrfs('b', 'check', bed.vm(), '--read-data')
  const elsewhere = await bed.mount('b', bed.vm(), 'mnt-b')
  t.true(fs.readFileSync(path.join(elsewhere, 'disk')).equals(disk))
  await bed.unmount('b', elsewhere)
})

function largestChunk(vm: string): string {
  const chunks = path.join(vm, 'chunks')
  const files = fs
    .readdirSync(chunks)
    .flatMap((name) => fs.readdirSync(path.join(chunks, name)).map((chunk) => path.join(chunks, name, chunk)))
  return files.sort((first, second) => fs.statSync(second).size - fs.statSync(first).size)[0] ?? ''
}
