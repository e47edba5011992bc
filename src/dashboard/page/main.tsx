/** The page: all mounts above, the chosen one below. */
import { render } from 'preact'
import { useEffect, useState } from 'preact/hooks'
import { listen, type Look, type SeenMount, type View } from './api.js'
import { BlockMap } from './block-map.js'
import { Buttons } from './buttons.js'
import { FetchChart, LatencyChart, RateChart } from './charts.js'
import { type History, NO_HISTORY, withSamples } from './samples.js'
import { Generations, LogTail } from './tables.js'
import { bytes, cableText, percent, presentText, suspendText } from './text.js'

function App() {
  const [chosen, setChosen] = useState<string>()
  const [look, setLook] = useState<Look>()
  const [view, setView] = useState<View>()
  const [history, setHistory] = useState<History>(NO_HISTORY)
  const [isOpen, setOpen] = useState<boolean>()

  useEffect(() => {
    setView(undefined)
    setHistory(NO_HISTORY)
    return listen(
      chosen,
      (seen) => {
        setLook(seen)
        if (seen.view === null) return
        const { samples } = seen.view
        setView(seen.view)
        setHistory((before) => withSamples(before, samples))
      },
      setOpen
    )
  }, [chosen])

  const mounts = look?.mounts ?? []
  const [first] = mounts
  useEffect(() => {
    if (chosen === undefined && first !== undefined) setChosen(first.id)
  }, [chosen, first])
  const mount = mounts.find(({ id }) => id === chosen)

  return (
    <>
      <header class="top">
        <h1>isrfs</h1>
        <nav>
          {mounts.map((one) => (
            <MountTab key={one.id} mount={one} isChosen={one.id === chosen} onChoose={() => setChosen(one.id)} />
          ))}
        </nav>
        <span class={isOpen === false ? 'failed' : 'live'} role="status">
          {isOpen === undefined ? 'connecting ...' : isOpen ? 'live' : 'the dashboard does not answer: has it ended?'}
        </span>
      </header>
      {look === undefined ? null : <Chosen mount={mount} view={view} history={history} isNone={mounts.length === 0} />}
    </>
  )
}

function MountTab({
  mount,
  isChosen,
  onChoose
}: {
  readonly mount: SeenMount
  readonly isChosen: boolean
  readonly onChoose: () => void
}) {
  const { mountpoint, status } = mount
  return (
    <button type="button" aria-pressed={isChosen} onClick={onChoose}>
      <b>{mountpoint}</b>
      <small>
        {status === null
          ? 'does not answer'
          : `${status.state}, generation ${status.generation}, ${bytes(status.dirtyBytes)} changed`}
      </small>
    </button>
  )
}

function Chosen({
  mount,
  view,
  history,
  isNone
}: {
  readonly mount: SeenMount | undefined
  readonly view: View | undefined
  readonly history: History
  readonly isNone: boolean
}) {
  if (mount === undefined) {
    return (
      <main>
        <p class="nothing">
          {isNone ? 'Nothing is mounted. isrfs mount <vm> <mountpoint> changes that.' : 'This mount has ended.'}
        </p>
      </main>
    )
  }
  if (mount.status === null) {
    return (
      <main>
        <p class="failed">
          The daemon of {mount.mountpoint} does not answer: {mount.why}. What was accepted is safe.{' '}
          <code>isrfs status</code> tells more.
        </p>
      </main>
    )
  }
  if (view === undefined) return <main />
  const { status } = view
  const suspend = suspendText(status)
  return (
    <main>
      <section class="panel wide">
        <Facts view={view} suspend={suspend} />
        <Buttons mount={mount.id} status={status} suspendText={suspend} />
      </section>
      <BlockMap mount={mount.id} files={view.files} />
      <RateChart history={history} />
      <FetchChart history={history} />
      <LatencyChart latency={view.latency} />
      <Generations mount={mount.id} newest={`${status.generation} ${status.checkpoint ?? ''}`} />
      <LogTail mount={mount.id} />
    </main>
  )
}

const DOES_NOT_ANSWER = 'DOES NOT ANSWER'

function damaged(reads: number): string {
  return reads === 0 ? 'nothing' : `${reads} reads met a DAMAGED block: isrfs check --repair`
}

function isBad(value: string): boolean {
  return value === DOES_NOT_ANSWER || value.includes('DAMAGED')
}

function Facts({ view, suspend }: { readonly view: View; readonly suspend: string }) {
  const { status, readBytes, hitBytes } = view
  const facts: readonly (readonly [string, string])[] = [
    ['VM', status.vm],
    ['state', status.phase === '' ? status.state : `${status.state}: ${status.phase}`],
    ['share', status.shareAnswers ? `answers, ${status.shareErrors} errors` : DOES_NOT_ANSWER],
    ['cable', cableText(status)],
    ['lease', status.leaseNumber === null ? status.lease : `${status.lease} (${status.leaseNumber})`],
    ['size', bytes(status.totalBytes)],
    ['present', presentText(status)],
    ['changed', bytes(status.dirtyBytes)],
    ['sent before the suspend', bytes(status.uploadedBytes)],
    ['reads that found it here', percent(hitBytes, readBytes)],
    ['fetched ahead', `${status.aheadBlocks} blocks, ${status.aheadUsedBlocks} read since`],
    ['damaged', damaged(status.damagedBlocks)],
    ['waiting', status.waiting.length === 0 ? 'nothing' : status.waiting.join(', ')]
  ]
  return (
    <>
      <h2>
        {status.mountpoint} <strong>{suspend}</strong>
      </h2>
      <dl>
        {facts.map(([name, value]) => (
          <div key={name} class={isBad(value) ? 'failed' : ''}>
            <dt>{name}</dt>
            <dd>{value}</dd>
          </div>
        ))}
      </dl>
    </>
  )
}

const place = document.getElementById('app')
if (place !== null) {
  place.replaceChildren()
  render(<App />, place)
}
