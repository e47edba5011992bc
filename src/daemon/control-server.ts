/**
 * The daemon's control socket. Whoever can open it is this user (its directory is 0700). A client that goes away
 * changes nothing: what it asked for goes on, except for warming the cache, which nobody else waits for.
 */
import fs from 'node:fs'
import net from 'node:net'
import { setImmediate } from 'node:timers/promises'
import { FailedError, UsageError } from '../base/errors.js'
import { receiveLines, sendLine } from './lines.js'
import {
  type Cells,
  type CellsWanted,
  type Checkpointed,
  type ControlReply,
  type Outcome,
  type Progress,
  requestSchema,
  type Status,
  type UnmountOptions,
  type View,
  type Warmed
} from './messages.js'
import { toMessageError } from './plain-error.js'
import { withinMs } from './within.js'

const WARM_PROGRESS_INTERVAL_MS = 200
/** what a client gets, when the daemon ends, to say what it wants, and to read its answer */
const GRACE_MS = 2000

/** What the socket gives access to. */
export interface Controlled {
  status(): Status
  /** `since`: number of the first sample that is wanted */
  view(since: number): View
  /** Throws FailedError when there is no such file. */
  cells(wanted: CellsWanted): Cells
  /** in the text format of Prometheus */
  metrics(): Promise<string>
  /** Fills the cache; gives up between two steps when `isStopped` says so. */
  warm(onProgress: (progress: Progress) => void, isStopped: () => boolean): Promise<Warmed>
  /** Resolves when a generation of what the mount shows is on the share; the mount goes on. */
  checkpoint(): Promise<Checkpointed>
  /** Resolves when the mount has ended and what it changed is published. */
  unmount(options: UnmountOptions): Promise<Outcome>
  /** Registers a listener of what goes on until the returned function is called. */
  watch(listener: { notice(text: string): void; progress(progress: Progress): void }): () => void
}

export class ControlServer {
  readonly #server: net.Server
  /** with when they have asked, or gone */
  readonly #clients = new Map<net.Socket, Promise<unknown>>()
  readonly #answering = new Set<Promise<void>>()

  private constructor(server: net.Server) {
    this.#server = server
  }

  /** Takes over the name of a dead daemon; fails when a living one answers there. */
  static async listen(socketPath: string, controlled: Controlled): Promise<ControlServer> {
    if (await answers(socketPath))
      throw new FailedError(`another daemon serves this mountpoint already (${socketPath})`)
    fs.rmSync(socketPath, { force: true })
    const server = net.createServer()
    const control = new ControlServer(server)
    server.on('connection', (socket) => control.#serve(socket, controlled))
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject)
      server.listen(socketPath, resolve)
    })
    fs.chmodSync(socketPath, 0o600)
    return control
  }

  /** Frees the name: the next daemon for this mountpoint may listen. Conversations that are open go on. */
  async stopListening(): Promise<void> {
    // whoever waits in the kernel's queue would hear nothing: a whole turn of the event loop takes them in
    await setImmediate()
    await setImmediate()
    this.#server.close() // removes the socket file at once
  }

  /** Answers whoever has come, also who has not asked yet, lets the answers out, then closes. */
  async close(): Promise<void> {
    if (this.#server.listening) await this.stopListening()
    await withinMs(Promise.all(this.#clients.values()), GRACE_MS)
    await Promise.all(this.#answering)
    await Promise.all([...this.#clients.keys()].map((socket) => endOf(socket)))
  }

  #serve(socket: net.Socket, controlled: Controlled): void {
    let asked: () => void = () => undefined
    this.#clients.set(socket, new Promise<void>((resolve) => (asked = resolve)))
    socket.on('error', () => undefined) // a client that went away
    socket.on('close', () => {
      this.#clients.delete(socket)
      asked()
    })
    receiveLines(socket, (value) => {
      asked()
      const reply = (message: ControlReply): void => sendLine(socket, message)
      const request = requestSchema.safeParse(value)
      if (!request.success) {
        reply({ kind: 'failed', error: toMessageError(new UsageError('the daemon does not know this request')) })
        socket.end()
        return
      }
      switch (request.data.command) {
        case 'status':
          reply({ kind: 'status', status: controlled.status() })
          socket.end()
          return
        case 'metrics':
          void answer(socket, reply, async () => ({ kind: 'metrics', text: await controlled.metrics() }))
          return
        case 'view': {
          const { since } = request.data
          void answer(socket, reply, () => ({ kind: 'view', view: controlled.view(since) }))
          return
        }
        case 'cells': {
          const wanted = request.data
          void answer(socket, reply, () => ({ kind: 'cells', cells: controlled.cells(wanted) }))
          return
        }
        case 'warm':
          void warm(controlled, socket, reply)
          return
        case 'checkpoint':
          this.#answer(
            watched(controlled, socket, reply, async () => ({
              kind: 'checkpointed',
              checkpointed: await controlled.checkpoint()
            }))
          )
          return
        case 'unmount': {
          const options = request.data
          this.#answer(
            watched(controlled, socket, reply, async () => ({
              kind: 'ended',
              outcome: await controlled.unmount(options)
            }))
          )
        }
      }
    })
  }

  #answer(answer: Promise<void>): void {
    const answering = answer.finally(() => this.#answering.delete(answering))
    this.#answering.add(answering)
  }
}

/** Long work with its progress; what it comes to, or why it failed, is the last reply. */
async function watched(
  controlled: Controlled,
  socket: net.Socket,
  reply: (message: ControlReply) => void,
  work: () => Promise<ControlReply>
): Promise<void> {
  const stopWatching = controlled.watch({
    notice: (text) => reply({ kind: 'notice', text }),
    progress: (progress) => reply({ kind: 'progress', progress })
  })
  try {
    reply(await work())
  } catch (error) {
    reply({ kind: 'failed', error: toMessageError(error) })
  } finally {
    stopWatching()
    socket.end()
  }
}

/** One reply, or why there is none. */
async function answer(
  socket: net.Socket,
  reply: (message: ControlReply) => void,
  work: () => ControlReply | Promise<ControlReply>
): Promise<void> {
  try {
    reply(await work())
  } catch (error) {
    reply({ kind: 'failed', error: toMessageError(error) })
  } finally {
    socket.end()
  }
}

async function warm(controlled: Controlled, socket: net.Socket, reply: (message: ControlReply) => void): Promise<void> {
  let toldMs = 0
  const onProgress = (progress: Progress): void => {
    if (Date.now() - toldMs < WARM_PROGRESS_INTERVAL_MS) return
    toldMs = Date.now()
    reply({ kind: 'progress', progress })
  }
  try {
    reply({ kind: 'warmed', warmed: await controlled.warm(onProgress, () => socket.destroyed) })
  } catch (error) {
    reply({ kind: 'failed', error: toMessageError(error) })
  } finally {
    socket.end()
  }
}

function answers(socketPath: string): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = net.connect(socketPath)
    socket.once('connect', () => {
      socket.destroy()
      resolve(true)
    })
    socket.once('error', () => resolve(false))
  })
}

/** Waits until the last answer was sent, but not for a client that does not read. */
function endOf(socket: net.Socket): Promise<void> {
  return new Promise((resolve) => {
    if (socket.destroyed) {
      resolve()
      return
    }
    const timer = setTimeout(() => socket.destroy(), GRACE_MS)
    socket.once('close', () => {
      clearTimeout(timer)
      resolve()
    })
    socket.end()
    socket.resume()
  })
}
