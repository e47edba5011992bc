/** Charts of a mount's last ten minutes, and of how long its requests take. */
import { useEffect, useRef } from 'preact/hooks'
import uPlot from 'uplot'
import type { View } from './api.js'
import { type History, ratesOf, timesOf } from './samples.js'
import { bytes, shortTime } from './text.js'

const HEIGHT = 190
/** of an axis, beside its labels; and of a letter of them, about */
const AXIS_PIXELS = 20
const LETTER_PIXELS = 7
/** bytes are counted in powers of two */
const BYTE_STEPS = Array.from({ length: 50 }, (_none, exponent) => 2 ** exponent)
const COUNT_STEPS = [1, 2, 5]
  .flatMap((first) => Array.from({ length: 12 }, (_none, zeros) => first * 10 ** zeros))
  .sort((a, b) => a - b)
const GREY = '#8a93a0'

interface Series {
  readonly label: string
  readonly colour: string
  readonly values: readonly number[]
}

interface ChartProps {
  readonly title: string
  readonly x: readonly number[]
  readonly series: readonly Series[]
  readonly valueText: (value: number) => string
  readonly xText: (value: number) => string
  readonly isStacked?: boolean
  readonly isBars?: boolean
  readonly areBytes?: boolean
  /** what x is */
  readonly xLabel: string
}

/** One chart; made once, and given new numbers as they come. */
function Chart({
  title,
  x,
  series,
  valueText,
  xText,
  isStacked = false,
  isBars = false,
  areBytes = false,
  xLabel
}: ChartProps) {
  const place = useRef<HTMLDivElement>(null)
  const chart = useRef<uPlot>(null)
  const shown = isStacked ? stack(series) : series
  const data: uPlot.AlignedData = [[...x], ...shown.map(({ values }) => [...values])]
  useEffect(() => {
    const element = place.current
    if (element === null) return undefined
    const axis = { stroke: GREY, grid: { stroke: '#8a93a033', width: 1 }, ticks: { stroke: '#8a93a033', width: 1 } }
    const bars = uPlot.paths.bars?.({ size: [0.8, 40] })
    const made = new uPlot(
      {
        width: Math.max(260, element.clientWidth),
        height: HEIGHT,
        scales: { x: { time: false }, y: { range: (_chart, _least, most) => [0, Math.max(1, most * 1.1)] } },
        axes: [
          { ...axis, values: (_chart, ticks) => ticks.map(xText) },
          {
            ...axis,
            incrs: areBytes ? BYTE_STEPS : COUNT_STEPS,
            size: (_chart, labels: string[] | null) =>
              AXIS_PIXELS + LETTER_PIXELS * Math.max(4, ...(labels ?? []).map(({ length }) => length)),
            values: (_chart, ticks) => ticks.map(valueText)
          }
        ],
        series: [
          { label: xLabel, value: (_chart, value) => (typeof value === 'number' ? xText(value) : '') },
          ...series.map(({ label, colour }, index) => ({
            label,
            stroke: colour,
            width: isBars ? 0 : 1.5,
            points: { show: false },
            ...(isStacked || isBars ? { fill: isBars ? colour : `${colour}cc` } : {}),
            ...(isBars && bars !== undefined ? { paths: bars } : {}),
            value: (_chart: uPlot, _value: number, _series: number, at: number | null) =>
              at === null ? '' : valueText(latest.current[index]?.values[at] ?? 0)
          }))
        ]
      },
      data,
      element
    )
    chart.current = made
    const observer = new ResizeObserver(() =>
      made.setSize({ width: Math.max(260, element.clientWidth), height: HEIGHT })
    )
    observer.observe(element)
    return () => {
      observer.disconnect()
      made.destroy()
    }
  }, [])
  const latest = useRef(series)
  latest.current = series
  useEffect(() => chart.current?.setData(data))
  return (
    <section class="panel">
      <h2>{title}</h2>
      <div ref={place} />
    </section>
  )
}

/** Sums from the last series up, so that each is drawn over those that are higher. */
function stack(series: readonly Series[]): Series[] {
  return series.map((one, index) => ({
    ...one,
    values: one.values.map((_value, at) => series.slice(index).reduce((sum, { values }) => sum + (values[at] ?? 0), 0))
  }))
}

const ago = (seconds: number): string => (seconds >= -0.5 ? 'now' : `${Math.round(seconds)} s`)
const perSecond = (value: number): string => `${bytes(value)}/s`

export function RateChart({ history }: { readonly history: History }) {
  const series = [
    { label: 'read', colour: '#3a915c', values: ratesOf(history, 'readBytes') },
    { label: 'written', colour: '#d0344a', values: ratesOf(history, 'writtenBytes') },
    { label: 'fetched', colour: '#f5b01e', values: ratesOf(history, 'fetchedBytes') },
    { label: 'sent', colour: '#8c60be', values: ratesOf(history, 'uploadedBytes') }
  ]
  return (
    <Chart
      title="Rates"
      xLabel="when"
      x={timesOf(history)}
      series={series}
      valueText={perSecond}
      xText={ago}
      areBytes
    />
  )
}

/** Blocks that came, by who wanted them. */
export function FetchChart({ history }: { readonly history: History }) {
  const ahead = [
    { label: 'readahead', colour: '#3a915c', values: ratesOf(history, 'readaheadBlocks') },
    { label: 'profile', colour: '#3478c4', values: ratesOf(history, 'profileBlocks') },
    { label: 'stream', colour: '#2aa6a6', values: ratesOf(history, 'streamBlocks') },
    { label: 'warm', colour: '#b0b8c4', values: ratesOf(history, 'warmBlocks') }
  ]
  const demand = ratesOf(history, 'fetchedBlocks').map((all, at) =>
    Math.max(0, all - ahead.reduce((sum, { values }) => sum + (values[at] ?? 0), 0))
  )
  const series = [{ label: 'demand', colour: '#d0344a', values: demand }, ...ahead]
  const text = (value: number): string => `${Math.round(value)} blocks`
  return (
    <Chart
      title="What came, and why"
      xLabel="when"
      x={timesOf(history)}
      series={series}
      valueText={text}
      xText={ago}
      isStacked
    />
  )
}

const KINDS: readonly (readonly [string, string])[] = [
  ['read', '#3a915c'],
  ['write', '#d0344a'],
  ['fsync', '#8c60be']
]

/** All requests since the mount began that its owner has answered (those of request threads are too quick to be timed). */
export function LatencyChart({ latency }: { readonly latency: View['latency'] }) {
  const { endsSeconds, kinds } = latency
  const counts = KINDS.map(([name, colour]) => {
    const values = kinds.find(({ operation }) => operation === name)?.counts ?? []
    return { label: name, colour, values }
  })
  const x = [...endsSeconds, Infinity].map((_end, index) => index)
  const text = (value: number): string => {
    const end = endsSeconds[Math.round(value)]
    return end === undefined ? 'more' : shortTime(end)
  }
  return (
    <Chart
      title="How long requests took"
      xLabel="within"
      x={x}
      series={counts}
      valueText={(value) => String(Math.round(value))}
      xText={text}
      isStacked
      isBars
    />
  )
}
