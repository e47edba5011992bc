/**
 * The transport that speaks to the kernel itself: reader threads wait in read(2) on the connection, the owner (the thread
 * that made the transport) answers. native-notes/fuse-direct.md tells why and how.
 *
 *     new --mount(): connection, readers, INIT answered--> mounted --readers hear ENODEV--> ended --close()--> closed
 *                                                             \--------- close(), giving up ----------------/
 *
 * Invariants:
 * 1. Nothing here touches the mountpoint, and nothing unmounts it while it may be in use.
 * 2. The descriptor is closed only when no reader uses it; closing it aborts whatever is left of the mount.
 */
import assert from 'node:assert'
import path from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { FailedError } from '../../base/errors.js'
import { tuneMount } from '../kernel-tuning.js'
import type { FileSystem, Transport, TransportOptions } from '../port.js'
import { RunningOperations } from '../running-operations.js'
import { createMessage, HEADER_BYTES } from './answers.js'
import { Connection } from './connection.js'
import { openConnection, provokeRequest, takeDown } from './mounting.js'
import { negotiate } from './negotiation.js'
import { INIT_IN, INIT_OUT } from './protocol.js'
import { Readers } from './readers.js'
import type { Request } from './request.js'
import { Requests } from './requests.js'

const EPROTO = 71
const INIT_MS_MAX = 30_000
const TAKE_DOWN_MS_MAX = 5000
const STOP_ATTEMPTS = 20

/** The kernel speaks a protocol that is older than what the direct transport needs; the binding can. */
export class KernelTooOldError extends FailedError {}

export function createDirectTransport(tree: FileSystem, options: TransportOptions): Transport {
  return new DirectTransport(tree, { ...options, mountpoint: path.resolve(options.mountpoint) })
}

class DirectTransport implements Transport {
  readonly name = 'direct'
  readonly ended: Promise<void>
  readonly #tree: FileSystem
  readonly #options: TransportOptions
  readonly #running: RunningOperations
  #connection: Connection | undefined
  #readers: Readers | undefined
  #resolveEnded: () => void = () => undefined
  #isClosed = false

  constructor(tree: FileSystem, options: TransportOptions) {
    assert(new Uint8Array(new Uint16Array([1]).buffer)[0] === 1, 'the protocol is written for little-endian machines')
    this.ended = new Promise((resolve) => (this.#resolveEnded = resolve))
    this.#tree = tree
    this.#options = options
    this.#running = new RunningOperations(options.onError, options.times)
  }

  async mount(): Promise<void> {
    const { mountpoint } = this.#options
    const connection = new Connection(await openConnection(this.#options))
    this.#connection = connection
    try {
      await this.#begin(connection)
    } catch (error) {
      this.#isClosed = true
      await takeDown(mountpoint)
      // Somebody may be in there: then the readers go on waiting, and the process has to be killed.
      await Promise.race([this.#readers?.ended, delay(TAKE_DOWN_MS_MAX, undefined, { ref: false })])
      if (!this.threadsWait) connection.close()
      throw error
    }
    tuneMount(mountpoint)
  }

  get threadsWait(): boolean {
    return this.#readers?.haveEnded === false
  }

  drained(): Promise<void> {
    return this.#running.drained()
  }

  async close(): Promise<void> {
    if (this.#connection === undefined || this.#readers === undefined || this.#isClosed) return
    this.#isClosed = true
    await this.#stop(this.#readers)
    this.#connection.close()
    // The last RELEASEs may never come. A giving up leaves operations that still run their handles.
    if (this.#running.isIdle) this.#tree.releaseAll()
  }

  /** Readers of a mount that goes on wait in the kernel: each ends after one more request. */
  async #stop(readers: Readers): Promise<void> {
    readers.stop()
    for (let attempt = 0; attempt < STOP_ATTEMPTS && !readers.haveEnded; attempt++) {
      await Promise.race([provokeRequest(this.#options.mountpoint), readers.ended])
    }
    if (!readers.haveEnded) throw this.#failed('the mount cannot be given up: no request reaches it')
  }

  /** Starts serving; resolves when the kernel has heard what is agreed. */
  async #begin(connection: Connection): Promise<void> {
    let timer: NodeJS.Timeout | undefined
    const begun = new Promise<void>((resolve, reject) => {
      const requests = new Requests({
        tree: this.#tree,
        running: this.#running,
        answers: connection,
        onError: this.#options.onError,
        onInit: (request) => this.#agree(connection, request, resolve, reject)
      })
      const readers = new Readers(
        connection.descriptor,
        (...request) => requests.serve(...request),
        () => this.#running.isIdle,
        this.#options.shared
      )
      this.#readers = readers
      void readers.ended.then(() => {
        this.#resolveEnded()
        reject(this.#failed('the mount has ended before it began'))
      })
      timer = setTimeout(() => reject(this.#failed('the kernel sends no request')), INIT_MS_MAX)
    })
    await begun.finally(() => clearTimeout(timer))
  }

  #agree(connection: Connection, request: Request, resolve: () => void, reject: (error: Error) => void): void {
    const agreement = negotiate(request.take(INIT_IN), this.#options.writeback)
    const message = createMessage(INIT_OUT.bytes)
    switch (agreement.kind) {
      case 'agreed':
        INIT_OUT.write(message.view, HEADER_BYTES, agreement.out)
        connection.answer(request.unique, message, INIT_OUT.bytes)
        resolve()
        break
      case 'again':
        INIT_OUT.write(message.view, HEADER_BYTES, agreement.out)
        connection.answer(request.unique, message, INIT_OUT.bytes)
        break
      case 'too-old':
        connection.answerErrno(request.unique, EPROTO)
        reject(
          new KernelTooOldError(
            `this kernel speaks FUSE ${agreement.version}; the direct transport needs 7.31 or newer`,
            {
              hint: 'use --transport binding'
            }
          )
        )
    }
  }

  #failed(why: string): FailedError {
    return new FailedError(`${this.#options.mountpoint}: ${why}`)
  }
}
