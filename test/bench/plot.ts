/** A row as an SVG: one bar for each contender, with its figure, and a dot for each round; or how its figure grows. */
import { type Curves, round3, type RowResult, SELF } from './measure.js'

const OWN = '#2b7de9'
const LINES = [OWN, '#e98a2b', '#4b9c5a', '#9b59b6', '#777']
const LEFT = 160
const WIDTH = 480

export function plot(row: RowResult): string {
  const { curves } = row
  const isCurve = curves !== undefined && Object.keys(curves.lines).length > 0
  const { height, body } = isCurve ? lines(row, curves) : bars(row)
  const title = `${row.id}: ${row.work} (${row.better} is better)`
  return `<svg xmlns="http://www.w3.org/2000/svg" width="860" height="${height}" font-family="sans-serif" font-size="13"><rect width="100%" height="100%" fill="#fff"/><text x="10" y="22" font-size="14">${escape(title)}</text>${body}</svg>\n`
}

interface Drawing {
  readonly height: number
  readonly body: string
}

function bars({ unit, samples, medians }: RowResult): Drawing {
  const names = Object.keys(medians)
  const largest = Math.max(...Object.values(samples).flat(), Number.MIN_VALUE)
  const x = (figure: number): string => (LEFT + (WIDTH * figure) / largest).toFixed(1)
  const body = names.map((name, index) => {
    const y = 40 + index * 30
    const figure = medians[name] ?? 0
    const dots = (samples[name] ?? []).map((sample) => `<circle cx="${x(sample)}" cy="${y + 10}" r="3" fill="#222"/>`)
    const width = (Number(x(figure)) - LEFT).toFixed(1)
    return `${label(name, y + 15)}<rect x="${LEFT}" y="${y}" width="${width}" height="20" fill="${name === SELF ? OWN : '#b5bcc6'}"/>${dots.join('')}<text x="655" y="${y + 15}">${round3(figure)} ${unit}</text>`
  })
  return { height: 50 + names.length * 30, body: body.join('') }
}

function lines({ unit }: RowResult, { x: xName, lines: told }: Curves): Drawing {
  const [top, bottom] = [50, 270]
  const points = Object.values(told).flat()
  const xMax = Math.max(...points.map(([x]) => x), Number.MIN_VALUE)
  const yMax = Math.max(...points.map(([, y]) => y), Number.MIN_VALUE)
  const at = ([x, y]: [number, number]): string =>
    `${(LEFT + (WIDTH * x) / xMax).toFixed(1)},${(bottom - ((bottom - top) * y) / yMax).toFixed(1)}`
  const drawn = Object.entries(told).map(([name, line], index) => {
    const colour = LINES[index % LINES.length] ?? OWN
    const last = line.at(-1)?.[1] ?? 0
    return `<polyline points="${line.map(at).join(' ')}" fill="none" stroke="${colour}" stroke-width="2"/><text x="655" y="${70 + index * 20}" fill="${colour}">${escape(name)}: ${round3(last)} ${unit}</text>`
  })
  const axes = `<path d="M${LEFT} ${top}V${bottom}H${LEFT + WIDTH}" fill="none" stroke="#222"/>${label(`${round3(yMax)} ${unit}`, top + 5)}${label('0', bottom + 5)}<text x="${LEFT + WIDTH}" y="${bottom + 20}" text-anchor="end">${round3(xMax)} ${escape(xName)}</text>`
  return { height: bottom + 35, body: axes + drawn.join('') }
}

function label(text: string, y: number): string {
  return `<text x="${LEFT - 10}" y="${y}" text-anchor="end">${escape(text)}</text>`
}

function escape(text: string): string {
  return text.replaceAll('&', '&amp;').replaceAll('<', '&lt;')
}
