/** A session that a bad disk has damaged: `recover --salvage` makes what is intact of it a branch, and keeps the rest. */
import fs from 'node:fs'
import path from 'node:path'
import anyTest, { type TestFn } from 'ava'
import { findFrames, FRAME_KINDS } from '../../src/session/frame.js'
import { readSessionFile } from '../../src/session/identity.js'
import { recordsOf } from '../../src/session/recovery.js'
import { Bed, type Result } from '../support/bed.js'
import { Random } from '../support/random.js'

const PAGE = 4096
const BLOCK = 128 * 1024

const test = anyTest as TestFn<{ bed: Bed; disk: Buffer; random: Random }>

test.beforeEach(async (t) => {
  const random = new Random()
  t.log(`seed ${String(random.seed)}`)
  const bed = new Bed('salvage')
  const disk = random.bytes(5 * BLOCK)
  t.context = { bed, disk, random }
  const source = bed.makeDirectory('source')
  fs.writeFileSync(path.join(source, 'disk'), disk)
  await bed.mustIsrfs('c', 'import', source, bed.vm())
})
test.afterEach.always((t) => t.context.bed.destroy())

/** A mount of client a writes each page at the beginning of a block of its own, syncing each, and its daemon is killed. */
async function crashWith(bed: Bed, pages: ReadonlyMap<number, Buffer>): Promise<void> {
  const mountpoint = await bed.mount('a', bed.vm(), 'mnt')
  const fd = fs.openSync(path.join(mountpoint, 'disk'), 'r+')
  for (const [block, page] of pages) {
    fs.writeSync(fd, page, 0, PAGE, block * BLOCK)
    fs.fsyncSync(fd)
  }
  await bed.killDaemon('a', mountpoint)
  try {
    fs.closeSync(fd)
  } catch {
    // the mount is dead
  }
  await bed.command('fusermount3', ['-uz', mountpoint])
}

function sessionOf(bed: Bed): string {
  const sessions = bed.path('client-a', 'sessions')
  return path.join(sessions, fs.readdirSync(sessions)[0] ?? '')
}

function flip(file: string, at: number): void {
  const bytes = fs.readFileSync(file)
  bytes[at] = (bytes[at] ?? 0) ^ 1
  fs.writeFileSync(file, bytes)
}

/** Where the journal says that the page at the beginning of a block is valid. */
function changeOf(session: string, block: number): number {
  const bytes = fs.readFileSync(path.join(session, 'journal-0'))
  for (const frame of findFrames(bytes, 0, readSessionFile(session)?.salt ?? 0)) {
    if (frame.kind !== FRAME_KINDS.change) continue
    const firstPage = (block * BLOCK) / PAGE
    const isFound = [...recordsOf(bytes, frame)].some((each) => each.kind === 'pages' && each.firstPage === firstPage)
    if (isFound) return frame.payloadStart
  }
  throw new Error(`nothing was written to block ${String(block)}`)
}

function filesOf(directory: string): Map<string, string> {
  const names = (fs.readdirSync(directory, { recursive: true }) as string[]).filter((name) => name !== 'lock')
  const files = names.filter((name) => fs.statSync(path.join(directory, name)).isFile())
  return new Map(files.sort().map((name) => [name, fs.readFileSync(path.join(directory, name)).toString('base64')]))
}

async function refusals(bed: Bed): Promise<Result[]> {
  return [await bed.isrfs('a', 'mount', bed.vm(), bed.makeDirectory('mnt')), await bed.isrfs('a', 'recover', bed.vm())]
}

interface Salvaged {
  readonly branch: string
  readonly kept: string
  readonly lost: readonly string[]
}

async function salvage(bed: Bed): Promise<Salvaged> {
  return JSON.parse((await bed.mustIsrfs('a', 'recover', bed.vm(), '--salvage', '--json')).stdout) as Salvaged
}

async function diskOf(bed: Bed, generation: string): Promise<Buffer> {
  const mountpoint = await bed.mount('b', bed.vm(), 'look', '--generation', generation)
  const disk = fs.readFileSync(path.join(mountpoint, 'disk'))
  await bed.unmount('b', mountpoint)
  return disk
}

