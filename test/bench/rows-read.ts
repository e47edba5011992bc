/** Rows 5 to 7: reads. The share is a local directory, so that what is measured is isrfs and not a link. */
import { directDepth, fio, ONE_AT_A_TIME } from './fio.js'
import { type Files, forgetPages, makeFiles, readAll } from './files.js'
import type { Contender, Row, Scale } from './measure.js'
import { bindingNote, mountIsrfs, mountRclone, type Mounted, type Others, peersOf } from './peers.js'
import { type Place, seconds } from './place.js'

const MIB = 2 ** 20
const RANDOM_SECONDS_MAX = { quick: 1, full: 5 }

export async function readRows(place: Place, scale: Scale, others: Others): Promise<Row[]> {
  const files = await makeFiles(place, (scale.isQuick ? 256 : 1024) * MIB)
  return [coldRow(place, scale, files), ...(await cachedRows(place, scale, files, others))]
}

function coldRow(place: Place, { rounds }: Scale, files: Files): Row {
  const cold = (name: string, mount: (cache: string) => Promise<Mounted>): Contender => ({
    name,
    measure: async () => {
      const mounted = await mount(place.directory('cold'))
      const figure = await uncachedRate(place, files, mounted.mountpoint)
      await mounted.unmount()
      return figure
    }
  })
  return {
    id: '5',
    work: `sequential read of ${files.bytes / MIB} MiB, cold cache, local share`,
    unit: 'MB/s',
    better: 'more',
    rounds,
    contenders: [
      cold('isrfs', (cache) => mountIsrfs(place, files.vm, cache, '--read-only')),
      cold('rclone', (cache) => mountRclone(place, files.plain, cache)),
      { name: 'local', measure: () => uncachedRate(place, files, files.plain) }
    ],
    goals: [{ against: 'rclone', factor: 2 }]
  }
}

/**
 * Everybody has all of the file. What "page cache dropped" leaves in memory decides what is measured: nothing at all, and it
 * is the disk's speed; what lies behind the mounts, and it is the way through them.
 */
async function cachedRows(place: Place, { isQuick, rounds }: Scale, files: Files, others: Others): Promise<Row[]> {
  const directories: Record<string, string> = {}
  for (const peer of peersOf(place, others)) {
    const { mountpoint } = await peer.mount(place.directory('home'), files.vm, files.plain, '--discard')
    await readAll(place, mountpoint)
    directories[peer.name] = mountpoint
  }
  directories['local'] = files.plain
  const contenders = (measure: (directory: string) => Promise<number>): Contender[] =>
    Object.entries(directories).map(([name, directory]) => ({ name, measure: () => measure(directory) }))
  const behindInMemory = async (directory: string, work: () => Promise<number>): Promise<number> => {
    await readAll(place, directory)
    await forgetPages(place, directory)
    return work()
  }
  const random = async (directory: string, how: readonly string[]): Promise<number> => {
    const limits = [`--size=${files.bytes}`, `--runtime=${RANDOM_SECONDS_MAX[isQuick ? 'quick' : 'full']}`]
    return (await fio(place, directory, 'randread', [...limits, ...how])).read.iops
  }
  const common = { better: 'more', rounds, ...bindingNote() } as const
  return [
    {
      ...common,
      id: '6a',
      work: 'sequential read, cached locally, page cache dropped: that of the mount and that of what is behind it',
      unit: 'MB/s',
      contenders: contenders((directory) => uncachedRate(place, files, directory)),
      goals: SEQUENTIAL_GOALS
    },
    {
      ...common,
      id: '6b',
      work: 'the same, only that of the mount dropped (of the local file nothing)',
      unit: 'MB/s',
      contenders: contenders(async (directory) => {
        await readAll(place, directory)
        if (directory !== files.plain) await forgetPages(place, directory)
        return rateOf(place, files, directory)
      }),
      goals: SEQUENTIAL_GOALS
    },
    {
      ...common,
      id: '7a',
      work: 'random 4 KiB reads, cached, one at a time, page cache of the mount dropped (of the local file all)',
      unit: 'IOPS',
      contenders: contenders((directory) => behindInMemory(directory, () => random(directory, ONE_AT_A_TIME))),
      goals: ONE_AT_A_TIME_GOALS
    },
    {
      ...common,
      id: '7b',
      work: 'random 4 KiB reads, cached, 16 at a time with O_DIRECT',
      unit: 'IOPS',
      contenders: contenders((directory) => behindInMemory(directory, () => random(directory, directDepth(16)))),
      goals: [
        { against: 'bindfs', factor: 8 },
        { against: 'rclone', factor: 10 }
      ]
    },
    {
      ...common,
      id: '7c',
      rounds: Math.min(rounds, 3),
      work: 'as 7a, also the page cache of what is behind the mount dropped',
      unit: 'IOPS',
      contenders: contenders(async (directory) => {
        await place.dropCaches()
        return random(directory, ONE_AT_A_TIME)
      }),
      goals: ONE_AT_A_TIME_GOALS
    }
  ]
}

const SEQUENTIAL_GOALS = [
  { against: 'bindfs', factor: 1.2 },
  { against: 'rclone', factor: 4 }
]
const ONE_AT_A_TIME_GOALS = [
  { against: 'bindfs', factor: 1.6 },
  { against: 'rclone', factor: 2 }
]

async function uncachedRate(place: Place, files: Files, directory: string): Promise<number> {
  await place.dropCaches()
  return rateOf(place, files, directory)
}

async function rateOf(place: Place, files: Files, directory: string): Promise<number> {
  return files.bytes / 1e6 / (await seconds(() => readAll(place, directory)))
}
