/**
 * Row 12: what a mount costs however large the disk is: until it answers, and in memory, also after many operations (12b)
 * and with a session that a killed daemon has left behind (12c).
 */
import fs from 'node:fs'
import path from 'node:path'
import { directDepth, fio } from './fio.js'
import { FILE, importVm, makeFiles } from './files.js'
import { type Curves, type Row, type Scale, SideFigures } from './measure.js'
import { BINDING, bindingNote, mountIsrfs, type Others, type Peer, peersOf } from './peers.js'
import { type Place, seconds } from './place.js'
import { residentMegabytes } from './processes.js'

const MIB = 2 ** 20
const GIB = 2 ** 30
/** blocks of 128 KiB in each map page of 1,024 */
const MAP_PAGE_BYTES = 128 * MIB

const SIZES = [
  { gibibytes: 4, seconds: 0.6, megabytes: 120 },
  { gibibytes: 100, seconds: 0.8, megabytes: 150 },
  { gibibytes: 1024, seconds: 1.0, megabytes: 200 }
]

/** 12a: the first reads of a mount. */
export async function readyRows(place: Place, { isQuick, rounds: roundsMax }: Scale, others: Others): Promise<Row[]> {
  const rounds = Math.min(roundsMax, 3)
  const rows: Row[] = []
  // rclone reads on when nobody does any more, for minutes where the file is large
  const wanted = ({ name }: Peer, gibibytes: number): boolean => name !== 'rclone' || (gibibytes === 4 && !isQuick)
  for (const { gibibytes, ...goals } of isQuick ? SIZES.slice(0, 2) : SIZES) {
    const { plain, vm } = await sparseVm(place, gibibytes)
    const memory = new SideFigures()
    const peers = peersOf(place, others).filter((peer) => wanted(peer, gibibytes))
    const contenders = peers.map((peer) => {
      const home = place.directory('home')
      return {
        name: peer.name,
        measure: async () => {
          const { time, mounted, megabytes } = await readyMount(place, peer, home, vm, plain)
          memory.note(peer.name, megabytes)
          await mounted.unmount()
          return time
        }
      }
    })
    rows.push(
      {
        id: `12a, ${gibibytes} GiB`,
        work: `mount ready, a disk of ${gibibytes} GiB with a block in each of its map pages`,
        unit: 's',
        better: 'less',
        rounds,
        contenders,
        goals: [{ factor: goals.seconds }],
        ...bindingNote()
      },
      {
        id: `12a, ${gibibytes} GiB, memory`,
        work: 'resident memory of its daemon after the first reads',
        unit: 'MB',
        better: 'less',
        rounds,
        contenders: contenders.map(({ name }) => memory.contender(name, name)),
        goals: [{ factor: goals.megabytes }]
      }
    )
  }
  return rows
}

/**
 * 12b: how memory grows with random requests that all reach the daemon, half reads and half writes; then the daemon is killed,
 * and what it leaves behind is mounted again.
 */
export async function grownRows(place: Place, { isQuick }: Scale, others: Others): Promise<Row[]> {
  const operations = isQuick ? 100_000 : 1_000_000
  const rows: Row[] = []
  for (const { gibibytes, ...goals } of isQuick ? SIZES.slice(0, 1) : SIZES) {
    const isFull = gibibytes === 4 && !isQuick
    const { plain, vm } = isFull ? await makeFiles(place, gibibytes * GIB) : await sparseVm(place, gibibytes)
    const curves: Curves = { x: 'operations', lines: {} }
    const again = new SideFigures()
    const wanted = ({ name }: Peer): boolean =>
      name === 'isrfs' || (!isQuick && (name === BINDING || (isFull && name === 'rclone')))
    const contenders = peersOf(place, others)
      .filter(wanted)
      .map((peer) => ({
        name: peer.name,
        measure: async () => {
          const home = place.directory('home')
          const mounted = await peer.mount(home, vm, plain)
          const line: [number, number][] = [[0, residentMegabytes(mounted.pid)]]
          for (let step = 1; step <= 10; step++) {
            await randomRequests(place, mounted.mountpoint, gibibytes * GIB, operations / 10, step)
            line.push([(step * operations) / 10, residentMegabytes(mounted.pid)])
          }
          curves.lines[peer.name] = line
          if (peer.name.startsWith('isrfs')) {
            await mounted.kill()
            const { time, mounted: second } = await readyMount(place, peer, home, vm, plain)
            again.note(peer.name, time)
            await second.kill()
            await place.isrfs(home, 'recover', '--discard', vm)
          } else await mounted.unmount()
          return line.at(-1)?.[1] ?? NaN
        }
      }))
    rows.push(
      {
        id: `12b, ${gibibytes} GiB, memory`,
        work: `resident memory after ${operations} random 4 KiB reads and writes (O_DIRECT, 16 at a time) over ${gibibytes} GiB${isFull ? ' of data' : ', mostly holes'}`,
        unit: 'MB',
        better: 'less',
        rounds: 1,
        contenders,
        goals: [{ factor: goals.megabytes }],
        curves,
        ...bindingNote()
      },
      {
        id: `12b, ${gibibytes} GiB`,
        work: 'mount ready after them, with the session that its killed daemon has left behind',
        unit: 's',
        better: 'less',
        rounds: 1,
        contenders: contenders
          .filter(({ name }) => name.startsWith('isrfs'))
          .map(({ name }) => again.contender(name, name)),
        goals: [{ factor: goals.seconds }]
      }
    )
  }
  return rows
}

