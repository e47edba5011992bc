/** Metrics: sampled from a real mount, named in docs/metrics.md, and served to this host only. */
import fs from 'node:fs'
import http from 'node:http'
import net from 'node:net'
import path from 'node:path'
import anyTest, { type TestFn } from 'ava'
import { mergeMetrics } from '../../src/cli/command-metrics.js'
import { METRICS, TIMES_METRIC } from '../../src/daemon/metrics.js'
import { BUCKET_ENDS_SECONDS, OperationTimes } from '../../src/fuse/operation-times.js'
import { RunningOperations } from '../../src/fuse/running-operations.js'
import { Bed } from '../support/bed.js'

const test = anyTest as TestFn<{ bed: Bed }>

test.beforeEach((t) => {
  t.timeout(120_000)
  t.context.bed = new Bed('metrics')
})
test.afterEach.always((t) => t.context.bed.destroy())

const FILE_BYTES = 3 * 1024 * 1024 + 5

async function mounted({ bed }: { bed: Bed }, ...options: string[]): Promise<string> {
  const bytes = Buffer.alloc(FILE_BYTES)
  for (let at = 0; at < bytes.length; at++) bytes[at] = (at * at) >> 3
  fs.writeFileSync(path.join(bed.makeDirectory('source'), 'file'), bytes)
  await bed.mustIsrfs('a', 'import', bed.path('source'), bed.vm())
  return bed.mount('a', bed.vm(), 'mnt', ...options)
}

/** name and labels but those of the mount -> value */
function valuesOf(text: string, mountpoint: string): Map<string, number> {
  const values = new Map<string, number>()
  for (const line of text.split('\n')) {
    const match = /^(\w+)(?:\{(.*)\})? (\S+)$/.exec(line)
    if (match === null || !line.includes(`mountpoint="${mountpoint}"`)) continue
    const labels = (match[2] ?? '').split(',').filter((label) => !/^(vm|mountpoint)=/.test(label))
    values.set(`${match[1] ?? ''}${labels.length === 0 ? '' : `{${labels.join(',')}}`}`, Number(match[3]))
  }
  return values
}

function get(port: number, request: http.RequestOptions): Promise<{ code: number | undefined; text: string }> {
  return new Promise((resolve, reject) => {
    http
      .request({ host: '127.0.0.1', port, path: '/metrics', ...request }, (response) => {
        let text = ''
        response.setEncoding('utf8').on('data', (piece: string) => (text += piece))
        response.on('end', () => resolve({ code: response.statusCode, text }))
      })
      .on('error', reject)
      .end()
  })
}

