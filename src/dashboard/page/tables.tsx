/** Generations on the share, and the last lines of the log. */
import { useEffect, useState } from 'preact/hooks'
import { type GenerationEntry, getGenerations, getLog, type LostGeneration } from './api.js'
import { bytes } from './text.js'

const LOG_INTERVAL_MS = 3000
const BAR_WIDTH = 120

/** `newest` changes when there is another one to show. */
export function Generations({ mount, newest }: { readonly mount: string; readonly newest: string }) {
  const [entries, setEntries] = useState<readonly (GenerationEntry | LostGeneration)[]>([])
  const [why, setWhy] = useState('')
  useEffect(() => {
    getGenerations(mount).then(
      (found) => {
        setEntries(found)
        setWhy('')
      },
      (error: unknown) => setWhy(error instanceof Error ? error.message : String(error))
    )
  }, [mount, newest])
  const largest = Math.max(1, ...entries.map((entry) => ('changedBytes' in entry ? entry.changedBytes : 0)))
  return (
    <section class="panel">
      <h2>Generations</h2>
      {why === '' ? null : <p class="failed">{why}</p>}
      <table>
        <thead>
          <tr>
            <th>number</th>
            <th>published</th>
            <th>by</th>
            <th>changed</th>
            <th>sent</th>
            <th>
              <span class="hidden">changed, as a bar</span>
            </th>
          </tr>
        </thead>
        <tbody>
          {entries.map((entry) => (
            <tr key={entry.branch ?? entry.generation}>
              <td>{entry.branch ?? entry.generation}</td>
              {'changedBytes' in entry ? <Published entry={entry} largest={largest} /> : <Lost entry={entry} />}
            </tr>
          ))}
        </tbody>
      </table>
    </section>
  )
}

function Published({ entry, largest }: { readonly entry: GenerationEntry; readonly largest: number }) {
  const { created, host, changedBytes, sentBytes } = entry
  return (
    <>
      <td>{new Date(created).toLocaleString()}</td>
      <td>{host}</td>
      <td class="number">{bytes(changedBytes)}</td>
      <td class="number">{bytes(sentBytes)}</td>
      <td>
        <svg width={BAR_WIDTH} height="10" aria-hidden="true">
          <rect width={(BAR_WIDTH * changedBytes) / largest} height="10" fill="#f0a3ae" />
          <rect width={(BAR_WIDTH * sentBytes) / largest} height="10" fill="#d0344a" />
        </svg>
      </td>
    </>
  )
}

function Lost({ entry }: { readonly entry: LostGeneration }) {
  return 'pruned' in entry ? (
    <td colSpan={5}>{`pruned ${new Date(entry.pruned).toLocaleString()}`}</td>
  ) : (
    <td colSpan={5} class="failed">
      {`cannot be read: ${entry.damage}`}
    </td>
  )
}

interface LogLine {
  readonly time: string
  readonly level: string
  readonly text: string
}

export function LogTail({ mount }: { readonly mount: string }) {
  const [lines, setLines] = useState<readonly LogLine[]>([])
  useEffect(() => {
    let isOver = false
    let timer = 0
    const look = async (): Promise<void> => {
      try {
        const found = await getLog(mount)
        if (!isOver) setLines(found.map(parse))
      } catch {
        // the next look tells
      }
      if (!isOver) timer = window.setTimeout(() => void look(), LOG_INTERVAL_MS)
    }
    void look()
    return () => {
      isOver = true
      clearTimeout(timer)
    }
  }, [mount])
  return (
    <section class="panel">
      <h2>Log</h2>
      <ol class="log">
        {lines.toReversed().map(({ time, level, text }, index) => (
          <li key={index} class={level}>
            <time>{time}</time> {text}
          </li>
        ))}
      </ol>
    </section>
  )
}

/** Lines that Node itself wrote are no JSON. */
function parse(line: string): LogLine {
  try {
    const { time, level, msg, event, why } = JSON.parse(line) as Record<string, unknown>
    const at = new Date(typeof time === 'number' || typeof time === 'string' ? time : 0)
    const reason = typeof why === 'string' ? `: ${why}` : ''
    return { time: at.toLocaleTimeString(), level: String(level), text: `${String(msg ?? event)}${reason}` }
  } catch {
    return { time: '', level: 'error', text: line }
  }
}