/** 12c: a session that is large. Between rounds the daemon is killed, so each finds it again. */
export async function leftOverRows(place: Place, { isQuick, rounds: roundsMax }: Scale): Promise<Row[]> {
  const rounds = Math.min(roundsMax, 3)
  const [gibibytes, dirtyBytes] = isQuick ? [4, 256 * MIB] : [100, 16 * GIB]
  const goals = SIZES.find((size) => size.gibibytes === gibibytes) ?? SIZES[0]!
  const { vm } = await sparseVm(place, gibibytes)
  const client = place.directory('client')
  const first = await mountIsrfs(place, vm, client, '--no-trickle')
  const limits = [`--size=${gibibytes * GIB}`, `--io_size=${dirtyBytes}`, '--random_generator=lfsr', '--end_fsync=1']
  await fio(place, first.mountpoint, 'randwrite', [...limits, '--ioengine=psync', '--randseed=7'])
  await first.kill()
  const memory = new SideFigures()
  const self: Peer = { name: 'isrfs', mount: (home) => mountIsrfs(place, vm, home) }
  return [
    {
      id: `12c, ${gibibytes} GiB`,
      work: `mount ready with a left-over session: ${dirtyBytes / MIB} MiB of random pages dirty over ${gibibytes} GiB, daemon killed`,
      unit: 's',
      better: 'less',
      rounds,
      contenders: [
        {
          name: 'isrfs',
          measure: async () => {
            const { time, mounted, megabytes } = await readyMount(place, self, client, vm, '')
            memory.note('isrfs', megabytes)
            await mounted.kill()
            return time
          }
        }
      ],
      goals: [{ factor: goals.seconds }]
    },
    {
      id: `12c, ${gibibytes} GiB, memory`,
      work: 'resident memory of its daemon after the first reads',
      unit: 'MB',
      better: 'less',
      rounds,
      contenders: [memory.contender('isrfs', 'isrfs')],
      goals: [{ factor: goals.megabytes }]
    }
  ]
}

interface ReadyMount {
  readonly time: number
  readonly mounted: Awaited<ReturnType<Peer['mount']>>
  readonly megabytes: number
}

async function readyMount(place: Place, peer: Peer, home: string, vm: string, plain: string): Promise<ReadyMount> {
  let mounted: ReadyMount['mounted'] | undefined
  const time = await seconds(async () => (mounted = await peer.mount(home, vm, plain)))
  if (mounted === undefined) throw new Error('no mount')
  const file = path.join(mounted.mountpoint, FILE)
  await place.run('dd', [`if=${file}`, 'of=/dev/null', 'bs=1M', 'count=8', 'status=none'])
  return { time, mounted, megabytes: residentMegabytes(mounted.pid) }
}

function randomRequests(place: Place, directory: string, bytes: number, count: number, seed: number): Promise<unknown> {
  const limits = [`--size=${bytes}`, `--number_ios=${count}`, '--norandommap', '--random_generator=tausworthe64']
  return fio(place, directory, 'randrw', [...limits, `--randseed=${seed}`, ...directDepth(16)])
}

/** A disk with a block at the beginning of what each map page covers, and holes between them: as a file, and as a VM. */
async function sparseVm(place: Place, gibibytes: number): Promise<{ plain: string; vm: string }> {
  const plain = place.directory('sparse')
  fs.writeFileSync(path.join(plain, FILE), '')
  const vm = await importVm(place, plain) // still empty: an import reads holes, too
  const mounted = await mountIsrfs(place, vm, place.directory('maker'), '--no-trickle')
  for (const directory of [plain, mounted.mountpoint]) writePieces(path.join(directory, FILE), gibibytes * GIB)
  await mounted.unmount()
  return { plain, vm }
}

function writePieces(file: string, bytes: number): void {
  const fd = fs.openSync(file, 'r+')
  fs.ftruncateSync(fd, bytes)
  for (let offset = 0; offset < bytes; offset += MAP_PAGE_BYTES) fs.writeSync(fd, `piece ${offset}\n`, offset)
  fs.closeSync(fd)
}
