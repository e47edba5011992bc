/**
 * The life of one mount.
 *
 *     starting --mount()--> mounted --unmount()--> unmounting --DESTROY--> committing --> ended
 *                             ^  |                     |                      ^
 *                             |  +--- unmounted from outside (DESTROY) -------+
 *                             +------ busy, or flushing failed
 *
 * Invariants:
 * 1. A commit begins only after the kernel has ended the mount and every running operation is done.
 * 2. The session is removed only when its generation is published, or when it differs from its base in nothing.
 * 3. Nothing here touches the mountpoint.
 */
import { EventEmitter } from 'node:events'
import { BusyError, messageOf, NotPublishedError } from '../base/errors.js'
import { PAGE_BYTES } from '../base/units.js'
import type { Checkpointer } from '../commit/checkpointer.js'
import type { Profile } from '../format/profile.js'
import type { Transport } from '../fuse/port.js'
import { asNoCheckpoint, notePublishedByMount } from './checkpoint.js'
import { flushKernel, unmountKernel } from './kernel-unmount.js'
import { event } from './log-events.js'
import type { Log } from './log.js'
import type { Checkpointed, Outcome, Progress, Status, UnmountOptions } from './messages.js'
import type { OpenedVm } from './opened-vm.js'
import { MOUNT_TYPE, mountAt } from './mount-table.js'
import { mayPublish, type MountRequest } from './request.js'
import { settleMount } from './settle.js'
import { withinMs } from './within.js'

/** how long DESTROY may take after a successful unmount */
const DESTROY_MS_MAX = 10_000
const PRIVATE_DRAIN_MS_MAX = 5000
const REMINDER_MS = 10_000

const IDLE: Progress = { phase: '', doneBytes: 0, totalBytes: 0, sentBytes: 0 }

export type State = Status['state']

interface Watcher {
  notice(text: string): void
  progress(progress: Progress): void
}

/** The files behind the mount, as its end sees them. */
export interface MountedFiles {
  /** whether a WRITE of the kernel was ever answered with an error */
  anyWriteFailed(): boolean
  /** no request comes any more: from now on the session is only read. Resolves when that is so. */
  stop(): void | Promise<void>
  /** in which order this mount has read its blocks, for the next one; undefined when it has read nothing */
  profile(): Profile | undefined
}

export class MountLife {
  state: State = 'starting'
  progress: Progress = IDLE
  /** Settles when the mount has ended, what it changed is published (or could not be) and everything is let go. */
  readonly finished: Promise<Outcome>
  readonly #request: MountRequest
  readonly #vm: OpenedVm
  readonly #transport: Transport
  readonly #log: Log
  readonly #events = new EventEmitter()
  readonly #letGo: () => Promise<void>
  readonly #files: MountedFiles
  #resolveMounted: () => void = () => undefined
  #verify = false
  #keepLocks = false
  #unmounting: Promise<void> | undefined

