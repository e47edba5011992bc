/**
 * What `isrfs top` shows, for a terminal of any size: of a small one the lines that answer most. All that changes comes in; nothing is
 * asked here.
 */
import { Box, Text } from 'ink'
import type { ReactNode } from 'react'
import sparkly from 'sparkly'
import type { View } from '../../daemon/messages.js'
import { bytes, duration, percent } from '../figures.js'
import { cableText, presentText, suspendText } from '../mount-facts.js'
import { type CellKind, LETTERS, pictureOf } from './picture.js'
import type { Layout, Look } from './watcher.js'

/** lines that are not maps: title, 4 of facts, suspend, cable, waiting, 2 of rates, legend */
const OTHER_LINES = 11
/** lines below which there is no room for a map */
const LINES_FOR_MAPS_MIN = 14
const FILES_MAX = 3
/** files below this part of the largest are not worth a map */
const WORTH_A_MAP = 1 / 64
const MAP_LINES_MAX = 8
/** columns that a line of three, or of two facts needs */
const COLUMNS_FOR_THREE = 76
const COLUMNS_FOR_TWO = 40

const COLOURS: Readonly<Partial<Record<CellKind, string>>> = {
  dirty: 'red',
  inFlight: 'yellow',
  foretold: 'cyan',
  present: 'green',
  partly: 'green',
  sent: 'magenta'
}

export interface ScreenProps {
  readonly look: Look | undefined
  readonly columns: number
  readonly rows: number
  readonly isColourful: boolean
  /** "2/3": which of how many mounts */
  readonly place: string
  /** blocks that are coming are bright and dim in turn */
  readonly isBright: boolean
  readonly keys: string
}

/** Which files get a map, how large, on a screen of this size; `skip` leaves out the largest ones. */
export function layoutFor(columns: number, rows: number, skip: number): Layout {
  return (files) => {
    const worthy = files.filter(({ sizeBytes }, index) => {
      return (
        sizeBytes > 0 && (index === 0 || sizeBytes >= (files[0]?.sizeBytes ?? 0) * WORTH_A_MAP || index >= FILES_MAX)
      )
    })
    const first = Math.min(skip, Math.max(0, worthy.length - 1))
    if (rows < LINES_FOR_MAPS_MIN) return []
    const lines = rows - OTHER_LINES
    const shown = worthy.slice(first, first + Math.min(FILES_MAX, Math.floor(lines / 2)))
    const each = Math.min(MAP_LINES_MAX, Math.max(1, Math.floor(lines / Math.max(1, shown.length)) - 1))
    return shown.map((file) => ({ file, cells: each * columns }))
  }
}

export function Screen(props: ScreenProps): ReactNode {
  const { look, columns, rows, place, keys } = props
  if (look === undefined) return <Text>looking for mounts ...</Text>
  const clock = new Date().toTimeString().slice(0, 8)
  const title = `isrfs top  ${look.mountpoint}${place}`
  const right = columns < COLUMNS_FOR_TWO ? '' : `  ${clock}  ${keys}`
  const head = [
    <Box key="title" justifyContent="space-between">
      <Text bold wrap="truncate">
        {title}
      </Text>
      <Box flexShrink={0}>
        <Text>{right}</Text>
      </Box>
    </Box>,
    ...(look.silentSinceMs === undefined ? [] : [<Silence key="silence" sinceMs={look.silentSinceMs} />])
  ]
  const room = rows - head.length
  return (
    <Box flexDirection="column" width={columns} height={rows} overflow="hidden">
      {head}
      {look.view === undefined ? null : factLines(props, look.view, room)}
      {look.pictures.map(({ path, sizeBytes, cells }) => (
        <Box key={path} flexDirection="column" flexShrink={0}>
          <Text dimColor wrap="truncate">{`${path}  ${bytes(sizeBytes)}`}</Text>
          {pictureOf(cells, columns).map((runs, row) => (
            <Text key={row} wrap="truncate">
              {runs.map(({ kind, text }, index) => (
                <Cell key={index} {...props} kind={kind} text={text} />
              ))}
            </Text>
          ))}
        </Box>
      ))}
      {look.pictures.length === 0 ? null : <Legend {...props} />}
    </Box>
  )
}

function Silence({ sinceMs }: { readonly sinceMs: number }): ReactNode {
  const seconds = duration((Date.now() - sinceMs) / 1000)
  return (
    <Text
      inverse
      wrap="truncate"
    >{`the daemon has not answered for ${seconds}: it is stopped, or hangs; below is what was seen last`}</Text>
  )
}

interface Line {
  /** the least important lines go first where there is no room */
  readonly importance: number
  readonly line: ReactNode
}

/** As many lines as there is room for, in their order. */
function factLines(props: ScreenProps, view: View, room: number): ReactNode {
  const lines = allLines(props, view)
  const kept = new Set(lines.toSorted((first, second) => second.importance - first.importance).slice(0, room))
  return lines.map((one, index) =>
    kept.has(one) ? (
      <Box key={index} flexShrink={0}>
        {one.line}
      </Box>
    ) : null
  )
}

