/**
 * Figures of one mount for Prometheus. Nothing is counted here: everything is sampled from where it is kept, when somebody
 * asks. docs/metrics.md is written from this list.
 */
import { Counter, Gauge, Histogram, Registry } from 'prom-client'
import { totalOf } from '../base/thread-counters.js'
import { PAGE_BYTES } from '../base/units.js'
import type { Cache } from '../cache/cache.js'
import { BUCKET_ENDS_SECONDS, OPERATION_KINDS, type OperationTimes } from '../fuse/operation-times.js'
import { READ_SOURCES } from '../image/layers.js'
import type { AheadPriority } from '../image/fetch-ahead.js'
import type { Status } from './messages.js'
import { type StatusSources, suspendOf, uploadedBytesOf } from './status.js'

export interface MetricSources extends StatusSources {
  readonly times: OperationTimes
}

type Sample = readonly [labels: Readonly<Record<string, string>>, value: number]

export interface Metric {
  readonly name: string
  readonly type: 'counter' | 'gauge'
  readonly help: string
  readonly label?: string
  readonly read: (sources: MetricSources) => number | readonly Sample[]
}

const STATES: readonly Status['state'][] = ['starting', 'mounted', 'unmounting', 'committing', 'ended']
const AHEAD: readonly AheadPriority[] = ['readahead', 'tables', 'profile', 'stream', 'warm']

const flag = (value: boolean): number => (value ? 1 : 0)

function labelled<Name extends string>(label: string, names: readonly Name[], value: (name: Name) => number): Sample[] {
  return names.map((name) => [{ [label]: name }, value(name)])
}

function counter(name: string, help: string, read: Metric['read'], label?: string): Metric {
  return { name: `isrfs_${name}`, type: 'counter', help, read, ...(label === undefined ? {} : { label }) }
}

function gauge(name: string, help: string, read: Metric['read'], label?: string): Metric {
  return { ...counter(name, help, read, label), type: 'gauge' }
}

const evictedBytes = (cache: Cache): number => cache.evictedBytes

