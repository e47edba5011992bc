/** What the buttons do, told line by line while it goes on. */
import { FailedError, IsrfsError, messageOf } from '../base/errors.js'
import { askCheckpoint, askUnmount, askWarm, connectTo } from '../daemon/control-client.js'
import type { Outcome, Progress } from '../daemon/messages.js'
import type { Action, ActionLine } from './messages.js'

export interface ActionParts {
  readonly outcomeText: (vm: string, outcome: Outcome) => string
  /** says more of an error: who keeps the mount busy */
  readonly explain: (error: unknown, mountpoint: string) => Promise<unknown>
  readonly bytesText: (bytes: number) => string
}

/** Never rejects: the last line says how it went. Warming is given up when `signal` says that nobody looks any more. */
export async function act(
  action: Action,
  mountpoint: string,
  tell: (line: ActionLine) => void,
  parts: ActionParts,
  signal: AbortSignal
): Promise<void> {
  try {
    const socket = await connectTo(mountpoint)
    if (socket === undefined) throw new FailedError('this mount has ended')
    const watch = {
      notice: (text: string) => tell({ kind: 'notice', text }),
      progress: (progress: Progress) => tell({ kind: 'progress', progress })
    }
    switch (action) {
      case 'warm': {
        signal.addEventListener('abort', () => socket.destroy())
        const { totalBytes, fetchedBytes } = await askWarm(socket, watch.progress)
        const all = parts.bytesText(totalBytes)
        tell({
          kind: 'done',
          text: `the cache holds everything: ${all}, ${parts.bytesText(fetchedBytes)} fetched for it`
        })
        break
      }
      case 'checkpoint': {
        const made = await askCheckpoint(socket, watch)
        const sent = made.kind === 'published' ? `, ${parts.bytesText(made.sentBytes)} sent` : ': nothing was changed'
        const held = `writes were held for ${Math.round(made.holdMs)} ms`
        tell({ kind: 'done', text: `generation ${made.generation} is durable on the share${sent}; ${held}` })
        break
      }
      case 'suspend': {
        const outcome = await askUnmount(socket, { verify: false }, watch)
        tell({ kind: 'done', text: parts.outcomeText(mountpoint, outcome) })
      }
    }
  } catch (failure) {
    const error = await parts.explain(failure, mountpoint)
    tell({ kind: 'failed', text: messageOf(error), hint: error instanceof IsrfsError ? error.hint : undefined })
  }
}
