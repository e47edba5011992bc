/** Rows 8 and 9: writes. What is written through isrfs is discarded at the end. */
import { fio, ONE_AT_A_TIME } from './fio.js'
import { copyOf, makeFiles, readAll } from './files.js'
import type { Contender, Row, Scale } from './measure.js'
import { bindingNote, type Others, peersOf, type Peer } from './peers.js'
import type { Place } from './place.js'

const MIB = 2 ** 20

export async function writeRows(place: Place, { isQuick, rounds }: Scale, others: Others): Promise<Row[]> {
  const files = await makeFiles(place, (isQuick ? 256 : 1024) * MIB)
  const peers = peersOf(place, others)
  const operations = isQuick ? 16_384 : 65_536
  /** the caches that peers keep, and the plain files that they and nobody else write to */
  const homes = new Map(peers.map(({ name }) => [name, place.directory('home')]))
  const copies = new Map(peers.filter((peer) => !isIsrfs(peer)).map(({ name }) => [name, copyOf(place, files)]))
  const local = copyOf(place, files)

  /** Random writes as fast as programs may make them, and one fsync at the end, which counts. */
  const write = async (directory: string): Promise<number> => {
    const limits = [`--size=${files.bytes}`, `--number_ios=${operations}`, '--end_fsync=1', '--overwrite=1']
    const { total_ios, runtime } = (await fio(place, directory, 'randwrite', [...limits, ...ONE_AT_A_TIME])).write
    return total_ios / (runtime / 1000)
  }
  const synced = async (directory: string): Promise<number> => {
    const limits = [`--size=${files.bytes}`, '--time_based', `--runtime=${isQuick ? 1 : 5}`]
    return (await fio(place, directory, 'randwrite', [...limits, '--fdatasync=1', ...ONE_AT_A_TIME])).write.iops
  }
  const through = (peer: Peer, home: () => string, work: (directory: string) => Promise<number>): Contender => ({
    name: peer.name,
    measure: async () => {
      const mounted = await peer.mount(home(), files.vm, copies.get(peer.name) ?? '', '--discard')
      const figure = await work(mounted.mountpoint)
      await mounted.unmount()
      return figure
    }
  })
  const present = async (directory: string): Promise<number> => {
    await readAll(place, directory)
    return write(directory)
  }
  const common = { unit: 'IOPS', better: 'more', rounds, ...bindingNote() } as const
  const own = peers.filter(isIsrfs)
  const rclone = peers.filter(({ name }) => name === 'rclone')
  return [
    {
      ...common,
      id: '8a',
      work: `${operations} random 4 KiB buffered writes into present blocks, one fsync at the end`,
      contenders: [
        ...peers.map((peer) => through(peer, () => homes.get(peer.name) ?? '', present)),
        { name: 'local', measure: () => present(local) }
      ],
      goals: [
        { against: 'rclone', factor: 10 },
        { against: 'local', factor: 0.5 }
      ]
    },
    {
      ...common,
      id: '8b',
      work: 'the same into absent blocks (whole pages)',
      contenders: [
        ...own.map((peer) => through(peer, () => place.directory('empty'), write)),
        ...own.slice(0, 1).map((peer) => ({
          ...through(peer, () => homes.get(peer.name) ?? '', present),
          name: 'isrfs, present'
        })),
        ...rclone.map((peer) => through(peer, () => place.directory('empty'), write))
      ],
      goals: [{ against: 'isrfs, present', factor: 1 / 1.5 }]
    },
    {
      ...common,
      id: '9',
      work: '4 KiB write + fdatasync, one at a time',
      contenders: [
        ...peers.map((peer) => through(peer, () => homes.get(peer.name) ?? '', synced)),
        { name: 'local', measure: () => synced(local) }
      ],
      goals: [{ against: 'local', factor: 0.6 }]
    }
  ]
}

function isIsrfs({ name }: Peer): boolean {
  return name.startsWith('isrfs')
}
