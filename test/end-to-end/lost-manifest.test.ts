/** A session whose base the share has lost: `check --repair` puts the manifest back, and the session goes on. */
import fs from 'node:fs'
import path from 'node:path'
import anyTest, { type TestFn } from 'ava'
import { Bed, type Result } from '../support/bed.js'
import { Random } from '../support/random.js'

const test = anyTest as TestFn<{ bed: Bed; random: Random }>

test.beforeEach((t) => {
  t.context.random = new Random()
  t.log(`seed ${String(t.context.random.seed)}`)
  t.context.bed = new Bed('lost-manifest')
})
test.afterEach.always((t) => t.context.bed.destroy())

async function importVm(bed: Bed, disk: Buffer): Promise<void> {
  const source = bed.makeDirectory('source')
  fs.writeFileSync(path.join(source, 'disk'), disk)
  await bed.mustIsrfs('c', 'import', source, bed.vm())
}

/** A mount of client a changes the first page of the disk, syncs it, and its daemon is killed. */
async function crashWith(bed: Bed, page: Buffer): Promise<void> {
  const mountpoint = await bed.mount('a', bed.vm(), 'mnt')
  const fd = fs.openSync(path.join(mountpoint, 'disk'), 'r+')
  fs.writeSync(fd, page, 0, page.length, 0)
  fs.fsyncSync(fd)
  await bed.killDaemon('a', mountpoint)
  try {
    fs.closeSync(fd)
  } catch {
    // the mount is dead
  }
  await bed.command('fusermount3', ['-uz', mountpoint])
}

/** A session of client a whose number client b has published meanwhile. Its disk. */
async function leaveBehindBeaten(bed: Bed, random: Random): Promise<Buffer> {
  const disk = random.bytes(300_000)
  await importVm(bed, disk)
  const page = random.bytes(4096)
  page.copy(disk)
  await crashWith(bed, page)
  await bed.mustIsrfs('b', 'lease', bed.vm(), '--break')
  const mountpoint = await bed.mount('b', bed.vm(), 'mnt-b')
  fs.writeFileSync(path.join(mountpoint, 'other'), 'of another client')
  await bed.unmount('b', mountpoint)
  return disk
}

/** Of the branch that `recover` tells of. */
async function diskOfBranch(bed: Bed, { stdout }: Result): Promise<Buffer> {
  const shown = await bed.mount(
    'b',
    bed.vm(),
    'mnt-b',
    '--read-only',
    '--generation',
    /2-[0-9a-f]{16}/.exec(stdout)?.[0] ?? stdout
  )
  const disk = fs.readFileSync(path.join(shown, 'disk'))
  await bed.unmount('b', shown)
  return disk
}

async function diskOf(bed: Bed): Promise<Buffer> {
  const out = path.join(bed.makeDirectory('out'), `export-${String(fs.readdirSync(bed.path('out')).length)}`)
  await bed.mustIsrfs('b', 'export', bed.vm(), out)
  return fs.readFileSync(path.join(out, 'disk'))
}

function generation(bed: Bed, number: number): string {
  return path.join(bed.vm(), 'generations', String(number).padStart(8, '0'))
}

function flip(file: string): void {
  const bytes = fs.readFileSync(file)
  const middle = bytes.length >> 1
  bytes[middle] = (bytes[middle] ?? 0) ^ 4
  fs.writeFileSync(file, bytes)
}

const manifestOf = (directory: string): string => path.join(directory, 'manifest.json')

