/**
 * Rows 15 to 17: what one request costs, and how long it takes at worst. 15 and 16 count requests by O_DIRECT, so that each
 * 4 KiB of fio's is one request; 17 has everything going on at once.
 */
import { execFileSync } from 'node:child_process'
import { DIRECT_ONE_AT_A_TIME, directDepth, fio, type FioJob, microsecondsAt, ONE_AT_A_TIME } from './fio.js'
import { copyOf, makeFiles, readAll } from './files.js'
import { type Contender, type Row, type Scale, SideFigures } from './measure.js'
import { bindingNote, type Mounted, mountIsrfs, type Others, type Peer, peersOf } from './peers.js'
import type { Place } from './place.js'
import { contextSwitches, processorSeconds, systemCalls } from './processes.js'

const MIB = 2 ** 20
const PERCENTILES = [50, 99, 99.9]
/** reads while strace looks on, which takes some ten times as long */
const TRACED_READS = 2000

/** 15 and 16: all blocks present, and written to once, as those of a running guest are after a while. */
export async function requestRows(place: Place, { isQuick, rounds: roundsMax }: Scale, others: Others): Promise<Row[]> {
  const rounds = Math.min(roundsMax, 3)
  const files = await makeFiles(place, (isQuick ? 64 : 256) * MIB)
  const side = new SideFigures()
  const details: Record<string, string> = {}
  const mounts = new Map<string, Mounted>()
  for (const peer of peersOf(place, others)) {
    const mounted = await peer.mount(place.directory('home'), files.vm, copyOf(place, files), '--discard')
    await settle(place, mounted.mountpoint, files.bytes)
    mounts.set(peer.name, mounted)
  }
  const limits = [`--size=${files.bytes}`, `--runtime=${isQuick ? 1 : 5}`, '--time_based']
  const measured = (rw: 'read' | 'write'): Contender[] =>
    [...mounts].map(([name, { mountpoint, pid }]) => ({
      name,
      measure: async () => {
        const before = { seconds: processorSeconds(pid), switches: contextSwitches(pid) }
        const job = (await fio(place, mountpoint, `rand${rw}`, [...limits, ...DIRECT_ONE_AT_A_TIME]))[rw]
        side.note(`${name} ${rw}`, (contextSwitches(pid) - before.switches) / job.total_ios)
        return ((processorSeconds(pid) - before.seconds) / job.total_ios) * 1e6
      }
    }))
  const traced = async (mounted: Mounted): Promise<{ calls: number; told: string }> => {
    const calls = await systemCalls(place, mounted.pid, () =>
      fio(place, mounted.mountpoint, 'randread', [
        `--size=${files.bytes}`,
        `--number_ios=${TRACED_READS}`,
        ...DIRECT_ONE_AT_A_TIME
      ])
    )
    const each = [...calls].map(([name, count]) => ({ name, each: count / TRACED_READS }))
    const told = each.filter((call) => call.each >= 0.02).map((call) => `${call.name} ${call.each.toFixed(2)}`)
    return { calls: each.reduce((sum, call) => sum + call.each, 0), told: told.join(', ') }
  }
  const common = { better: 'less', rounds, goals: [], ...bindingNote() } as const
  const names = [...mounts.keys()]
  const switched = (rw: string): Contender[] => names.map((name) => side.contender(name, `${name} ${rw}`))
  return [
    {
      ...common,
      id: '15a',
      work: 'processor time of the daemon for each random 4 KiB read, cached, one at a time',
      unit: 'µs',
      contenders: measured('read')
    },
    {
      ...common,
      id: '15b',
      work: 'the same for each random 4 KiB write (O_DIRECT) into present blocks',
      unit: 'µs',
      contenders: measured('write')
    },
    {
      ...common,
      id: '16a',
      work: "context switches of the daemon's threads for each of these reads",
      unit: 'switches',
      contenders: switched('read')
    },
    { ...common, id: '16b', work: 'for each of these writes', unit: 'switches', contenders: switched('write') },
    ...(straceIsHere()
      ? [
          {
            ...common,
            id: '16c',
            work: `system calls of the daemon for each such read, ${TRACED_READS} of them under strace`,
            unit: 'calls',
            rounds: 1,
            details,
            contenders: [...mounts].map(([name, mounted]) => ({
              name,
              measure: async () => {
                const { calls, told } = await traced(mounted)
                details[name] = told
                return calls
              }
            }))
          } as const
        ]
      : [])
  ]
}

/** Everything read and written once, and the code warm. */
async function settle(place: Place, directory: string, bytes: number): Promise<void> {
  await readAll(place, directory)
  await fio(place, directory, 'write', [`--size=${bytes}`, '--end_fsync=1', ...ONE_AT_A_TIME, '--bs=1M'])
  await fio(place, directory, 'randrw', [`--size=${bytes}`, '--number_ios=4000', ...DIRECT_ONE_AT_A_TIME])
}

