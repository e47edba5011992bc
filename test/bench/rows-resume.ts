/**
 * Rows 4 and 14: a guest that was suspended with its memory, behind a link of 100 Mb/s, goes on at a client that has never seen
 * it (14 only in a full run). Measured from the first command to the guest's first sign of life, mounting or copying included.
 */
import { type ChildProcess, spawn } from 'node:child_process'
import fs from 'node:fs'
import path from 'node:path'
import { buildGuest, counts, VmmBed } from '../support/vmm-bed.js'
import { atRate, type Link, slowLink } from './link.js'
import type { Contender, Row, Scale } from './measure.js'
import { mountIsrfs } from './peers.js'
import { CLI, type Place, seconds } from './place.js'

const RATE = '100mbit'
const LIFE_MS_MAX = 300_000
/** how long the lightly used guest of row 14 runs before its suspend: it counts, and writes a line each time */
const USED_MS = 10_000
const POLL_MS = 20

export async function resumeRows(place: Place, { isQuick, rounds: roundsMax }: Scale): Promise<Row[]> {
  const rounds = isQuick ? 1 : Math.min(roundsMax, 3)
  const guest = await buildGuest()
  const behind = place.directory('behind')
  const bed = new VmmBed('bench', guest)
  place.defer(() => bed.destroy())
  const link = await slowLink(place, behind, RATE)
  const suspended: Suspended = { place, bed, behind, link }
  const rows = await resumeRow(suspended, { isQuick, rounds })
  return isQuick ? rows : [...rows, ...(await paperRows(suspended, rounds))]
}

interface Suspended {
  readonly place: Place
  readonly bed: VmmBed
  readonly behind: string
  readonly link: Link
}

/** The VM's directory with a guest that was suspended while it counted; `name` below the share holds it as a VM. */
async function suspendGuest({ place, bed, behind }: Suspended, name: string, memoryMib: number): Promise<string> {
  const plain = place.path(`suspended-${name}`)
  fs.renameSync(await bed.makeVm('qcow2', [], memoryMib), plain)
  const run = new GuestRun(place, bed, plain)
  await run.lives(20)
  await place.isrfs(place.directory('client'), 'qemu', plain, '--suspend')
  await run.ended
  await place.isrfs(place.directory('importer'), 'import', plain, path.join(behind, name))
  return plain
}

async function resumeRow(suspended: Suspended, { isQuick, rounds }: Scale): Promise<Row[]> {
  const { place, bed, behind, link } = suspended
  const pristine = await suspendGuest(suspended, 'vm', 256)
  const onLink: Record<string, number> = {}
  const contender = (name: string, resume: (copy: string) => Promise<Resumed>): Contender => ({
    name,
    measure: async () => {
      // names of their own: the link's client remembers what it has seen
      const copy = path.basename(place.directory('plain'))
      if (name !== 'isrfs') await place.run('cp', ['-a', '--sparse=always', pristine, path.join(behind, copy)])
      await place.dropCaches()
      const before = link.bytes()
      let resumed: Resumed | undefined
      const time = await seconds(async () => {
        resumed = await resume(copy)
        await resumed.run.lives(1)
      })
      onLink[name] = (link.bytes() - before) / 1e6
      await resumed?.run.kill()
      await resumed?.unmount?.()
      return time
    }
  })
  const eagerCopy: Contender = {
    ...contender('eager copy', async (copy) => {
      const local = place.directory('local')
      await place.run('cp', ['-a', '--sparse=always', `${path.join(link.mountpoint, copy)}/.`, local])
      return { run: new GuestRun(place, bed, local) }
    }),
    roundsMax: 1
  }
  const own = contender('isrfs', async () => {
    const client = place.directory('client')
    const { mountpoint, unmount } = await mountIsrfs(place, path.join(link.mountpoint, 'vm'), client, '--discard')
    return { run: new GuestRun(place, bed, mountpoint), unmount }
  })
  const offTheShare = contender('off the share', (copy) =>
    Promise.resolve({ run: new GuestRun(place, bed, path.join(link.mountpoint, copy)) })
  )
  const faster: Row = {
    id: '4, 1 Gb/s',
    work: 'the same over 1 Gb/s',
    unit: 's',
    better: 'less',
    rounds: 1,
    goals: [],
    contenders: [own, offTheShare, eagerCopy].map((one) => atRate(link, '1gbit', RATE, one))
  }
  const bytes = (name: string): Contender => ({ name, measure: () => Promise.resolve(onLink[name] ?? NaN) })
  return [
    {
      id: '4',
      work: 'a suspended guest (256 MB of memory) goes on, 100 Mb/s, empty cache, to its first sign of life',
      unit: 's',
      better: 'less',
      rounds,
      goals: [{ against: 'eager copy', factor: 1 / 8 }],
      ...(isQuick ? { note: 'eager copy only in a full run' } : {}),
      contenders: [own, offTheShare, ...(isQuick ? [] : [eagerCopy])]
    },
    {
      id: '4, bytes',
      work: 'bytes on the link until then',
      unit: 'MB',
      better: 'less',
      rounds: 1,
      goals: [{ against: 'off the share', factor: 1 / 2 }],
      contenders: ['isrfs', 'off the share', ...(isQuick ? [] : ['eager copy'])].map(bytes)
    },
    ...(isQuick ? [] : [faster])
  ]
}