  /**
   * `letGo` releases what the next mount needs; it runs before anybody is told of the end.
   */
  constructor(
    request: MountRequest,
    vm: OpenedVm,
    transport: Transport,
    log: Log,
    letGo: () => Promise<void>,
    files: MountedFiles
  ) {
    this.#files = files
    this.#request = request
    this.#vm = vm
    this.#transport = transport
    this.#log = log
    this.#letGo = letGo
    this.#events.setMaxListeners(0)
    const mounted = new Promise<void>((resolve) => (this.#resolveMounted = resolve))
    this.finished = Promise.all([mounted, transport.ended]).then(() => this.#finish())
    this.finished.catch(() => undefined) // whoever asked for the end hears of it, and so does the daemon's run
  }

  /** the kernel has ended the mount: what follows cannot be stopped any more */
  isEnding(): boolean {
    return this.state === 'committing' || this.state === 'ended'
  }

  async mount(): Promise<void> {
    await this.#transport.mount()
    this.state = 'mounted'
    this.#resolveMounted()
  }

  watch(watcher: Watcher): () => void {
    const notice = (text: string): void => watcher.notice(text)
    const progress = (value: Progress): void => watcher.progress(value)
    this.#events.on('notice', notice).on('progress', progress)
    return () => this.#events.off('notice', notice).off('progress', progress)
  }

  /** Publishes a generation of what the mount shows. NotPublishedError leaves everything as it was. */
  async checkpoint(checkpointer: Checkpointer): Promise<Checkpointed> {
    if (this.state !== 'mounted') {
      throw new NotPublishedError(`${this.#request.mountpoint} is being unmounted`, {
        hint: 'that publishes everything'
      })
    }
    const reminder = setInterval(() => this.#tellWhatWaits(), REMINDER_MS)
    try {
      const { published, head, changedBytes, sentBytes, holdMs } = await checkpointer.run({
        flush: () => flushKernel(this.#request.mountpoint, () => this.#files.anyWriteFailed()),
        onProgress: (progress) => this.#report(progress)
      })
      if (published === undefined) return { kind: 'unchanged', generation: head.number, holdMs }
      const fields = { generation: published.number, changedBytes, sentBytes, holdMs }
      this.#log.info(event('checkpoint', fields), 'checkpoint published')
      await notePublishedByMount(this.#request, this.#vm, published, this.#log)
      return { kind: 'published', generation: published.number, changedBytes, sentBytes, holdMs }
    } catch (error) {
      this.#log.warn(event('no-checkpoint', { why: messageOf(error) }), 'no checkpoint')
      throw asNoCheckpoint(error)
    } finally {
      clearInterval(reminder)
      if (!this.isEnding()) this.progress = IDLE
    }
  }

  /** Flushes, unmounts and waits for the end. BusyError or FailedError leave the mount as it was. */
  async unmount({ verify, keepLocks = false }: UnmountOptions): Promise<Outcome> {
    this.#verify ||= verify
    this.#keepLocks ||= keepLocks
    if (!this.isEnding()) {
      this.#unmounting ??= this.#leaveKernel().finally(() => (this.#unmounting = undefined))
      await this.#unmounting
    }
    return this.finished
  }

  async #leaveKernel(): Promise<void> {
    const { mountpoint } = this.#request
    this.#moveTo('unmounting')
    try {
      // Somebody may have detached it already, and something else may be there now.
      if (mountAt(mountpoint)?.fileSystemType === MOUNT_TYPE) {
        await flushKernel(mountpoint, () => this.#files.anyWriteFailed())
        const result = await unmountKernel(mountpoint)
        this.#log.info(event('unmounted', { result }), 'taken out of the kernel')
      }
      if (await withinMs(this.#transport.ended, DESTROY_MS_MAX)) return
      throw this.#whyNotEnded()
    } catch (error) {
      this.#log.warn(event('not-unmounted', { why: messageOf(error) }), 'not unmounted')
      this.#moveTo('mounted')
      throw error
    }
  }

  #whyNotEnded(): BusyError {
    const { mountpoint } = this.#request
    const waiting = this.#vm.pool.waiting().find(({ sinceMs }) => sinceMs >= DESTROY_MS_MAX)
    if (waiting !== undefined) {
      return new BusyError(`${mountpoint} is unmounted, but a request still waits for the share: ${waiting.what}`, {
        hint: 'the daemon goes on and ends by itself when the share answers (isrfs status lists this mount)'
      })
    }
    return new BusyError(
      `${mountpoint} is unmounted here, but still in use elsewhere: an open file, or another mount namespace`,
      {
        hint: 'the daemon goes on serving it and ends when the last user has gone (a container? isrfs status lists it)'
      }
    )
  }

  async #finish(): Promise<Outcome> {
    this.state = 'committing'
    const endedMs = Date.now()
    const dirtyBytes = this.#vm.session.namespace.dirtyPages * PAGE_BYTES
    this.#log.info(event('committing', { dirtyBytes }), 'the kernel has ended the mount')
    const reminder = setInterval(() => this.#tellWhatWaits(), REMINDER_MS)
    try {
      await this.#drain()
      await this.#files.stop()
      await this.#transport.close()
      const outcome = await settleMount(this.#request, this.#vm, {
        verify: this.#verify,
        keepLocks: this.#keepLocks,
        log: this.#log,
        onProgress: (progress) => this.#report(progress),
        notice: (text) => this.#notice(text),
        profile: () => this.#files.profile()
      })
      this.#log.info(event('ended', { outcome, seconds: (Date.now() - endedMs) / 1000 }), 'ended')
      return outcome
    } catch (error) {
      const why = messageOf(error)
      this.#log.error(event('not-published', { why }), 'ended without publishing; the session is kept')
      throw error
    } finally {
      clearInterval(reminder)
      this.state = 'ended'
      // What became of the changes is decided: this must not be told instead.
      await this.#letGo().catch((error: unknown) => this.#notice(`not everything was let go of: ${messageOf(error)}`))
    }
  }

  /** Invariant 1. What reads of a mount that publishes nothing wait for does not matter any more. */
  async #drain(): Promise<void> {
    const drained = this.#transport.drained()
    if (mayPublish(this.#request)) await drained
    else await withinMs(drained, PRIVATE_DRAIN_MS_MAX)
  }

  #tellWhatWaits(): void {
    if (this.#vm.right.shareAnswers) return
    const [oldest] = this.#vm.pool.waiting()
    const what = oldest === undefined ? '' : ` (${oldest.what}, ${Math.round(oldest.sinceMs / 1000)} s)`
    this.#notice(`the share does not answer${what}; the daemon goes on waiting, also without this command`)
  }

  #report(progress: Progress): void {
    this.progress = progress
    this.#events.emit('progress', progress)
  }

  #notice(text: string): void {
    this.#log.warn(event('notice'), text)
    this.#events.emit('notice', text)
  }

  /** The kernel may have ended the mount meanwhile; then the end has begun and stays. */
  #moveTo(state: 'mounted' | 'unmounting'): void {
    if (this.state === 'mounted' || this.state === 'unmounting') this.state = state
  }
}
