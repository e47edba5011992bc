/** Rows 10 and 11: what a suspend sends. */
import fs from 'node:fs'
import path from 'node:path'
import { compressedDirtyBytes } from './dirty-blocks.js'
import { type Link, quiet, slowLink } from './link.js'
import { FILE } from './files.js'
import type { Row, Scale } from './measure.js'
import { mountIsrfs, mountRclone } from './peers.js'
import { type Place, seconds } from './place.js'

const MIB = 2 ** 20
const GIB = 2 ** 30
/** 100 Mb/s */
const LINK_BYTES_PER_SECOND = 12.5e6

/** Random writes in 4 KiB pages, over a file that is there, durable here when it resolves. */
function scatter(place: Place, directory: string, fileBytes: number, writtenBytes: number): Promise<string> {
  const args = [`--filename=${path.join(directory, FILE)}`, '--rw=randwrite', '--bs=4k', `--size=${fileBytes}`]
  return place.run('fio', [
    '--name=job',
    ...args,
    `--io_size=${writtenBytes}`,
    '--end_fsync=1',
    '--randseed=7',
    '--ioengine=psync',
    '--buffer_compress_percentage=50',
    '--refill_buffers'
  ])
}

export async function suspendRows(place: Place, { isQuick }: Scale): Promise<Row[]> {
  const behind = place.directory('behind')
  const link = await slowLink(place, behind, '100mbit')
  const writtenBytes = (isQuick ? 8 : 64) * MIB
  const disk = (name: string, fileBytes: number, dataBytes: number): Promise<Disk> =>
    makeDisk({ place, link, behind, name, fileBytes, dataBytes, writtenBytes })
  // a disk that is mostly empty, as disks are, has little more than what was written in its dirty blocks
  const empty = await disk('empty', isQuick ? 64 * MIB : 2 * GIB, (isQuick ? 4 : 32) * MIB)
  const full = await disk('full', (isQuick ? 64 : 512) * MIB, (isQuick ? 64 : 512) * MIB)
  return [
    timeRow('10a', empty),
    {
      id: '10b',
      work: 'its time without that of the compressed dirty blocks on the link',
      unit: 's',
      better: 'less',
      rounds: 1,
      contenders: [{ name: 'isrfs', measure: () => overLinkTime(empty) }],
      goals: [{ factor: 2 }]
    },
    bytesRow('10c', empty),
    timeRow('10d', full),
    bytesRow('10d, bytes', full)
  ]
}

/** A disk that is written to at random and then suspended. */
interface Disk {
  readonly place: Place
  readonly link: Link
  /** what the link shows, here */
  readonly behind: string
  readonly name: string
  readonly fileBytes: number
  /** at its beginning; the rest is a hole */
  readonly dataBytes: number
  readonly writtenBytes: number
  /** of the dirty blocks, each compressed with zstd -1 */
  readonly dirtyBytes: number
  last?: { readonly seconds: number; readonly sentBytes: number }
}

async function makeDisk(disk: Omit<Disk, 'dirtyBytes' | 'last'>): Promise<Disk> {
  const { place, behind, name, fileBytes, dataBytes, writtenBytes } = disk
  const [plain, written] = [place.directory('plain'), place.directory('written')]
  place.writeFile(path.join(plain, FILE), dataBytes)
  fs.truncateSync(path.join(plain, FILE), fileBytes)
  await place.isrfs(place.directory('importer'), 'import', plain, path.join(behind, name))
  const copy = path.join(behind, `${name}-plain`)
  fs.mkdirSync(copy)
  for (const directory of [copy, written]) {
    await place.run('cp', ['--sparse=always', path.join(plain, FILE), path.join(directory, FILE)])
  }
  await scatter(place, written, fileBytes, writtenBytes) // the same seed writes the same to all
  const dirtyBytes = compressedDirtyBytes(path.join(plain, FILE), path.join(written, FILE))
  fs.rmSync(written, { recursive: true })
  fs.rmSync(plain, { recursive: true })
  return { ...disk, dirtyBytes }
}