/** Sorted by what they tell about. */
export const METRICS: readonly Metric[] = [
  gauge(
    'state',
    '1 for the state that the mount is in',
    ({ life }) => labelled('state', STATES, (state) => flag(life.state === state)),
    'state'
  ),
  gauge('generation', 'the generation that is shown, and that changes are based on', ({ vm }) => vm.base.number),
  gauge('start_time_seconds', 'when this mount began, in seconds since 1970', ({ since }) => Date.parse(since) / 1000),
  counter(
    'operation_errors_total',
    'requests of the kernel that were answered with an error (a name that is not there is one)',
    ({ times }) => labelled('operation', OPERATION_KINDS, (kind) => times.of(kind).failed),
    'operation'
  ),
  gauge('operations_running', 'requests of the kernel that are not answered yet', ({ times }) => times.running),
  counter('read_bytes_total', 'bytes that were read through the mount', ({ images }) => images.readBytes),
  counter('written_bytes_total', 'bytes that were written through the mount', ({ images }) => images.writtenBytes),
  counter(
    'read_source_bytes_total',
    'the same bytes by where they were when they were asked for: hits are all but share; threads: cache or session',
    ({ images, shared }) => [
      ...labelled('source', READ_SOURCES, (source) => images.servedBytes(source)),
      [{ source: 'threads' }, shared === undefined ? 0 : totalOf(shared.counters, 'readBytes')]
    ],
    'source'
  ),
  counter(
    'fetched_bytes_total',
    'encoded bytes that were read from chunks, maps included',
    ({ vm }) => vm.pool.counters.fetchedBytes
  ),
  counter('fetched_blocks_total', 'blocks of 128 KiB that were fetched', ({ vm }) => vm.pool.counters.fetchedBlocks),
  counter(
    'lookaside_blocks_total',
    'blocks that another cache of this client had, and that were copied from there instead',
    ({ vm }) => vm.pool.counters.lookasideBlocks
  ),
  counter(
    'ahead_blocks_total',
    'blocks that were fetched before anybody asked, by who wanted them',
    ({ images }) => labelled('for', AHEAD, (name) => images.ahead.counters[name].fetchedBlocks),
    'for'
  ),
  counter(
    'ahead_used_blocks_total',
    'of these, those that were read since',
    ({ images }) => labelled('for', AHEAD, (name) => images.ahead.counters[name].usedBlocks),
    'for'
  ),
  gauge(
    'ahead_unused_blocks',
    'the difference: waste, unless they are read later',
    ({ images }) =>
      labelled('for', AHEAD, (name) => {
        const { fetchedBlocks, usedBlocks } = images.ahead.counters[name]
        return fetchedBlocks - usedBlocks
      }),
    'for'
  ),
  counter('uploaded_bytes_total', 'encoded bytes that were sent to the share', (sources) => uploadedBytesOf(sources)),
  counter(
    'trickled_bytes_total',
    'of these, changes that were sent while nobody touched them',
    ({ images }) => images.trickledBytes
  ),
  counter('evicted_bytes_total', 'cached bytes that made room for others', ({ vm }) => evictedBytes(vm.cache)),
  gauge(
    'dirty_bytes',
    'changed since the generation: what a suspend has to look at',
    ({ vm }) => vm.session.namespace.dirtyPages * PAGE_BYTES
  ),
  gauge('pending_bytes', 'of these, not yet synced, about', ({ vm }) => vm.session.pendingBytes()),
  gauge(
    'suspend_bytes',
    'what a suspend would send now, about: changed blocks that the share does not have yet, encoded',
    (sources) => suspendOf(sources).bytes
  ),
  gauge(
    'suspend_seconds',
    'how long that would take, about; absent while too little was fetched to know the speed of the share',
    (sources) => {
      const { seconds } = suspendOf(sources)
      return seconds === null ? [] : [[{}, seconds]]
    }
  ),
  gauge('commit_done_bytes', 'how far a commit is', ({ life }) => life.progress.doneBytes),
  gauge('commit_total_bytes', 'of how much', ({ life }) => life.progress.totalBytes),
  gauge('total_bytes', 'sizes of all files', ({ images }) => images.totalBytes()),
  gauge('present_bytes', 'readable without the share, about', ({ images }) => images.presentBytes()),
  gauge('data_bytes', 'in blocks of the generation that have bytes: all that isrfs warm would bring', ({ images }) =>
    images.dataBytes()
  ),
  gauge('warm', '1 while everything is here, and the share may go away (isrfs warm)', ({ images }) =>
    flag(images.isWarm)
  ),
  gauge('cache_bytes', 'cached blocks on disk', ({ vm }) => vm.cache.bytes),
  gauge('cache_limit_bytes', 'what they may take', ({ vm }) => vm.cache.bytesMax),
  gauge(
    'queue_length',
    'tasks for the share: running, waiting because somebody waits for them, waiting in the background',
    ({ vm }) => {
      const queues = vm.pool.queues()
      return [
        [{ queue: 'running' }, queues.running],
        [{ queue: 'demand' }, queues.demand],
        [{ queue: 'background' }, queues.background]
      ]
    },
    'queue'
  ),
  gauge('waiting', 'requests and writes that wait for the share or for space', ({ images }) => images.waiting().length),
  gauge(
    'waiting_seconds',
    'how long the oldest of them has waited',
    ({ images }) => Math.max(0, ...images.waiting().map(({ sinceMs }) => sinceMs)) / 1000
  ),
  counter(
    'held_writes_total',
    'writes that had to wait for space on the disk of this client',
    ({ images }) => images.counters.heldWrites
  ),
  counter(
    'failed_writes_total',
    'writes that were accepted and could not be kept: the disk of this client is broken',
    ({ images }) => images.counters.failedWrites
  ),
  counter('share_errors_total', 'tasks that the share refused', ({ vm }) => vm.pool.counters.shareErrors),
  gauge('share_answers', '1 while the share answers', ({ vm }) => flag(vm.right.shareAnswers)),
  gauge(
    'share_beat_seconds',
    'how long the share took for the last beat: its latency for small files',
    ({ vm }) => vm.right.beatSeconds ?? 0
  ),
  counter(
    'damaged_blocks_total',
    'reads that met a damaged block and got EIO',
    ({ images }) => images.counters.damagedBlocks
  ),
  gauge(
    'lease_held',
    '1 while this mount may publish, 0 when it has lost that; absent for mounts that never may',
    ({ vm }) => {
      const { lease } = vm.right
      return lease === 'none' ? [] : [[{}, flag(lease === 'held')]]
    }
  ),
  gauge('lease_beat_age_seconds', 'since the share has last seen that this mount lives', ({ vm }) => {
    const { beatenMs } = vm.right
    return beatenMs === undefined ? [] : [[{}, (Date.now() - beatenMs) / 1000]]
  }),
  gauge('open_handles', 'open files and directories', ({ tree }) => tree.openHandles),
  gauge('resident_bytes', 'memory of the daemon', () => process.memoryUsage.rss()),
  counter('cpu_seconds_total', 'processor time of the daemon, its threads included', () => {
    const { user, system } = process.cpuUsage()
    return (user + system) / 1e6
  })
]

