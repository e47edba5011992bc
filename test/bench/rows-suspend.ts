/** Rows 10 and 11: what a suspend sends. */
import fs from 'node:fs'
import path from 'node:path'
import { quiet, slowLink } from './link.js'
import { FILE } from './files.js'
import type { Row, Scale } from './measure.js'
import { mountIsrfs, mountRclone } from './peers.js'
import { type Place, seconds } from './place.js'

const MIB = 2 ** 20
const GIB = 2 ** 30
/** 100 Mb/s */
const LINK_BYTES_PER_SECOND = 12.5e6

interface Suspended {
  readonly seconds: number
  readonly sentBytes: number
}

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
  const fileBytes = isQuick ? 64 * MIB : 2 * GIB
  const writtenBytes = isQuick ? 8 * MIB : 64 * MIB
  const plain = place.directory('plain')
  // a disk that is mostly empty, as disks are: what is dirty then is what was written
  place.writeFile(path.join(plain, FILE), 32 * MIB)
  fs.truncateSync(path.join(plain, FILE), fileBytes)
  const behind = place.directory('behind')
  fs.mkdirSync(path.join(behind, 'plain'))
  const link = await slowLink(place, behind, '100mbit')
  await place.isrfs(place.directory('importer'), 'import', plain, path.join(behind, 'vm'))
  await place.run('cp', ['--sparse=always', path.join(plain, FILE), path.join(behind, 'plain', FILE)])
  let last: (Suspended & { readonly reportedBytes: number }) | undefined

  const throughIsrfs = async (...options: string[]): Promise<number> => {
    const client = place.directory('client')
    const mounted = await mountIsrfs(place, path.join(link.mountpoint, 'vm'), client, ...options)
    await scatter(place, mounted.mountpoint, fileBytes, writtenBytes)
    const before = link.sentBytes()
    const time = await seconds(() => mounted.unmount())
    const log = JSON.parse(await place.isrfs(client, 'log', path.join(behind, 'vm'), '--json')) as {
      sentBytes: number
    }[]
    last = { seconds: time, sentBytes: link.sentBytes() - before, reportedBytes: log[0]?.sentBytes ?? 0 }
    return time
  }
  return [
    {
      id: '10a',
      work: `suspend after ${writtenBytes / MIB} MiB of random 4 KiB writes over ${fileBytes / MIB} MiB, 100 Mb/s`,
      unit: 's',
      better: 'less',
      rounds: 1,
      note: 'rclone sends the whole file again, holes included',
      contenders: [
        { name: 'isrfs', measure: () => throughIsrfs('--no-trickle') },
        {
          name: 'rclone',
          measure: async () => {
            const mounted = await mountRclone(place, path.join(link.mountpoint, 'plain'), place.directory('cache'))
            const writtenNs = process.hrtime.bigint()
            await scatter(place, mounted.mountpoint, fileBytes, writtenBytes)
            const startedNs = process.hrtime.bigint()
            const endNs = await quiet(link, 8000)
            await mounted.unmount()
            return Number(endNs - (endNs > startedNs ? startedNs : writtenNs)) / 1e9
          }
        }
      ],
      goals: [{ against: 'rclone', factor: 0.25 }]
    },
    {
      id: '10b',
      work: 'its time without the bytes / link',
      unit: 's',
      better: 'less',
      rounds: 1,
      contenders: [
        {
          name: 'isrfs',
          measure: async () => (last?.seconds ?? NaN) - (last?.reportedBytes ?? NaN) / LINK_BYTES_PER_SECOND
        }
      ],
      goals: [{ factor: 2 }]
    },
    {
      id: '10c',
      work: 'bytes on the link during it / compressed dirty blocks and their map',
      unit: 'ratio',
      better: 'less',
      rounds: 1,
      contenders: [{ name: 'isrfs', measure: async () => (last?.sentBytes ?? NaN) / (last?.reportedBytes ?? NaN) }],
      goals: [{ factor: 1.1 }]
    }
  ]
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
