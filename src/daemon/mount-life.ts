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
import { commitSession } from '../commit/commit.js'
import type { Transport } from '../fuse/port.js'
import { hostName } from './host.js'
import { flushKernel, unmountKernel } from './kernel-unmount.js'
import type { Log } from './log.js'
import type { Outcome, Progress, Status } from './messages.js'
import type { OpenedVm } from './opened-vm.js'
import type { MountRequest } from './request.js'
import { withinMs } from './within.js'

/** how long DESTROY may take after a successful unmount */
const DESTROY_MS_MAX = 10_000
const RELEASE_MS_MAX = 15_000

export type State = Status['state']

interface Watcher {
  notice(text: string): void
  progress(progress: Progress): void
}

export class MountLife {
  state: State = 'starting'
  progress: Progress = { phase: '', doneBytes: 0, totalBytes: 0, sentBytes: 0 }
  /** Settles when the mount has ended, what it changed is published (or could not be) and everything is let go. */
  readonly finished: Promise<Outcome>
  readonly #request: MountRequest
  readonly #vm: OpenedVm
  readonly #transport: Transport
  readonly #log: Log
  readonly #events = new EventEmitter()
  readonly #letGo: () => Promise<void>
  readonly #anyWriteFailed: () => boolean
  #resolveMounted: () => void = () => undefined
  #verify = false
  #unmounting: Promise<void> | undefined

  /**
   * `letGo` releases what the next mount needs; it runs before anybody is told of the end. `anyWriteFailed` tells
   * whether a WRITE of the kernel was ever answered with an error.
   */
  constructor(
    request: MountRequest,
    vm: OpenedVm,
    transport: Transport,
    log: Log,
    letGo: () => Promise<void>,
    anyWriteFailed: () => boolean
  ) {
    this.#anyWriteFailed = anyWriteFailed
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

  /** Flushes, unmounts and waits for the end. BusyError or FailedError leave the mount as it was. */
  async unmount({ verify }: { readonly verify: boolean }): Promise<Outcome> {
    this.#verify ||= verify
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
      await flushKernel(mountpoint, this.#anyWriteFailed)
      const result = await unmountKernel(mountpoint)
      this.#log.info({ result }, 'taken out of the kernel')
      if (await withinMs(this.#transport.ended, DESTROY_MS_MAX)) return
      throw new BusyError(
        `${mountpoint} is unmounted here, but still in use in another mount namespace or by an open file`,
        {
          hint: 'the daemon goes on serving it and commits when the last user has gone (a container? isrfs status lists this mount)'
        }
      )
    } catch (error) {
      this.#log.warn({ why: messageOf(error) }, 'not unmounted')
      this.#moveTo('mounted')
      throw error
    }
  }

  async #finish(): Promise<Outcome> {
    this.state = 'committing'
    this.#log.info('the kernel has ended the mount')
    try {
      await this.#transport.drained()
      await this.#transport.close()
      const outcome = await this.#settle()
      this.#log.info({ outcome }, 'ended')
      return outcome
    } catch (error) {
      this.#log.error({ why: messageOf(error) }, 'ended without publishing; the session is kept')
      throw error
    } finally {
      this.state = 'ended'
      await this.#letGo()
    }
  }

  async #settle(): Promise<Outcome> {
    const { session, base, held } = this.#vm
    if (held === undefined) {
      session.destroy()
      await this.#giveBack(base)
      return { kind: 'nothing-to-publish', why: this.#request.readOnly ? 'read-only' : 'discard' }
    }
    if (!session.namespace.changed) return this.#unchanged()
    try {
      const result = await commitSession({
        vmPath: this.#request.vmPath,
        session,
        base,
        held,
        cache: this.#vm.cache,
        client: { id: this.#vm.client.id, host: hostName() },
        verify: this.#verify,
        onProgress: (progress) => this.#report(progress)
      })
      if (result.published === undefined) return await this.#unchanged()
      session.destroy()
      await this.#giveBack(result.published)
      return {
        kind: 'published',
        generation: result.published.number,
        changedBytes: result.changedBytes,
        sentBytes: result.sentBytes,
        verified: this.#verify
      }
    } catch (error) {
      this.#vm.right.stop() // the lease stays: nobody else may publish before this session
      await session
        .close()
        .catch((failure: unknown) => this.#log.error({ why: messageOf(failure) }, 'closing the session'))
      throw asNotPublished(error, this.#request.vmPath)
    }
  }

  async #unchanged(): Promise<Outcome> {
    const { session, base } = this.#vm
    session.destroy()
    await this.#giveBack(base)
    return { kind: 'unchanged', generation: base.number }
  }

  async #giveBack(newest: { readonly number: number; readonly digest: string }): Promise<void> {
    const { right } = this.#vm
    const given = right.giveBack({ number: newest.number, digest: newest.digest })
    try {
      if (await withinMs(given, RELEASE_MS_MAX)) return
      this.#notice(
        'the share does not answer: the lease could not be given back; the next mount by this client takes it back'
      )
    } catch (error) {
      this.#notice(`the lease could not be given back: ${messageOf(error)}`)
    }
    right.stop()
  }

  #report(progress: Progress): void {
    this.progress = progress
    this.#events.emit('progress', progress)
  }

  #notice(text: string): void {
    this.#log.warn(text)
    this.#events.emit('notice', text)
  }

  /** The kernel may have ended the mount meanwhile; then the end has begun and stays. */
  #moveTo(state: 'mounted' | 'unmounting'): void {
    if (this.state === 'mounted' || this.state === 'unmounting') this.state = state
  }
}

/** Whatever stopped a commit: the changes are safe, and this is how to go on. */
export function asNotPublished(error: unknown, vmPath: string): NotPublishedError {
  const message = messageOf(error)
  const hint =
    error instanceof NotPublishedError && error.hint !== undefined ? `${error.hint}; then` : 'when the cause is gone:'
  return new NotPublishedError(message, {
    cause: error,
    hint: `the changes are safe on this client; ${hint} isrfs recover ${vmPath} (or mount it again)`
  })
}
