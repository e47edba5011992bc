/** Ends that nobody asked for, of the direct transport: nothing waits for ever, and what was synced is there afterwards. */
import { once } from 'node:events'
import fs from 'node:fs'
import path from 'node:path'
import anyTest, { type TestFn } from 'ava'
import { Bed, CLI, isAlive, waitFor } from '../support/bed.js'

const test = anyTest as TestFn<{ bed: Bed }>

test.beforeEach(async (t) => {
  const bed = (t.context.bed = new Bed('ends'))
  const source = bed.makeDirectory('source')
  fs.writeFileSync(path.join(source, 'file'), 'first')
  await bed.mustIsrfs('a', 'import', source, bed.vm())
})
test.afterEach.always((t) => t.context.bed.destroy())

/** Through a descriptor that stays open: a dead mount may refuse its close. */
function writeSynced(file: string, text: string): number {
  const descriptor = fs.openSync(file, 'r+')
  fs.writeSync(descriptor, text, 0)
  fs.fsyncSync(descriptor)
  return descriptor
}

function closeOfDead(descriptor: number): void {
  try {
    fs.closeSync(descriptor)
  } catch {
    // ENOTCONN, as it should be
  }
}

test.serial('an aborted connection ends the daemon, and what was synced is published', async (t) => {
  const { bed } = t.context
  const mountpoint = await bed.mount('a', bed.vm(), 'mnt', '--transport', 'direct')
  const { pid } = await bed.status('a', mountpoint)
  const descriptor = writeSynced(path.join(mountpoint, 'file'), 'second')
  const device = fs.statSync(mountpoint).dev
  const control = bed.makeDirectory('fusectl')
  t.is((await bed.command('mount', ['-t', 'fusectl', 'none', control])).code, 0)
  try {
    fs.writeFileSync(path.join(control, String(device), 'abort'), '1')
  } finally {
    await bed.command('umount', [control])
  }
  t.throws(() => fs.statfsSync(mountpoint)) // a request; attributes are in the kernel's cache
  await waitFor(() => !isAlive(pid), 'the daemon to end')
  closeOfDead(descriptor)
  const mounted = await bed.isrfs('a', 'mount', bed.vm(), mountpoint, '--transport', 'direct')
  t.is(mounted.code, 0, mounted.stderr)
  t.is(fs.readFileSync(path.join(mountpoint, 'file'), 'utf8'), 'second')
  t.is((await bed.status('a', mountpoint)).generation, 2)
  await bed.unmount('a', mountpoint)
})

/** In each process and thread: reading throws once there is the file. Only threads that read from the kernel use so much room. */
const BREAKS = `data:text/javascript,
  import fs from 'node:fs'
  import { isMainThread } from 'node:worker_threads'
  const read = fs.readSync
  if (!isMainThread) fs.readSync = (descriptor, into, ...rest) => {
    const count = read(descriptor, into, ...rest)
    if (into.length > 1048576 && fs.existsSync(process.env.ISRFS_TEST_BREAK)) throw new Error('a defect in a thread')
    return count
  }`

test.serial(
  'a defect in a thread that reads requests ends the process with all its threads, and nobody waits',
  async (t) => {
    const { bed } = t.context
    const mountpoint = bed.makeDirectory('mnt')
    bed.rememberMount(mountpoint)
    const env = {
      ...process.env,
      NODE_OPTIONS: `--import=${encodeURI(BREAKS.replaceAll(/\n\s*/g, ';').replace(',;', ','))}`,
      ISRFS_TEST_BREAK: bed.path('break')
    }
    const words = ['--client-dir', bed.path('client-a'), 'mount', bed.vm(), mountpoint, '--transport', 'direct']
    const started = await bed.command(process.execPath, [CLI, ...words], { env })
    t.is(started.code, 0, started.stderr)
    const { pid } = await bed.status('a', mountpoint)
    const descriptor = writeSynced(path.join(mountpoint, 'file'), 'second')
    fs.writeFileSync(bed.path('break'), '')
    const asks = bed.spawn('stat', [path.join(mountpoint, 'a name that nobody has asked for')])
    await once(asks, 'exit') // its request is gone with the thread
    await waitFor(() => !isAlive(pid), 'the daemon to end')
    closeOfDead(descriptor)
    const log = bed.path('client-a', 'log', fs.readdirSync(bed.path('client-a', 'log'))[0] ?? '')
    t.regex(fs.readFileSync(log, 'utf8'), /a defect in a thread/)
    const mounted = await bed.isrfs('a', 'mount', bed.vm(), mountpoint, '--transport', 'direct')
    t.is(mounted.code, 0, mounted.stderr)
    t.is(fs.readFileSync(path.join(mountpoint, 'file'), 'utf8'), 'second')
    await bed.unmount('a', mountpoint)
  }
)
