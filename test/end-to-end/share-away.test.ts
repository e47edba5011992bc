/**
 * The share is taken away under a living mount (an umount, a dropped sshfs, autofs) for longer than a few beats, and comes back:
 * the lease is held as before, nothing was made in its place, and everything is published.
 */
import fs from 'node:fs'
import path from 'node:path'
import { fileURLToPath } from 'node:url'
import anyTest, { type ExecutionContext, type TestFn } from 'ava'
import { Bed, type StatusJson, waitFor } from '../support/bed.js'
import { Random } from '../support/random.js'

const BLOCK_BYTES = 128 * 1024
const PAGE_BYTES = 4096
const LIMIT_MS = 180_000
const FAST_TRICKLE = fileURLToPath(new URL('../../../test/support/fast-trickle.js', import.meta.url))

type Status = StatusJson & { readonly shareAnswers: boolean; readonly lease: string }

const test = anyTest as TestFn<{ bed: Bed; disk: Buffer; random: Random }>

test.beforeEach(async (t) => {
  const bed = new Bed('away')
  const random = new Random()
  const disk = random.bytes(96 * BLOCK_BYTES)
  t.log(`seed ${String(random.seed)}`)
  fs.writeFileSync(path.join(bed.makeDirectory('source'), 'disk'), disk)
  await bed.mustIsrfs('a', 'import', bed.path('source'), bed.vm())
  Object.assign(t.context, { bed, disk, random })
})
test.afterEach.always(async (t) => {
  comeBack(t)
  await t.context.bed.destroy()
})

type Context = ExecutionContext<{ bed: Bed; disk: Buffer; random: Random }>

async function status({ context: { bed } }: Context, mountpoint: string): Promise<Status> {
  return (await bed.status('a', mountpoint)) as Status
}

async function untilAnswers(t: Context, mountpoint: string, answers: boolean): Promise<void> {
  const what = answers ? 'the share to answer' : 'the share to be missed'
  await waitFor(async () => (await status(t, mountpoint)).shareAnswers === answers, what, LIMIT_MS)
}

function comeBack({ context: { bed } }: Context): void {
  if (!fs.existsSync(bed.path('away'))) return
  fs.rmSync(bed.path('share'), { recursive: true, force: true })
  fs.renameSync(bed.path('away'), bed.path('share'))
}

/** Durable when it returns: what the mount has accepted. */
function write(file: string, bytes: Buffer, offset: number): void {
  const fd = fs.openSync(file, 'r+')
  fs.writeSync(fd, bytes, 0, bytes.length, offset)
  fs.fsyncSync(fd)
  fs.closeSync(fd)
}

function beats({ context: { bed } }: Context): number {
  const beat = path.join(bed.vm(), 'leases', '00000001', 'beat.json')
  return fs.existsSync(beat) ? (JSON.parse(fs.readFileSync(beat, 'utf8')) as { count: number }).count : 0
}

test.serial(
  'with changes that trickle: nothing is lost, nothing is made where the share was, the lease is held',
  async (t) => {
    const { bed, disk, random } = t.context
    process.env['NODE_OPTIONS'] = `--import=${FAST_TRICKLE}`
    t.teardown(() => delete process.env['NODE_OPTIONS'])
    const mountpoint = await bed.mount('a', bed.vm(), 'mnt')
    const file = path.join(mountpoint, 'disk')
    const change = (block: number): void => {
      const bytes = random.bytes(40 * BLOCK_BYTES)
      bytes.copy(disk, block * BLOCK_BYTES)
      write(file, bytes, block * BLOCK_BYTES)
    }
    await waitFor(() => beats(t) > 0, 'the first beat', LIMIT_MS)
    change(2)
    fs.renameSync(bed.path('share'), bed.path('away'))
    await untilAnswers(t, mountpoint, false)
    fs.mkdirSync(bed.vm(), { recursive: true }) // as a mountpoint that is the VM's directory
    change(50)
    await new Promise((resolve) => setTimeout(resolve, 12_000)) // two beats, and any number of tries to send
    t.deepEqual(fs.readdirSync(bed.path('share'), { recursive: true }), ['testvm'])
    t.like(await status(t, mountpoint), { lease: 'held', shareAnswers: false, trickledBytes: 0 })
    comeBack(t)
    const before = beats(t)
    await untilAnswers(t, mountpoint, true)
    await waitFor(() => beats(t) > before, 'beats to go on', LIMIT_MS)
    t.is((await status(t, mountpoint)).lease, 'held')
    await waitFor(async () => (await status(t, mountpoint)).trickledBytes > 0, 'changes to be sent', LIMIT_MS)
    await bed.unmount('a', mountpoint)
    t.regex((await bed.mustIsrfs('a', 'log', bed.vm())).stdout, /^ +2 /m)
    t.is((await bed.mustIsrfs('a', 'check', bed.vm(), '--read-data')).code, 0)
    await bed.mustIsrfs('b', 'export', bed.vm(), bed.path('exported'))
    t.true(fs.readFileSync(bed.path('exported', 'disk')).equals(disk))
  }
)

test.serial('a page that was changed is read at once, although the rest of its block is not here', async (t) => {
  const { bed, disk, random } = t.context
  const mountpoint = await bed.mount('a', bed.vm(), 'mnt', '--no-trickle')
  const file = path.join(mountpoint, 'disk')
  const changed = random.bytes(2 * PAGE_BYTES)
  changed.copy(disk, 60 * BLOCK_BYTES + 7 * PAGE_BYTES)
  write(file, changed, 60 * BLOCK_BYTES + 7 * PAGE_BYTES)
  fs.renameSync(bed.path('share'), bed.path('away'))
  await untilAnswers(t, mountpoint, false)
  await bed.command('dd', [`of=${file}`, 'oflag=nocache', 'conv=notrunc,fdatasync', 'count=0', 'status=none'])
  const read = (name: string, blockBytes: number, skip: number, count: number): Promise<{ readonly code: number }> =>
    bed.command('dd', [
      `if=${file}`,
      `of=${bed.path(name)}`,
      ...[`bs=${String(blockBytes)}`, `skip=${String(skip)}`, `count=${String(count)}`, 'status=none']
    ])
  const page = 60 * (BLOCK_BYTES / PAGE_BYTES) + 7
  t.is((await read('changed', PAGE_BYTES, page, 2)).code, 0)
  t.true(fs.readFileSync(bed.path('changed')).equals(changed))
  let isRead = false
  const reading = read('block', BLOCK_BYTES, 60, 1).finally(() => (isRead = true))
  await new Promise((resolve) => setTimeout(resolve, 4000))
  t.false(isRead, 'pages that are absent wait')
  comeBack(t)
  t.is((await reading).code, 0)
  t.true(fs.readFileSync(bed.path('block')).equals(disk.subarray(60 * BLOCK_BYTES, 61 * BLOCK_BYTES)))
  await bed.unmount('a', mountpoint)
})