/** Rather no row than a failed run: strace is needed for nothing else. */
function straceIsHere(): boolean {
  try {
    execFileSync('strace', ['--version'], { stdio: 'ignore' })
    return true
  } catch {
    return false
  }
}

/**
 * 17: a guest reads and writes while a checkpoint is made and the cache is too small, so that regions are evicted and
 * fetched again. Nine of ten requests go to a fifth of the file.
 */
export async function latencyRows(place: Place, { isQuick, rounds: roundsMax }: Scale, others: Others): Promise<Row[]> {
  const rounds = Math.min(roundsMax, 3)
  const files = await makeFiles(place, (isQuick ? 256 : 1024) * MIB)
  const cacheSize = `${files.bytes / MIB / 2}M`
  const side = new SideFigures()
  const details: Record<string, string> = {}
  const load = (directory: string): Promise<FioJob> =>
    fio(place, directory, 'randrw', [
      `--size=${files.bytes}`,
      '--rwmixread=70',
      '--random_distribution=zoned:90/20:10/80',
      '--time_based',
      `--runtime=${isQuick ? 4 : 12}`,
      ...directDepth(4)
    ])
  const note = (name: string, job: FioJob): void => {
    for (const rw of ['read', 'write'] as const) {
      for (const percentile of PERCENTILES)
        side.note(`${name} ${rw} ${percentile}`, microsecondsAt(percentile, job[rw]))
    }
  }
  const busy = (peer: Peer): Contender => {
    const home = place.directory('home')
    return {
      name: peer.name,
      measure: async () => {
        const mounted = await peer.mount(home, files.vm, '', '--cache-size', cacheSize)
        await readAll(place, mounted.mountpoint)
        const checkpoints = checkpointsDuring(place, home, mounted.mountpoint, load(mounted.mountpoint))
        const { job, count } = await checkpoints
        const evicted = await evictedMegabytes(place, home, mounted.mountpoint)
        details[peer.name] = `${count} checkpoints, ${evicted.toFixed(0)} MB evicted`
        note(peer.name, job)
        await mounted.unmount()
        return side.take(`${peer.name} read 50`)
      }
    }
  }
  const alone = (name: string, mount: () => Promise<Pick<Mounted, 'mountpoint' | 'unmount'>>): Contender => ({
    name,
    measure: async () => {
      const mounted = await mount()
      await readAll(place, mounted.mountpoint)
      note(name, await load(mounted.mountpoint))
      await mounted.unmount()
      return side.take(`${name} read 50`)
    }
  })
  const peers = peersOf(place, others).filter(({ name }) => !isQuick || name.startsWith('isrfs'))
  const plain = copyOf(place, files)
  const contenders = [
    ...peers.filter(({ name }) => name.startsWith('isrfs')).map(busy),
    alone('isrfs, undisturbed', () => mountIsrfs(place, files.vm, place.directory('home'), '--discard')),
    ...peers
      .filter(({ name }) => !name.startsWith('isrfs'))
      .map((peer) => alone(peer.name, () => peer.mount(place.directory('home'), files.vm, plain))),
    alone('local', () => Promise.resolve({ mountpoint: plain, unmount: () => Promise.resolve() }))
  ]
  const common = { unit: 'µs', better: 'less', rounds, goals: [] } as const
  const what = `4 KiB O_DIRECT reads, 70 to 30 writes, 4 at a time; isrfs with checkpoints one after the other and a cache of ${cacheSize} for a file of ${files.bytes / MIB} MiB`
  const later = (id: string, rw: string, percentile: number): Row => ({
    ...common,
    id,
    work: `${percentile} % of its ${rw}s take at most`,
    contenders: contenders.map(({ name }) => side.contender(name, `${name} ${rw} ${percentile}`))
  })
  return [
    { ...common, id: '17a', work: `${what}: half of the reads take at most`, contenders, details, ...bindingNote() },
    later('17b', 'read', 99),
    later('17c', 'read', 99.9),
    later('17d', 'write', 50),
    later('17e', 'write', 99),
    later('17f', 'write', 99.9)
  ]
}

/** One checkpoint after the other until the load has ended; the one that is under way then is waited for. */
async function checkpointsDuring(
  place: Place,
  home: string,
  mountpoint: string,
  load: Promise<FioJob>
): Promise<{ job: FioJob; count: number }> {
  const over = new AbortController()
  const ended = load.finally(() => over.abort())
  const making = (async () => {
    let count = 0
    for (; !over.signal.aborted; count++) await place.isrfs(home, 'checkpoint', mountpoint)
    return count
  })()
  const [job, count] = await Promise.all([ended, making])
  return { job, count }
}

async function evictedMegabytes(place: Place, home: string, mountpoint: string): Promise<number> {
  const metrics = await place.isrfs(home, 'metrics', mountpoint)
  const [, bytes] = /^\w*evicted_bytes_total(?:{[^}]*})? (\S+)/m.exec(metrics) ?? []
  return Number(bytes) / 1e6
}