function timeRow(id: string, disk: Disk): Row {
  const { writtenBytes, fileBytes, dataBytes } = disk
  const holes = Math.round(100 * (1 - dataBytes / fileBytes))
  const kind = holes === 0 ? 'a disk full of data that halves' : `a disk that is ${holes} % holes`
  return {
    id,
    work: `suspend after ${writtenBytes / MIB} MiB of random 4 KiB writes over ${fileBytes / MIB} MiB, ${kind}, 100 Mb/s`,
    unit: 's',
    better: 'less',
    rounds: 1,
    note:
      holes === 0
        ? 'isrfs fetches the rest of each dirty block, too'
        : 'rclone sends the whole file again, holes included',
    contenders: [
      { name: 'isrfs', measure: () => suspendIsrfs(disk) },
      { name: 'rclone', measure: () => suspendRclone(disk) }
    ],
    goals: [{ against: 'rclone', factor: 0.25 }]
  }
}

function bytesRow(id: string, disk: Disk): Row {
  return {
    id,
    work: `bytes sent over the link during it / dirty blocks, each compressed with zstd -1 (${(disk.dirtyBytes / 1e6).toFixed(1)} MB)`,
    unit: 'ratio',
    better: 'less',
    rounds: 1,
    contenders: [{ name: 'isrfs', measure: () => Promise.resolve((disk.last?.sentBytes ?? NaN) / disk.dirtyBytes) }],
    goals: [{ factor: 1.1 }]
  }
}

function overLinkTime({ last, dirtyBytes }: Disk): Promise<number> {
  return Promise.resolve((last?.seconds ?? NaN) - dirtyBytes / LINK_BYTES_PER_SECOND)
}

async function suspendIsrfs(disk: Disk): Promise<number> {
  const { place, link, name, fileBytes, writtenBytes } = disk
  const vm = path.join(link.mountpoint, name)
  const mounted = await mountIsrfs(place, vm, place.directory('client'), '--no-trickle')
  await scatter(place, mounted.mountpoint, fileBytes, writtenBytes)
  const before = link.sentBytes()
  const time = await seconds(() => mounted.unmount())
  disk.last = { seconds: time, sentBytes: link.sentBytes() - before }
  return time
}

async function suspendRclone({ place, link, name, fileBytes, writtenBytes }: Disk): Promise<number> {
  const mounted = await mountRclone(place, path.join(link.mountpoint, `${name}-plain`), place.directory('cache'))
  const writtenNs = process.hrtime.bigint()
  await scatter(place, mounted.mountpoint, fileBytes, writtenBytes)
  const startedNs = process.hrtime.bigint()
  const endNs = await quiet(link, 8000)
  await mounted.unmount()
  return Number(endNs - (endNs > startedNs ? startedNs : writtenNs)) / 1e9
}

/** A guest that wrote a while ago: what is left to send when it is suspended. */
export async function trickleRows(place: Place, { isQuick }: Scale): Promise<Row[]> {
  const plain = place.directory('plain')
  const fileBytes = 512 * MIB
  place.writeFile(path.join(plain, FILE), 32 * MIB)
  fs.truncateSync(path.join(plain, FILE), fileBytes)
  const behind = place.directory('behind')
  const link = await slowLink(place, behind, '100mbit')
  await place.isrfs(place.directory('importer'), 'import', plain, path.join(behind, 'vm'))
  const writtenBytes = isQuick ? 4 * MIB : 16 * MIB
  return [
    {
      id: '11',
      work: `bytes sent by a suspend after ${writtenBytes / MIB} MiB of random writes and 30 quiet seconds / sent by both`,
      unit: 'ratio',
      better: 'less',
      rounds: 1,
      contenders: [
        {
          name: 'isrfs',
          measure: async () => {
            const client = place.directory('client')
            const mounted = await mountIsrfs(place, path.join(link.mountpoint, 'vm'), client)
            await scatter(place, mounted.mountpoint, fileBytes, writtenBytes)
            await new Promise((resolve) => setTimeout(resolve, 30_000))
            const trickled = (await place.status(client, mounted.mountpoint))['trickledBytes'] ?? 0
            await mounted.unmount()
            const log = JSON.parse(await place.isrfs(client, 'log', path.join(behind, 'vm'), '--json')) as {
              sentBytes: number
            }[]
            const left = log[0]?.sentBytes ?? NaN
            return left / (left + trickled)
          }
        }
      ],
      goals: [{ factor: 0.1 }]
    }
  ]
}
