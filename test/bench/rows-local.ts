/** Rows 5 to 9 and 13: the share is a local directory, so that what is measured is isrfs and not a link. */
import fs from 'node:fs'
import path from 'node:path'
import type { Contender, Row } from './measure.js'
import { mountBindfs, mountIsrfs, mountRclone, type Mounted } from './peers.js'
import { fioIops, type Place, seconds } from './place.js'

export interface Scale {
  readonly isQuick: boolean
  readonly rounds: number
}

const MIB = 2 ** 20
const FILE = 'disk.raw'

interface Sources {
  readonly plain: string
  readonly vm: string
  readonly bytes: number
}

async function sources(place: Place, bytes: number): Promise<Sources> {
  const plain = place.directory('plain')
  place.writeFile(path.join(plain, FILE), bytes)
  const vm = place.path(`share-${path.basename(plain)}`, 'vm')
  fs.mkdirSync(path.dirname(vm))
  await place.isrfs(place.directory('importer'), 'import', plain, vm)
  return { plain, vm, bytes }
}

const readAll = (place: Place, directory: string): Promise<string> =>
  place.run('dd', [`if=${path.join(directory, FILE)}`, 'of=/dev/null', 'bs=1M', 'status=none'])

export async function readRows(place: Place, { isQuick, rounds }: Scale): Promise<Row[]> {
  const files = await sources(place, (isQuick ? 256 : 1024) * MIB)
  const megabytes = files.bytes / 1e6
  const rate = async (directory: string): Promise<number> => {
    await place.dropCaches()
    return megabytes / (await seconds(() => readAll(place, directory)))
  }
  const cold = (name: string, mount: (cache: string) => Promise<Mounted>): Contender => ({
    name,
    measure: async () => {
      const mounted = await mount(place.directory('cold'))
      const figure = await rate(mounted.mountpoint)
      await mounted.unmount()
      return figure
    }
  })
  const isrfs = await mountIsrfs(place, files.vm, place.directory('client'))
  const rclone = await mountRclone(place, files.plain, place.directory('rclone-cache'))
  const bindfs = await mountBindfs(place, files.plain)
  for (const { mountpoint } of [isrfs, rclone]) await readAll(place, mountpoint)
  const directories: Record<string, string> = {
    isrfs: isrfs.mountpoint,
    rclone: rclone.mountpoint,
    bindfs: bindfs.mountpoint,
    local: files.plain
  }
  const warm = (measure: (file: string) => Promise<number>): Contender[] =>
    Object.entries(directories).map(([name, directory]) => ({
      name,
      measure: async () => {
        await place.dropCaches()
        return measure(path.join(directory, FILE))
      }
    }))
  const random = (file: string, ...more: string[]): Promise<number> =>
    fioIops(place, 'read', [
      `--filename=${file}`,
      '--rw=randread',
      '--bs=4k',
      `--size=${files.bytes}`,
      '--time_based',
      `--runtime=${isQuick ? 3 : 10}`,
      ...more
    ])
  return [
    {
      id: '5',
      work: `sequential read of ${(megabytes / 1.048576) | 0} MiB, cold cache, local share`,
      unit: 'MB/s',
      better: 'more',
      rounds,
      contenders: [
        cold('isrfs', (cache) => mountIsrfs(place, files.vm, cache, '--read-only')),
        cold('rclone', (cache) => mountRclone(place, files.plain, cache)),
        { name: 'local', measure: () => rate(files.plain) }
      ],
      goals: [{ against: 'rclone', factor: 2 }]
    },
    {
      id: '6',
      work: 'sequential read, cached locally, page cache dropped',
      unit: 'MB/s',
      better: 'more',
      rounds,
      contenders: Object.entries(directories).map(([name, directory]) => ({ name, measure: () => rate(directory) })),
      goals: [
        { against: 'bindfs', factor: 1.2 },
        { against: 'rclone', factor: 4 }
      ]
    },
    {
      id: '7a',
      work: 'random 4 KiB reads, cached, one at a time, page cache dropped at the start',
      unit: 'IOPS',
      better: 'more',
      rounds,
      contenders: warm((file) => random(file, '--ioengine=psync')),
      goals: [
        { against: 'bindfs', factor: 1.6 },
        { against: 'rclone', factor: 2 }
      ]
    },
    {
      id: '7b',
      work: 'random 4 KiB reads, cached, 16 at a time with O_DIRECT',
      unit: 'IOPS',
      better: 'more',
      rounds,
      contenders: warm((file) => random(file, '--ioengine=libaio', '--iodepth=16', '--direct=1')),
      goals: [
        { against: 'bindfs', factor: 8 },
        { against: 'rclone', factor: 10 }
      ]
    }
  ]
}

