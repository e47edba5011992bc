/**
 * A mount's standing on the share: the lease of one that may publish, the pin of one that only reads. Both show every
 * few seconds that their holder lives; one that has neither (any more) only asks the share then. All of it runs in share workers; a dead server delays beats and nothing else.
 */
import { IntegrityError, messageOf } from '../base/errors.js'
import type { SharePool } from '../fetch/share-pool.js'
import type { GenerationReference, HeldLease, LeaseHolder } from '../share/lease.js'
import type { Pin } from '../share/pin.js'
import { event } from './log-events.js'
import type { Log } from './log.js'

export const BEAT_INTERVAL_MS = 5000

export interface Right {
  readonly lease: 'held' | 'lost' | 'none'
  readonly leaseNumber: number | null
  /** whether the share answered the last beat */
  readonly shareAnswers: boolean
  /** when the share has last taken a beat, in ms since 1970; undefined: nothing beats */
  readonly beatenMs: number | undefined
  /** how long the last beat took */
  readonly beatSeconds: number | undefined
  /** Ends the beats and leaves the lease as it is, so that nobody else publishes. */
  stop(): void
  /** Ends the beats and gives the lease (or pin) back. */
  giveBack(newest: GenerationReference): Promise<void>
}

abstract class BeatingRight implements Right {
  abstract readonly lease: 'held' | 'lost' | 'none'
  abstract readonly leaseNumber: number | null
  shareAnswers = true
  beatenMs: number | undefined = Date.now()
  beatSeconds: number | undefined
  protected readonly pool: SharePool
  protected readonly log: Log
  readonly #timer: NodeJS.Timeout
  #beats = 0
  #beating = false
  protected isStopped = false
  #silentSinceMs = 0

  constructor(pool: SharePool, log: Log) {
    this.pool = pool
    this.log = log
    this.#timer = setInterval(() => void this.#beatOnce(), BEAT_INTERVAL_MS)
  }

  /** From now on nothing is said of the share: the threads that ask it end with the mount. */
  stop(): void {
    this.isStopped = true
    clearInterval(this.#timer)
  }

  async giveBack(newest: GenerationReference): Promise<void> {
    this.stop()
    await this.release(newest)
  }

  /** Whether the share has taken it; false: there is nothing to show any more, and it was only asked. */
  protected abstract beat(beats: number): Promise<boolean>
  protected abstract release(newest: GenerationReference): Promise<void>

  async #beatOnce(): Promise<void> {
    if (this.#beating) return
    this.#beating = true
    const late = setTimeout(() => this.#answered(false, 'it does not answer'), BEAT_INTERVAL_MS)
    try {
      const startedMs = performance.now()
      const isTaken = await this.beat(++this.#beats)
      this.beatSeconds = (performance.now() - startedMs) / 1000
      if (isTaken) this.beatenMs = Date.now()
      this.#answered(true, '')
    } catch (error) {
      this.#answered(false, messageOf(error))
    } finally {
      clearTimeout(late)
      this.#beating = false
    }
  }

  #answered(answers: boolean, why: string): void {
    if (answers === this.shareAnswers || this.isStopped) return
    this.shareAnswers = answers
    if (!answers) {
      this.#silentSinceMs = Date.now()
      this.log.warn(event('share-silent', { why }), 'the share does not answer; what is present is still served')
      return
    }
    const silentSeconds = Math.round((Date.now() - this.#silentSinceMs) / 1000)
    this.log.info(event('share-answers', { silentSeconds }), 'the share answers again')
  }
}

export class LeaseRight extends BeatingRight {
  lease: 'held' | 'lost' = 'held'
  readonly leaseNumber: number
  readonly #held: HeldLease

  constructor(pool: SharePool, log: Log, held: HeldLease) {
    super(pool, log)
    this.#held = held
    this.leaseNumber = held.number
  }

  protected async beat(beats: number): Promise<boolean> {
    if (this.lease === 'lost') {
      await askShare(this.pool)
      return false
    }
    const stillHeld = await this.pool.run('beatLease', { held: this.#held, beats }, { what: 'beat of the lease' })
    if (stillHeld) return true
    if (this.isStopped) return false // it was given back meanwhile
    this.lease = 'lost'
    const fields = event('lease-lost', { lease: this.#held.number })
    this.log.error(fields, 'the lease was taken by somebody else: nothing will be published')
    return false
  }

  protected async release(newest: GenerationReference): Promise<void> {
    await this.pool.run('releaseLease', { held: this.#held, generation: newest }, { what: 'giving the lease back' })
  }
}

export class PinRight extends BeatingRight {
  readonly lease = 'none'
  readonly leaseNumber = null
  readonly #pin: Pin

  private constructor(pool: SharePool, log: Log, pin: Pin) {
    super(pool, log)
    this.#pin = pin
  }

  static async create(pool: SharePool, log: Log, holder: LeaseHolder, generation: number): Promise<Right> {
    try {
      return new PinRight(pool, log, await pool.run('createPin', { holder, generation }, { what: 'making a pin' }))
    } catch (error) {
      // whoever may not write here (a read-only export) can neither pin nor be asked to
      const fields = event('share-trouble', { why: messageOf(error) })
      log.warn(fields, 'this mount could not be noted on the share: a prune would not see it')
      return new NoRight(pool, log)
    }
  }

  protected async beat(beats: number): Promise<boolean> {
    await this.pool.run('beatPin', { pin: this.#pin, beats }, { what: 'beat of the pin' })
    return true
  }

  protected async release(): Promise<void> {
    await this.pool.run('removePin', { pin: this.#pin }, { what: 'removing the pin' })
  }
}

/** Shows nothing, and asks all the same: whether the share answers decides what reads of absent blocks get. */
class NoRight extends BeatingRight {
  readonly lease = 'none'
  readonly leaseNumber = null

  constructor(pool: SharePool, log: Log) {
    super(pool, log)
    this.beatenMs = undefined
  }

  protected async beat(): Promise<boolean> {
    await askShare(this.pool)
    return false
  }

  protected release(): Promise<void> {
    return Promise.resolve()
  }
}

/** A beat of whoever has nothing to write: rejects, or waits, as long as the share does not answer. */
async function askShare(pool: SharePool): Promise<void> {
  try {
    await pool.run('openVm', {}, { what: 'whether the share answers' })
  } catch (error) {
    if (!(error instanceof IntegrityError)) throw error // a damaged vm.json is an answer
  }
}
