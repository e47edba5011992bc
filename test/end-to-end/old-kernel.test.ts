/**
 * A mount on a kernel whose FUSE protocol is too old for the direct transport. The kernel is this one: only the version that
 * the transport asks for is raised (test/support/old-kernel.js), so the refusal, the end of that mount and the next one are real.
 */
import test from 'ava'
import fs from 'node:fs'
import path from 'node:path'
import { Bed, CLI, isMounted, openFiles, type Result } from '../support/bed.js'

const OLD_KERNEL = `--import ${path.resolve('test/support/old-kernel.js')}`
const NO_BINDING = `--require ${path.resolve('test/support/no-binding.cjs')}`
const WHY = String.raw`this kernel speaks FUSE 7\.\d+; the direct transport needs 7\.31 or newer`
const FILE_BYTES = 3 * 2 ** 20

const bed = new Bed('old-kernel')
const bytes = Buffer.alloc(FILE_BYTES, 'a disk of a machine that has seen several kernels ')
const vm = bed.vm()

test.before(async () => {
  const source = bed.makeDirectory('source')
  fs.writeFileSync(path.join(source, 'disk.raw'), bytes)
  await bed.mustIsrfs('importer', 'import', source, vm)
  fs.linkSync(path.join(source, 'disk.raw'), path.join(source, 'second name'))
  await bed.mustIsrfs('importer', 'import', source, bed.vm('linked'))
})
test.after.always(() => bed.destroy())

function isrfs(nodeOptions: string, ...words: string[]): Promise<Result> {
  const env = { ...process.env, NODE_OPTIONS: nodeOptions }
  return bed.command(process.execPath, [CLI, '--client-dir', bed.path('client'), ...words], { env })
}

function mountpoint(name: string): string {
  const directory = bed.makeDirectory(name)
  bed.rememberMount(directory)
  return directory
}

test.serial(
  'the binding serves it, everything says so, and nothing is kept for threads that are not there',
  async (t) => {
    const at = mountpoint('served')
    const mounted = await isrfs(OLD_KERNEL, 'mount', '--transport', 'direct', vm, at)
    t.is(mounted.code, 0, mounted.stderr)
    t.regex(mounted.stderr, new RegExp(`${WHY}; falling back to the binding`))

    const file = path.join(at, 'disk.raw')
    t.true(fs.readFileSync(file).equals(bytes))
    const descriptor = fs.openSync(file, 'r+')
    for (const round of [1, 2, 3]) {
      // more pages than travel in the journal: of the next write there, threads could do their own
      bytes.fill(round, 0, 2 ** 20)
      fs.writeSync(descriptor, bytes, 0, 2 ** 20, 0)
      fs.fsyncSync(descriptor)
    }
    fs.closeSync(descriptor)
    t.true(fs.readFileSync(file).equals(bytes))

    const { stdout } = await isrfs('', 'status', at, '--json')
    const status = JSON.parse(stdout) as { pid: number; log: string; transport: string; threadReads: number }
    t.is(status.transport, 'binding')
    t.is(status.threadReads, 0)
    const events = fs.readFileSync(status.log, 'utf8').trim().split('\n')
    const told = events.map((line) => JSON.parse(line) as { event?: string; transport?: string })
    t.deepEqual(
      told.filter(({ event }) => event === 'mounted').map(({ transport }) => transport),
      ['binding']
    )
    const open = regionFilesOf(status.pid)
    t.true(open.length > 0)
    t.deepEqual(open, [...new Set(open)], 'no region file is opened a second time for threads')

    const unmounted = await isrfs('', 'unmount', at)
    t.is(unmounted.code, 0, unmounted.stderr)
    await bed.mustIsrfs('reader', 'export', vm, bed.path('exported'))
    t.true(fs.readFileSync(bed.path('exported', 'disk.raw')).equals(bytes))
  }
)

test.serial('without the binding it is refused with what helps, and nothing stays behind', async (t) => {
  const at = mountpoint('refused')
  const mounted = await isrfs(`${OLD_KERNEL} ${NO_BINDING}`, 'mount', vm, at)
  t.is(mounted.code, 1)
  t.regex(
    mounted.stderr,
    new RegExp(`${WHY}, and the binding cannot take its place: the FUSE binding is not installed`)
  )
  t.regex(mounted.stderr, /add the binding: sh mount-scripts\/setup --binding/)
  t.notRegex(mounted.stderr, /transport direct\b(?! needs)|falling back/)
  t.false(isMounted(at))
  t.regex((await isrfs('', 'lease', vm)).stdout, /^free/)
  t.is((await isrfs('', 'mount', vm, at)).code, 0)
  t.is((await isrfs('', 'unmount', at)).code, 0)
})

test.serial('a VM with hard links, which the binding cannot write to, is advised what is left', async (t) => {
  const at = mountpoint('linked')
  const mounted = await isrfs(OLD_KERNEL, 'mount', bed.vm('linked'), at)
  t.is(mounted.code, 1)
  t.regex(mounted.stderr, new RegExp(`${WHY}, and the binding cannot take its place: a file .* several names`))
  t.regex(mounted.stderr, /use --read-only/)
  t.notRegex(mounted.stderr, /--transport direct/)
  t.false(isMounted(at))
  t.is((await isrfs(OLD_KERNEL, 'mount', '--read-only', bed.vm('linked'), at)).code, 0)
  t.is(fs.statSync(path.join(at, 'second name')).nlink, 2)
  t.is((await isrfs('', 'unmount', at)).code, 0)
})

/** Region files of cache and session that the process has open, as often as it has. */
function regionFilesOf(pid: number): string[] {
  return openFiles(pid)
    .filter((file) => file.startsWith(bed.path('client')) && /\/\d+-\d+$/.test(file))
    .sort()
}