test.serial('what was synced before a damaged frame is in a branch, and the damaged session is kept', async (t) => {
  const { bed, disk, random } = t.context
  const pages = new Map([0, 1, 2, 3].map((block) => [block, random.bytes(PAGE)]))
  await crashWith(bed, pages)
  const journal = path.join(sessionOf(bed), 'journal-0')
  const whole = await bed.isrfs('a', 'recover', bed.vm(), '--salvage')
  t.is(whole.code, 1, 'it is not damaged yet')
  t.regex(whole.stderr, /is not damaged/)
  flip(journal, changeOf(sessionOf(bed), 2))
  const before = filesOf(sessionOf(bed))
  for (const refused of await refusals(bed)) {
    t.is(refused.code, 4, refused.stderr)
    t.regex(refused.stderr, /recover <vm> --salvage/)
  }
  const { branch, kept, lost } = await salvage(bed)
  t.regex(branch, /^2-/)
  t.regex(lost.join('\n'), /journal-0 is damaged behind change \d+ .* later changes .* of: disk/)
  t.deepEqual(filesOf(kept), before, 'nothing is destroyed')
  const expected = Buffer.from(disk)
  for (const block of [0, 1]) pages.get(block)?.copy(expected, block * BLOCK)
  t.true((await diskOf(bed, branch)).equals(expected))
  t.true((await diskOf(bed, '1')).equals(disk))
  t.regex((await bed.mustIsrfs('a', 'recover', bed.vm())).stdout, /nothing of .* was left behind/)
  t.deepEqual(fs.readdirSync(bed.path('client-a', 'salvage')), [])
  const mountpoint = await bed.mount('b', bed.vm(), 'mnt') // the lease was given back
  t.true(fs.readFileSync(path.join(mountpoint, 'disk')).equals(disk), 'it never is the next generation by itself')
  await bed.unmount('b', mountpoint)
  t.regex((await bed.mustIsrfs('b', 'rollback', bed.vm(), branch)).stdout, /generation 2/)
  t.true((await diskOf(bed, '2')).equals(expected))
})

test.serial('what a damaged snapshot still says, and the changes after it, are in a branch', async (t) => {
  const { bed, disk, random } = t.context
  const pages = new Map([0, 1, 2].map((block) => [block, random.bytes(PAGE)]))
  await crashWith(bed, pages)
  const identity = path.join(sessionOf(bed), 'session.json')
  fs.writeFileSync(identity, fs.readFileSync(identity, 'utf8').replace(/"boot": "[^"]*"/, '"boot": "another"'))
  const later = random.bytes(PAGE)
  await crashWith(bed, new Map([[3, later]])) // after a power cut a snapshot is taken
  const snapshot = path.join(sessionOf(bed), 'snapshot-1')
  flip(snapshot, fs.readFileSync(snapshot).indexOf('disk') - 50) // in a time of its file
  const before = filesOf(sessionOf(bed))
  for (const refused of await refusals(bed)) t.is(refused.code, 4, refused.stderr)
  const told = await bed.mustIsrfs('a', 'recover', bed.vm(), '--salvage')
  t.regex(told.stderr, /snapshot-1 is damaged, nobody knows where: 2 files and directories/)
  t.regex(told.stdout, /what was intact is branch 2-[0-9a-f]{16} of .*isrfs rollback/)
  const [, branch = '', kept = ''] = /branch (\S+) of .* set aside, whole as it was: (\S+)/s.exec(told.stdout) ?? []
  t.deepEqual(filesOf(kept), before)
  const expected = Buffer.from(disk)
  for (const [block, page] of [...pages, [3, later] as const]) page.copy(expected, block * BLOCK)
  t.true((await diskOf(bed, branch)).equals(expected))
})

test.serial(
  'a list of lost writes that cannot be read is damage with words, and no reason to lose the rest',
  async (t) => {
    const { bed, disk, random } = t.context
    const page = random.bytes(PAGE)
    await crashWith(bed, new Map([[1, page]]))
    fs.writeFileSync(path.join(sessionOf(bed), 'lost.json'), '[{"inode": 2, "wh')
    for (const refused of await refusals(bed)) {
      t.is(refused.code, 4, refused.stderr)
      t.regex(refused.stderr, /lost\.json is damaged: .*--salvage/s)
      t.notRegex(refused.stderr, /JSON|Zod|expected/)
    }
    const { branch, lost } = await salvage(bed)
    t.regex(lost.join(), /^lost\.json is damaged/)
    page.copy(disk, BLOCK)
    t.true((await diskOf(bed, branch)).equals(disk))
  }
)