export async function writeRows(place: Place, { isQuick, rounds }: Scale): Promise<Row[]> {
  const files = await sources(place, (isQuick ? 256 : 1024) * MIB)
  const operations = isQuick ? 8192 : 32_768
  /** Random writes as fast as programs may make them, and one fsync at the end, which counts. */
  const write = async (directory: string): Promise<number> => {
    const args = [
      `--filename=${path.join(directory, FILE)}`,
      '--rw=randwrite',
      '--bs=4k',
      '--ioengine=psync',
      `--size=${files.bytes}`
    ]
    const more = [`--number_ios=${operations}`, '--end_fsync=1', '--overwrite=1', '--allow_file_create=0', '--name=job']
    return operations / (await seconds(() => place.run('fio', [...args, ...more])))
  }
  const copy = (): string => {
    const directory = place.directory('copy')
    fs.copyFileSync(path.join(files.plain, FILE), path.join(directory, FILE))
    return directory
  }
  const discard = async (reads: boolean): Promise<number> => {
    const mounted = await mountIsrfs(place, files.vm, place.directory('client'), '--discard')
    if (reads) await readAll(place, mounted.mountpoint)
    const figure = await write(mounted.mountpoint)
    await mounted.unmount()
    return figure
  }
  const throughRclone = async (reads: boolean): Promise<number> => {
    const mounted = await mountRclone(place, copy(), place.directory('cache'))
    if (reads) await readAll(place, mounted.mountpoint)
    const figure = await write(mounted.mountpoint)
    await mounted.unmount()
    return figure
  }
  const synced = async (directory: string): Promise<number> => {
    const args = [
      `--filename=${path.join(directory, FILE)}`,
      '--rw=randwrite',
      '--bs=4k',
      '--ioengine=psync',
      '--fdatasync=1'
    ]
    return fioIops(place, 'write', [...args, `--size=${files.bytes}`, '--time_based', `--runtime=${isQuick ? 3 : 8}`])
  }
  const present: Row = {
    id: '8a',
    work: `${operations} random 4 KiB buffered writes into present blocks, one fsync at the end`,
    unit: 'IOPS',
    better: 'more',
    rounds,
    contenders: [
      { name: 'isrfs', measure: () => discard(true) },
      { name: 'rclone', measure: () => throughRclone(true) },
      { name: 'local', measure: () => write(copy()) }
    ],
    goals: [
      { against: 'rclone', factor: 10 },
      { against: 'local', factor: 0.5 }
    ]
  }
  return [
    present,
    {
      ...present,
      id: '8b',
      work: 'the same into absent blocks (whole pages)',
      contenders: [
        { name: 'isrfs', measure: () => discard(false) },
        { name: 'isrfs, present', measure: () => discard(true) },
        { name: 'rclone', measure: () => throughRclone(false) }
      ],
      goals: [{ against: 'isrfs, present', factor: 1 / 1.5 }]
    },
    {
      id: '9',
      work: '4 KiB write + fdatasync, one at a time',
      unit: 'IOPS',
      better: 'more',
      rounds,
      contenders: [
        {
          name: 'isrfs',
          measure: async () => {
            const mounted = await mountIsrfs(place, files.vm, place.directory('client'), '--discard')
            const figure = await synced(mounted.mountpoint)
            await mounted.unmount()
            return figure
          }
        },
        {
          name: 'bindfs',
          measure: async () => {
            const mounted = await mountBindfs(place, copy())
            const figure = await synced(mounted.mountpoint)
            await mounted.unmount()
            return figure
          }
        },
        { name: 'local', measure: () => synced(copy()) }
      ],
      goals: [{ against: 'local', factor: 0.6 }]
    }
  ]
}

export async function importRows(place: Place, { isQuick, rounds }: Scale): Promise<Row[]> {
  const bytes = (isQuick ? 512 : 2048) * MIB
  const plain = place.directory('mixed')
  // half as above, a quarter that does not compress (it is compressed already), a quarter that is sparse
  place.writeFile(path.join(plain, 'half'), bytes / 2)
  await place.shell(
    `openssl enc -aes-128-ctr -K 00112233445566778899aabbccddeeff -iv 0 -in /dev/zero 2>/dev/null | head -c ${bytes / 4} >'${path.join(plain, 'random')}'`
  )
  fs.truncateSync(path.join(plain, 'random'), bytes / 2)
  const rate = async (work: () => Promise<unknown>): Promise<number> => {
    await place.dropCaches()
    return bytes / 1e6 / (await seconds(work))
  }
  return [
    {
      id: '13',
      work: `import of ${bytes / MIB} MiB of mixed data, local share, durable at the end`,
      unit: 'MB/s',
      better: 'more',
      rounds,
      contenders: [
        {
          name: 'isrfs',
          measure: () => {
            const share = place.directory('share')
            const client = place.directory('client')
            return rate(() => place.isrfs(client, 'import', plain, path.join(share, 'vm')))
          }
        },
        {
          name: 'tar | zstd -1',
          measure: () => {
            const file = path.join(place.directory('tar'), 'vm.tar.zst')
            return rate(() => place.shell(`tar -C '${plain}' -c . | zstd -q -1 -T2 -o '${file}' && sync '${file}'`))
          }
        }
      ],
      goals: [{ factor: 300 }, { against: 'tar | zstd -1', factor: 1.5 }]
    }
  ]
}