function allLines({ look, columns }: ScreenProps, { status, readBytes, hitBytes }: View): Line[] {
  const kind = status.readOnly ? ', read-only' : status.discard ? ', changes are discarded' : ''
  const lease = status.leaseNumber === null ? status.lease : `${status.lease} (${status.leaseNumber})`
  const share = `${status.shareAnswers ? 'answers' : 'IS AWAY'}${status.shareErrors > 0 ? `, ${status.shareErrors} errors` : ''}`
  const state =
    status.phase === '' ? status.state : `${status.phase} ${percent(status.doneBytes, Math.max(1, status.toDoBytes))}`
  const checkpoint = status.checkpoint === null ? '' : ` (checkpoint ${status.checkpoint})`
  const hits = readBytes === 0 ? '-' : percent(Math.min(hitBytes, readBytes), readBytes)
  const width = Math.max(4, Math.floor((columns - 40) / 2))
  const pairs = (importance: number, ...three: readonly Pair[]): Line => ({
    importance,
    line: <Pairs pairs={three} columns={columns} />
  })
  const rates = (importance: number, ...two: readonly (readonly [string, keyof Look['rates']])[]): Line => ({
    importance,
    line: (
      <Text wrap="truncate">{two.map(([name, column]) => rate(name, look?.rates[column] ?? [], width)).join(' ')}</Text>
    )
  })
  return [
    pairs(6, ['state', `${state}${kind}`], ['generation', `${status.generation}${checkpoint}`], ['VM', status.vm]),
    pairs(5, ['share', share], ['lease', lease], ['damaged', `${status.damagedBlocks} blocks`]),
    pairs(4, ['present', presentText(status)], ['cache', bytes(status.cacheBytes)], ['hits', hits]),
    pairs(
      7,
      ['dirty', bytes(status.dirtyBytes)],
      ['sent before', bytes(status.uploadedBytes)],
      ['ahead', `${status.aheadBlocks}, ${status.aheadUsedBlocks} used`]
    ),
    {
      importance: 10,
      line: (
        <Text bold wrap="truncate">
          {suspendText(status)}
        </Text>
      )
    },
    {
      importance: 8,
      line: (
        <Text wrap="truncate" inverse={!status.shareAnswers}>
          {`cable: ${cableText(status)}`}
        </Text>
      )
    },
    {
      importance: 9,
      line: (
        <Text wrap="truncate" inverse={status.waiting.length > 0}>
          {`waiting: ${status.waiting.length === 0 ? 'nothing' : status.waiting.join(', ')}`}
        </Text>
      )
    },
    rates(2, ['read', 'readBytes'], ['write', 'writtenBytes']),
    rates(3, ['fetch', 'fetchedBytes'], ['upload', 'uploadedBytes'])
  ]
}

function rate(title: string, values: readonly number[], width: number): string {
  const shown = values.slice(-width)
  const line = shown.length === 0 ? '' : sparkly(shown, { minimum: 0, maximum: Math.max(1, ...shown) })
  const now = `${bytes(values.at(-1) ?? 0)}/s`
  return `${title.padEnd(6)} ${line.padStart(width)} ${now.padEnd(11)}`
}

type Pair = readonly [name: string, value: string]

const WIDTHS: readonly (readonly string[])[] = [['100%'], ['50%', '50%'], ['35%', '38%', '27%']]

/** The first of them only, where there is no room for three. */
function Pairs({ pairs, columns }: { readonly pairs: readonly Pair[]; readonly columns: number }): ReactNode {
  const count = columns < COLUMNS_FOR_TWO ? 1 : columns < COLUMNS_FOR_THREE ? 2 : 3
  return (
    <Box width={columns}>
      {pairs.slice(0, count).map(([name, value], index) => (
        <Box key={name} width={WIDTHS[count - 1]?.[index]} paddingRight={1} flexShrink={0}>
          <Text wrap={name === 'VM' ? 'truncate-middle' : 'truncate'}>
            <Text dimColor>{name}</Text> {value}
          </Text>
        </Box>
      ))}
    </Box>
  )
}

function Cell({
  kind,
  text,
  isColourful,
  isBright
}: Pick<ScreenProps, 'isColourful' | 'isBright'> & { readonly kind: CellKind; readonly text: string }): ReactNode {
  const colour = COLOURS[kind]
  const isDim = kind === 'partly' || (kind === 'inFlight' && !isBright)
  const shown = kind === 'inFlight' && !isBright ? text.replaceAll(LETTERS.inFlight, '·') : text
  if (!isColourful || colour === undefined) return <>{shown}</>
  return (
    <Text color={colour} dimColor={isDim}>
      {shown}
    </Text>
  )
}

const LEGEND: readonly (readonly [CellKind, string])[] = [
  ['dirty', 'changed'],
  ['sent', 'sent'],
  ['inFlight', 'coming'],
  ['foretold', 'by profile'],
  ['present', 'here'],
  ['partly', 'partly'],
  ['absent', 'absent']
]

function Legend(props: ScreenProps): ReactNode {
  return (
    <Text wrap="truncate">
      {LEGEND.map(([kind, name]) => (
        <Text key={kind}>
          <Cell {...props} isBright kind={kind} text={LETTERS[kind]} />
          <Text dimColor>{` ${name}  `}</Text>
        </Text>
      ))}
    </Text>
  )
}