export const TIMES_METRIC = {
  name: 'isrfs_operation_seconds',
  type: 'histogram',
  help: 'how long requests of the kernel took, by kind',
  label: 'operation'
} as const

/** All metrics in the text format of Prometheus, each with the labels `vm` and `mountpoint`. */
export function metricsText(sources: MetricSources): Promise<string> {
  const registry = new Registry()
  registry.setDefaultLabels({ vm: sources.request.vmPath, mountpoint: sources.request.mountpoint })
  for (const metric of METRICS) register(metric, sources, registry)
  registry.registerMetric(new SampledTimes(sources.times))
  return registry.metrics()
}

function register({ name, type, help, label, read }: Metric, sources: MetricSources, registry: Registry): void {
  const options = { name, help, labelNames: label === undefined ? [] : [label], registers: [registry] }
  const value = read(sources)
  const samples = typeof value === 'number' ? [[{}, value] as const] : value
  const metric = type === 'counter' ? new Counter(options) : new Gauge(options)
  if (samples.length === 0) metric.remove()
  for (const [labels, count] of samples) metric.inc(labels, count)
}

type Collected = Awaited<ReturnType<Histogram['get']>>

/** Buckets that somebody else has filled. */
class SampledTimes extends Histogram {
  readonly #times: OperationTimes

  constructor(times: OperationTimes) {
    super({ name: TIMES_METRIC.name, help: TIMES_METRIC.help, registers: [] })
    this.#times = times
  }

  /** What Registry asks for, beside get(). */
  getForPromString(): Promise<Collected> {
    return this.get()
  }

  override get(): Promise<Collected> {
    const { name, help } = TIMES_METRIC
    const values = OPERATION_KINDS.flatMap((operation) => {
      const { counts, seconds } = this.#times.of(operation)
      let sum = 0
      const buckets = counts.map((count, index) => {
        sum += count
        const le = BUCKET_ENDS_SECONDS[index]
        return {
          metricName: `${name}_bucket`,
          labels: { operation, le: le === undefined ? '+Inf' : String(le) },
          value: sum
        }
      })
      return [
        ...buckets,
        { metricName: `${name}_sum`, labels: { operation }, value: seconds },
        { metricName: `${name}_count`, labels: { operation }, value: sum }
      ]
    })
    const collected = { name, help, type: 'histogram', aggregator: 'sum', values }
    // prom-client's types know types of metrics as an enum that does not exist at run time
    return Promise.resolve(collected as unknown as Collected)
  }
}
