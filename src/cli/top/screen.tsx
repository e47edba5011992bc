/** What `isrfs top` shows, for a terminal of any size from 60 x 16 on. All that changes comes in; nothing is asked here. */
import { Box, Text } from 'ink'
import type { ReactNode } from 'react'
import sparkly from 'sparkly'
import type { View } from '../../daemon/messages.js'
import { bytes, duration, percent } from '../figures.js'
import { type CellKind, LETTERS, pictureOf } from './picture.js'
import type { Layout, Look } from './watcher.js'

/** lines that are not maps: title, 5 of facts, waiting, 2 of rates, legend */
const OTHER_LINES = 10
const FILES_MAX = 3
/** files below this part of the largest are not worth a map */
const WORTH_A_MAP = 1 / 64
const MAP_LINES_MAX = 8

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
    const lines = Math.max(2, rows - OTHER_LINES - 1)
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
  return (
    <Box flexDirection="column" width={columns} height={rows} overflow="hidden">
      <Box justifyContent="space-between">
        <Text bold wrap="truncate">
          {title}
        </Text>
        <Text>{`${clock}  ${keys}`}</Text>
      </Box>
      {look.silentSinceMs === undefined ? null : <Silence sinceMs={look.silentSinceMs} />}
      {look.view === undefined ? null : <Facts {...props} view={look.view} />}
      {look.pictures.map(({ path, sizeBytes, cells }) => (
        <Box key={path} flexDirection="column">
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
      <Legend {...props} />
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

function Facts({ view, look, columns }: ScreenProps & { readonly view: View }): ReactNode {
  const { status, suspend, readBytes, hitBytes } = view
  const kind = status.readOnly ? ', read-only' : status.discard ? ', changes are discarded' : ''
  const lease = status.leaseNumber === null ? status.lease : `${status.lease} (${status.leaseNumber})`
  const share = `${status.shareAnswers ? 'answers' : 'DOES NOT ANSWER'}${status.shareErrors > 0 ? `, ${status.shareErrors} errors` : ''}`
  const state =
    status.phase === '' ? status.state : `${status.phase} ${percent(status.doneBytes, Math.max(1, status.toDoBytes))}`
  const hits = readBytes === 0 ? '-' : percent(Math.min(hitBytes, readBytes), readBytes)
  const width = Math.max(4, Math.floor((columns - 40) / 2))
  return (
    <>
      <Pairs
        pairs={[
          ['state', `${state}${kind}`],
          [
            'generation',
            `${status.generation}${status.checkpoint === null ? '' : ` (checkpoint ${status.checkpoint})`}`
          ],
          ['VM', status.vm]
        ]}
      />
      <Pairs
        pairs={[
          ['share', share],
          ['lease', lease],
          ['damaged', `${status.damagedBlocks} blocks`]
        ]}
      />
      <Pairs
        pairs={[
          ['present', `${bytes(status.presentBytes)} of ${bytes(status.totalBytes)}`],
          ['cache', bytes(status.cacheBytes)],
          ['hits', hits]
        ]}
      />
      <Pairs
        pairs={[
          ['dirty', bytes(status.dirtyBytes)],
          ['sent before', bytes(status.uploadedBytes)],
          ['ahead', `${status.aheadBlocks} blocks, ${status.aheadUsedBlocks} used`]
        ]}
      />
      <Text bold wrap="truncate">
        {suspendText(suspend, status)}
      </Text>
      <Text wrap="truncate" inverse={status.waiting.length > 0}>
        {`waiting: ${status.waiting.length === 0 ? 'nothing' : status.waiting.join(', ')}`}
      </Text>
      {(
        [
          ['read', 'readBytes', 'write', 'writtenBytes'],
          ['fetch', 'fetchedBytes', 'upload', 'uploadedBytes']
        ] as const
      ).map(([left, leftColumn, right, rightColumn]) => (
        <Text key={left} wrap="truncate">
          {rate(left, look?.rates[leftColumn] ?? [], width)} {rate(right, look?.rates[rightColumn] ?? [], width)}
        </Text>
      ))}
    </>
  )
}

export function suspendText(suspend: View['suspend'], status: View['status']): string {
  if (status.readOnly || status.discard) return 'nothing to suspend: changes are not kept'
  if (status.state !== 'mounted') return 'on its way to the share'
  const time = suspend.seconds === null ? 'how long is not known yet' : `about ${duration(suspend.seconds)}`
  return `suspend now: ${bytes(suspend.bytes)}, ${time}`
}

function rate(title: string, values: readonly number[], width: number): string {
  const shown = values.slice(-width)
  const line = shown.length === 0 ? '' : sparkly(shown, { minimum: 0, maximum: Math.max(1, ...shown) })
  const now = `${bytes(values.at(-1) ?? 0)}/s`
  return `${title.padEnd(6)} ${line.padStart(width)} ${now.padEnd(11)}`
}

function Pairs({ pairs }: { readonly pairs: readonly (readonly [string, string])[] }): ReactNode {
  return (
    <Box>
      {pairs.map(([name, value], index) => (
        <Box key={name} width={index === 2 ? undefined : '33%'} paddingRight={1} flexShrink={index === 2 ? 1 : 0}>
          <Text wrap="truncate">
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