/** The experiment of the paper of 2002: every round resumes at a new client what the round before has suspended. */
async function paperRows(suspended: Suspended, rounds: number): Promise<Row[]> {
  const { place, bed, link } = suspended
  await suspendGuest(suspended, 'paper', 128)
  let suspendSeconds = NaN
  const life = async (): Promise<number> => {
    const client = place.directory('client')
    await place.dropCaches()
    let unmount: (() => Promise<void>) | undefined
    let run: GuestRun | undefined
    const time = await seconds(async () => {
      const mounted = await mountIsrfs(place, path.join(link.mountpoint, 'paper'), client)
      unmount = mounted.unmount
      run = new GuestRun(place, bed, mounted.mountpoint)
      await run.lives(1)
    })
    await new Promise((resolve) => setTimeout(resolve, USED_MS))
    suspendSeconds = await seconds(async () => {
      if (run === undefined) throw new Error('no guest runs')
      await place.isrfs(client, 'qemu', run.directory, '--suspend')
      await run.ended
      await unmount?.()
    })
    return time
  }
  const row = (id: string, work: string, note: string, measure: () => Promise<number>): Row => ({
    ...{ id, work, note, unit: 's', better: 'less', rounds, goals: [{ factor: 5 }] },
    contenders: [{ name: 'isrfs', measure }]
  })
  return [
    row(
      '14a',
      'the experiment of 2002 (128 MB of memory, a disk of 2 GB, 100 Mb/s): resume at a client that never saw the VM',
      'paper: 125 s, 73 s with gzip',
      life
    ),
    row('14b', 'its suspend, published, after 10 s of light use', 'paper: 114 to 158 s', () =>
      Promise.resolve(suspendSeconds)
    )
  ]
}

interface Resumed {
  readonly run: GuestRun
  readonly unmount?: () => Promise<void>
}

/** A guest that runs on a directory: goes on where it was suspended there, or starts. */
class GuestRun {
  readonly directory: string
  readonly ended: Promise<void>
  readonly #log: string
  readonly #child: ChildProcess
  #failure: string | undefined

  constructor(place: Place, bed: VmmBed, directory: string) {
    this.directory = directory
    this.#log = path.join(place.directory('console'), 'log')
    const args = [CLI, '--client-dir', place.directory('qemu'), 'qemu', directory, '--accel', 'tcg', '--']
    this.#child = spawn(process.execPath, [...args, ...bed.guestArguments('count', this.#log)], {
      stdio: ['ignore', 'ignore', 'pipe']
    })
    let said = ''
    this.#child.stderr?.on('data', (bytes: Buffer) => (said += bytes.toString()))
    this.ended = new Promise((resolve) => {
      this.#child.once('close', (code) => {
        this.#failure = `the guest has ended (${String(code)}): ${said.slice(-300)}`
        resolve()
      })
    })
    place.defer(() => this.kill())
  }

  /** Resolves when it has told `least` counts since then. */
  async lives(least: number): Promise<void> {
    const end = Date.now() + LIFE_MS_MAX
    while (counts(this.#log).length < least) {
      if (this.#failure !== undefined) throw new Error(this.#failure)
      if (Date.now() > end) throw new Error(`no sign of life: ${fs.readFileSync(this.#log, 'latin1').slice(-300)}`)
      await new Promise((resolve) => setTimeout(resolve, POLL_MS))
    }
  }

  /** QEMU, which is in a session of its own; then its starter ends by itself. */
  async kill(): Promise<void> {
    for (const name of fs.readdirSync('/proc').filter((name) => /^\d+$/.test(name))) {
      try {
        const words = fs.readFileSync(`/proc/${name}/cmdline`, 'utf8')
        if (words.startsWith('qemu-system') && words.includes(this.directory)) process.kill(Number(name), 'SIGKILL')
      } catch {
        // a process that has ended meanwhile
      }
    }
    await this.ended
  }
}
