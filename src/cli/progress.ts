/** Progress of long work: a bar with bytes, rate and ETA on a terminal, a plain line every few seconds elsewhere. */
import { Presets, SingleBar } from 'cli-progress'
import { bytes, duration, percent } from './figures.js'

const LINE_INTERVAL_MS = 3000

/** What is shown: a commit, an import or an export on its way. */
export interface Progress {
  readonly phase: string
  readonly doneBytes: number
  readonly totalBytes: number
  /** encoded bytes that went to the share */
  readonly sentBytes?: number
  /** encoded bytes that came from the share */
  readonly readBytes?: number
}

export interface ProgressView {
  show(progress: Progress): void
  /** Says something in between without breaking the bar. */
  say(text: string): void
  end(): void
}

export function progressView(stream: NodeJS.WriteStream = process.stderr): ProgressView {
  return stream.isTTY ? new BarView(stream) : new LineView(stream)
}

class BarView implements ProgressView {
  readonly #stream: NodeJS.WriteStream
  readonly #startedMs = Date.now()
  #bar: SingleBar | undefined

  constructor(stream: NodeJS.WriteStream) {
    this.#stream = stream
  }

  show(progress: Progress): void {
    const payload = { text: describe(progress, Date.now() - this.#startedMs) }
    const total = Math.max(progress.totalBytes, 1)
    if (this.#bar === undefined) {
      this.#bar = new SingleBar(
        {
          format: '{bar} {text}',
          stream: this.#stream,
          hideCursor: true,
          barsize: 24,
          fps: 5,
          clearOnComplete: true,
          linewrap: false
        },
        Presets.shades_classic
      )
      this.#bar.start(total, progress.doneBytes, payload)
    } else {
      this.#bar.setTotal(total)
      this.#bar.update(progress.doneBytes, payload)
    }
  }

  say(text: string): void {
    this.end()
    this.#stream.write(`isrfs: ${text}\n`)
  }

  end(): void {
    this.#bar?.stop()
    this.#bar = undefined
  }
}

class LineView implements ProgressView {
  readonly #stream: NodeJS.WriteStream
  readonly #startedMs = Date.now()
  #saidMs = 0

  constructor(stream: NodeJS.WriteStream) {
    this.#stream = stream
  }

  show(progress: Progress): void {
    const now = Date.now()
    if (now - this.#saidMs < LINE_INTERVAL_MS) return
    this.#saidMs = now
    this.#stream.write(`isrfs: ${describe(progress, now - this.#startedMs)}\n`)
  }

  say(text: string): void {
    this.#stream.write(`isrfs: ${text}\n`)
  }

  end(): void {
    // lines need no end
  }
}

/** "upload: 12 MiB of 40 MiB (30 %), 5.1 MiB/s, 5 s left, 3 MiB sent" */
export function describe({ phase, doneBytes, totalBytes, sentBytes, readBytes }: Progress, elapsedMs: number): string {
  if (totalBytes === 0) return phase
  const parts = [`${phase}: ${bytes(doneBytes)} of ${bytes(totalBytes)} (${percent(doneBytes, totalBytes)})`]
  const perSecond = elapsedMs > 0 ? (doneBytes * 1000) / elapsedMs : 0
  if (perSecond > 0) parts.push(`${bytes(perSecond)}/s`)
  if (perSecond > 0 && doneBytes < totalBytes) parts.push(`${duration((totalBytes - doneBytes) / perSecond)} left`)
  if (sentBytes !== undefined) parts.push(`${bytes(sentBytes)} sent`)
  if (readBytes !== undefined) parts.push(`${bytes(readBytes)} read`)
  return parts.join(', ')
}