test.serial('a left-over session goes on after its base, lost or damaged on the share, was put back', async (t) => {
  const { bed, random } = t.context
  const disk = random.bytes(500_000)
  await importVm(bed, disk)
  const damages: ((directory: string) => void)[] = [
    (directory) => fs.rmSync(manifestOf(directory)),
    (directory) => flip(manifestOf(directory)),
    (directory) => fs.rmSync(directory, { recursive: true })
  ]
  for (const [index, damage] of damages.entries()) {
    const base = generation(bed, index + 1)
    const page = random.bytes(4096)
    page.copy(disk)
    await crashWith(bed, page)
    const whole = fs.readFileSync(manifestOf(base))
    damage(base)
    const isGone = !fs.existsSync(base)
    // whoever meets a generation that is gone waits for it at first
    const refusals: Result[] = isGone
      ? []
      : [await bed.isrfs('a', 'recover', bed.vm()), await bed.isrfs('a', 'mount', bed.vm(), bed.makeDirectory('mnt'))]
    for (const refused of refusals) {
      t.is(refused.code, 4, refused.stderr)
      t.regex(refused.stderr, /check \S+ --repair/)
    }
    const elsewhere = await bed.isrfs('b', 'check', bed.vm(), '--repair')
    t.is(elsewhere.code, 4, 'this client has never mounted it')
    t.regex(elsewhere.stderr, /not put back: .*: this client has no copy of the manifest/)
    const repaired = await bed.isrfs('a', 'check', bed.vm(), '--repair')
    t.is(repaired.code, 0, repaired.stderr)
    t.true(repaired.stderr.includes(`put back from the copy of its manifest: ${base}\n`), repaired.stderr)
    t.deepEqual(fs.readFileSync(manifestOf(base)), whole)
    await bed.mustIsrfs('a', 'recover', bed.vm())
    t.true((await diskOf(bed)).equals(disk), `after damage ${String(index)}`)
  }
  t.is((await bed.isrfs('b', 'check', bed.vm(), '--read-data')).code, 0)
})

test.serial('a session that lost its number becomes a branch, although its base was lost meanwhile', async (t) => {
  const { bed, random } = t.context
  const disk = await leaveBehindBeaten(bed, random)
  for (const what of [
    /testvm has no generation 1 any more, /,
    /the share has lost generation 1, on which the session/
  ]) {
    fs.rmSync(generation(bed, 1), { recursive: true })
    const refused = await bed.isrfs('a', 'recover', bed.vm())
    t.is(refused.code, 4, refused.stderr)
    t.regex(refused.stderr, what)
    t.regex(refused.stderr, /check \S+ --repair/)
    const repaired = await bed.isrfs('a', 'check', bed.vm(), '--repair')
    t.is(repaired.code, 0, repaired.stderr)
    // from here on this client has seen generation 2, and looks for its base only
    t.is((await bed.isrfs('a', 'mount', bed.vm(), bed.makeDirectory('mnt'))).code, 5)
  }
  const recovered = await bed.mustIsrfs('a', 'recover', bed.vm())
  t.true((await diskOfBranch(bed, recovered)).equals(disk))
})

test.serial(
  'a base that is lost in the middle of the history is put back first, whatever a person says; nothing is lost',
  async (t) => {
    const { bed, random } = t.context
    const disk = await leaveBehindBeaten(bed, random)
    fs.rmSync(generation(bed, 1), { recursive: true })
    const refused = await bed.isrfs('a', 'recover', bed.vm())
    t.is(refused.code, 4, refused.stderr)
    t.regex(refused.stderr, /no generation 1 any more.*\n.*recover \S+ --accept-rollback keeps/)
    const kept = await bed.isrfs('a', 'recover', bed.vm(), '--accept-rollback')
    t.is(kept.code, 4, kept.stderr)
    t.regex(kept.stderr, /lost generation 1, on which the session is based\n.*check \S+ --repair puts it back/)
    await bed.mustIsrfs('a', 'check', bed.vm(), '--repair')
    const recovered = await bed.mustIsrfs('a', 'recover', bed.vm(), '--accept-rollback')
    t.true((await diskOfBranch(bed, recovered)).equals(disk))
  }
)

test.serial('a checkpoint, a suspended generation and one that was only looked at come back, too', async (t) => {
  const { bed, random } = t.context
  const disk = random.bytes(300_000)
  await importVm(bed, disk)
  const mountpoint = await bed.mount('a', bed.vm(), 'mnt')
  fs.writeFileSync(path.join(mountpoint, 'disk'), random.bytes(200_000))
  await bed.mustIsrfs('a', 'checkpoint', mountpoint)
  fs.writeFileSync(path.join(mountpoint, 'more'), 'more')
  await bed.unmount('a', mountpoint)
  const looking = await bed.mount('b', bed.vm(), 'mnt-b', '--generation', '2', '--read-only')
  await bed.unmount('b', looking)
  const before = await diskOf(bed)
  for (const number of [1, 2, 3]) fs.rmSync(manifestOf(generation(bed, number)))
  const second = await bed.isrfs('b', 'check', bed.vm(), '--generation', '2', '--repair')
  t.is(second.code, 0, second.stderr)
  const repaired = await bed.isrfs('a', 'check', bed.vm(), '--repair')
  t.is(repaired.code, 0, repaired.stderr)
  t.is(repaired.stderr.match(/put back from the copy/g)?.length, 2)
  t.true((await diskOf(bed)).equals(before))
})
