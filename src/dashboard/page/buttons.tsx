/** Warm, checkpoint and suspend, each with its progress and how it went. */
import { useRef, useState } from 'preact/hooks'
import { act, type Action, type ActionLine, type Status } from './api.js'
import { bytes } from './text.js'

const TEXTS: Readonly<Record<Action, { readonly title: string; readonly what: string }>> = {
  warm: { title: 'Warm', what: 'fetch everything, so that the share may go away' },
  checkpoint: { title: 'Checkpoint', what: 'publish a generation now; the guest goes on' },
  suspend: { title: 'Suspend', what: 'unmount, and publish what was changed' }
}

interface Props {
  readonly mount: string
  readonly status: Status
  readonly suspendText: string
}

export function Buttons({ mount, status, suspendText }: Props) {
  const [running, setRunning] = useState<Action>()
  const [line, setLine] = useState<ActionLine>()
  const asked = useRef<HTMLDialogElement>(null)
  const run = async (action: Action): Promise<void> => {
    setRunning(action)
    setLine(undefined)
    await act(mount, action, setLine)
    setRunning(undefined)
  }
  const isPrivate = status.readOnly || status.discard
  const isOff = (action: Action): boolean =>
    running !== undefined || status.state !== 'mounted' || (action === 'checkpoint' && isPrivate)
  return (
    <div class="actions">
      {(['warm', 'checkpoint', 'suspend'] as const).map((action) => (
        <button
          key={action}
          type="button"
          class={action}
          title={TEXTS[action].what}
          disabled={isOff(action)}
          onClick={() => {
            if (action === 'suspend') asked.current?.showModal()
            else void run(action)
          }}
        >
          {running === action ? `${TEXTS[action].title} ...` : TEXTS[action].title}
        </button>
      ))}
      <Going line={line} />
      <dialog ref={asked}>
        <p>
          Unmount <b>{status.mountpoint}</b>? {suspendText}.
        </p>
        <p>Suspend the guest in its VMM first: while a program has files open there, the mount stays.</p>
        <form method="dialog">
          <button type="submit">No</button>
          <button
            type="submit"
            class="suspend"
            onClick={() => {
              void run('suspend')
            }}
          >
            Suspend
          </button>
        </form>
      </dialog>
    </div>
  )
}

function Going({ line }: { readonly line: ActionLine | undefined }) {
  if (line === undefined) return null
  switch (line.kind) {
    case 'progress': {
      const { phase, doneBytes, totalBytes, sentBytes } = line.progress
      const sent = sentBytes === 0 ? '' : `, ${bytes(sentBytes)} sent`
      return (
        <span role="status">
          <progress value={doneBytes} max={Math.max(1, totalBytes)} />{' '}
          {`${phase} ${bytes(doneBytes)} of ${bytes(totalBytes)}${sent}`}
        </span>
      )
    }
    case 'notice':
      return <span role="status">{line.text}</span>
    case 'done':
      return (
        <span role="status" class="done">
          {line.text}
        </span>
      )
    case 'failed':
      return (
        <span role="alert" class="failed">
          {line.text}
          {line.hint === undefined ? '' : ` (${line.hint})`}
        </span>
      )
  }
}