test('figures are those of the mount: what was read, where it came from, how long requests took', async (t) => {
  const { bed } = t.context
  const mountpoint = await mounted(t.context)
  fs.readFileSync(path.join(mountpoint, 'file'))
  const descriptor = fs.openSync(path.join(mountpoint, 'new'), 'w')
  fs.writeSync(descriptor, Buffer.alloc(8192, 7))
  fs.fsyncSync(descriptor)
  fs.closeSync(descriptor)
  const text = (await bed.mustIsrfs('a', 'metrics', mountpoint)).stdout
  const values = valuesOf(text, mountpoint)
  const value = (name: string): number => values.get(name) ?? NaN
  t.is(value('isrfs_state{state="mounted"}'), 1)
  t.is(value('isrfs_generation'), 1)
  t.is(value('isrfs_dirty_bytes'), 8192)
  t.is(value('isrfs_written_bytes_total'), 8192)
  t.true(value('isrfs_read_bytes_total') >= FILE_BYTES)
  const sources = ['session', 'zero', 'cache', 'share'].map((source) =>
    value(`isrfs_read_source_bytes_total{source="${source}"}`)
  )
  t.is(
    sources.reduce((sum, bytes) => sum + bytes, 0),
    value('isrfs_read_bytes_total')
  )
  t.true((sources[3] ?? 0) > 0, 'a cold cache misses')
  t.is(value('isrfs_fetched_blocks_total'), Math.ceil(FILE_BYTES / (128 * 1024)))
  t.is(value('isrfs_lease_held'), 1)
  t.true(value('isrfs_operation_seconds_count{operation="read"}') > 0)
  t.true(value('isrfs_operation_seconds_count{operation="fsync"}') > 0)
  t.is(
    value('isrfs_operation_seconds_bucket{operation="read",le="+Inf"}'),
    value('isrfs_operation_seconds_count{operation="read"}')
  )
  t.true(value('isrfs_operation_seconds_sum{operation="read"}') > 0)
  const ahead = value('isrfs_ahead_blocks_total{for="readahead"}')
  t.is(
    value('isrfs_ahead_unused_blocks{for="readahead"}'),
    ahead - value('isrfs_ahead_used_blocks_total{for="readahead"}')
  )

  const named = new Set(
    [...text.matchAll(/^# TYPE (\S+) (\S+)$/gm)].map(([, name, type]) => `${name ?? ''} ${type ?? ''}`)
  )
  t.deepEqual(named, new Set([...METRICS, TIMES_METRIC].map(({ name, type }) => `${name} ${type}`)))
  for (const line of text.split('\n').filter((one) => one !== '' && !one.startsWith('#'))) {
    t.regex(line, /^isrfs_\w+\{[^{}]*vm="[^"]*"[^{}]*\} [-+.\de]+$/)
  }

  await bed.unmount('a', mountpoint)
  const none = await bed.isrfs('a', 'metrics', mountpoint)
  t.is(none.code, 1)
  t.regex(none.stderr, /not an isrfs mount/)
})

test('a port serves them to this host and nothing else; one that is taken stops no mount', async (t) => {
  const { bed } = t.context
  const taken = net.createServer()
  const port = await new Promise<number>((resolve) => {
    taken.listen(0, '127.0.0.1', () => resolve((taken.address() as net.AddressInfo).port))
  })
  const mountpoint = await mounted(t.context, '--read-only', '--metrics-port', String(port))
  t.regex((await bed.mustIsrfs('a', 'logs', mountpoint)).stdout, /no metrics on a port.*EADDRINUSE/)
  taken.close()
  const other = await bed.mount('a', bed.vm(), 'other', '--read-only', '--metrics-port', String(port))
  const answer = await get(port, {})
  t.is(answer.code, 200)
  t.is(valuesOf(answer.text, other).get('isrfs_generation'), 1)
  t.is((await get(port, { headers: { host: 'evil.example' } })).code, 403)
  t.is((await get(port, { path: '/status' })).code, 404)
  t.is((await get(port, { method: 'POST' })).code, 405)
  t.is((await get(port, { method: 'HEAD' })).text, '')
  await t.throwsAsync(
    get(port, { headers: { large: 'x'.repeat(9000) } }).then(({ code }) => {
      throw new Error(String(code))
    }),
    { message: /431|ECONNRESET/ }
  )
  const all = (await bed.mustIsrfs('a', 'metrics')).stdout
  for (const one of [mountpoint, other]) t.is(valuesOf(all, one).get('isrfs_generation'), 1)
  t.is(all.split('# TYPE isrfs_generation ').length, 2, 'one head for all mounts')
  await bed.unmount('a', other)
  await t.throwsAsync(get(port, {}), { message: /ECONNREFUSED/ })
})

test('the Grafana dashboard asks for metrics that there are', (t) => {
  const text = fs.readFileSync('docs/grafana.json', 'utf8')
  const dashboard = JSON.parse(text) as { panels: { targets?: { expr: string }[] }[] }
  const known = new Set<string>(METRICS.map(({ name }) => name))
  for (const end of ['_bucket', '_sum', '_count']) known.add(TIMES_METRIC.name + end)
  const asked = dashboard.panels.flatMap(({ targets }) =>
    (targets ?? []).flatMap(({ expr }) => expr.match(/isrfs_\w+/g) ?? [])
  )
  t.true(asked.length > 15)
  for (const name of asked) t.true(known.has(name), name)
})

test('a request is in the bucket that it belongs to', (t) => {
  const times = new OperationTimes()
  for (const milliseconds of [0, 0.008, 0.0081, 1, 67_000, 68_000, 1e12]) times.note('READ', milliseconds, false)
  times.note('read', 0.001, true)
  times.note('NOTHING_KNOWN', 1, false)
  const { counts, failed } = times.of('read')
  const bucketOf = (seconds: number): number => BUCKET_ENDS_SECONDS.findIndex((end) => seconds <= end)
  t.is(counts.length, BUCKET_ENDS_SECONDS.length + 1)
  t.is(counts[0], 3)
  t.is(counts[1], 1)
  t.is(counts[bucketOf(0.001)], 1)
  t.is(counts[bucketOf(67)], 1)
  t.is(counts.at(-1), 2)
  t.is(failed, 1)
  t.is(
    times.of('other').counts.reduce((sum, count) => sum + count, 0),
    1
  )
})

test('what runs is counted, and every end of it', async (t) => {
  const times = new OperationTimes()
  const running = new RunningOperations(() => undefined, times)
  const answer = { done: () => undefined, failed: () => undefined }
  let end: (value: number) => void = () => undefined
  running.run('WRITE', answer, () => new Promise<number>((resolve) => (end = resolve)))
  running.run('WRITE', answer, () => 1)
  running.run('WRITE', answer, () => {
    throw new Error('no')
  })
  t.is(times.running, 1)
  end(1)
  await running.drained()
  t.is(times.running, 0)
  t.is(
    times.of('write').counts.reduce((sum, count) => sum + count, 0),
    3
  )
  t.is(times.of('write').failed, 1)
})

test('texts of several mounts become one', (t) => {
  const text = (mount: string): string =>
    `# HELP isrfs_a about a\n# TYPE isrfs_a gauge\nisrfs_a{m="${mount}"} 1\n\n# HELP isrfs_ab of ab\n# TYPE isrfs_ab gauge\nisrfs_ab{m="${mount}"} 2\n`
  t.is(
    mergeMetrics([text('x'), text('y')]),
    '# HELP isrfs_a about a\n# TYPE isrfs_a gauge\nisrfs_a{m="x"} 1\nisrfs_a{m="y"} 1\n\n# HELP isrfs_ab of ab\n# TYPE isrfs_ab gauge\nisrfs_ab{m="x"} 2\nisrfs_ab{m="y"} 2\n'
  )
  t.is(mergeMetrics([]), '')
})
