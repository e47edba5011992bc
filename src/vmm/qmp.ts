/**
 * The QEMU Machine Protocol (QEMU, docs/interop/qmp-spec): JSON lines over a socket, one answer for each command, events
 * in between. One client at a time.
 */
import net from 'node:net'
import { createInterface } from 'node:readline'
import { errnoOf, FailedError, messageOf } from '../base/errors.js'

const CONNECT_TRIES = 200
const CONNECT_PAUSE_MS = 50

interface Message {
  readonly return?: unknown
  readonly error?: { readonly class: string; readonly desc: string }
  readonly event?: string
  readonly QMP?: unknown
}

export class Qmp {
  readonly #socket: net.Socket
  readonly #answers: Message[] = []
  #wake: (() => void) | undefined
  #isClosed = false

  private constructor(socket: net.Socket) {
    this.#socket = socket
    createInterface({ input: socket }).on('line', (line) => this.#take(line))
    socket.on('error', () => undefined) // 'close' follows
    socket.on('close', () => {
      this.#isClosed = true
      this.#wake?.()
    })
  }

  /** Waits for a QEMU that is just starting; undefined when nobody listens within ten seconds, or `isGone` says so. */
  static async connect(socketPath: string, isGone: () => boolean = () => false): Promise<Qmp | undefined> {
    for (let attempt = 0; attempt < CONNECT_TRIES && !isGone(); attempt += 1) {
      const socket = await tryConnect(socketPath)
      if (socket !== undefined) {
        const qmp = new Qmp(socket)
        await qmp.#next()
        await qmp.run('qmp_capabilities')
        return qmp
      }
      await pause(CONNECT_PAUSE_MS)
    }
    return undefined
  }

  /** Throws FailedError with QEMU's own words. */
  async run(command: string, args: object = {}): Promise<unknown> {
    this.#socket.write(`${JSON.stringify({ execute: command, arguments: args })}\n`)
    const answer = await this.#next()
    if (answer.error !== undefined) throw new FailedError(`QEMU refuses ${command}: ${answer.error.desc}`)
    return answer.return
  }

  /** For a command after which QEMU ends: it may do so before it answers. */
  async runLast(command: string): Promise<void> {
    try {
      await this.run(command)
    } catch (error) {
      if (!this.#isClosed) throw error
    }
  }

  async status(): Promise<string> {
    return textIn(await this.run('query-status'), 'status')
  }

  close(): void {
    this.#socket.destroy()
  }

  #take(line: string): void {
    const message = parse(line)
    if (message === undefined || message.event !== undefined) return
    this.#answers.push(message)
    this.#wake?.()
  }

  async #next(): Promise<Message> {
    for (;;) {
      const answer = this.#answers.shift()
      if (answer !== undefined) return answer
      if (this.#isClosed) throw new FailedError('QEMU has ended')
      await new Promise<void>((resolve) => (this.#wake = resolve))
    }
  }
}

/** Whether somebody listens there now. */
export async function isListening(socketPath: string): Promise<boolean> {
  const socket = await tryConnect(socketPath)
  socket?.destroy()
  return socket !== undefined
}

/** A text field of an answer; empty when it is not there. */
export function textIn(answer: unknown, field: string): string {
  if (typeof answer !== 'object' || answer === null) return ''
  const value = (answer as Readonly<Record<string, unknown>>)[field]
  return typeof value === 'string' ? value : ''
}

export function pause(milliseconds: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, milliseconds))
}

function parse(line: string): Message | undefined {
  try {
    const value: unknown = JSON.parse(line)
    return typeof value === 'object' && value !== null ? value : undefined
  } catch {
    return undefined
  }
}

async function tryConnect(socketPath: string): Promise<net.Socket | undefined> {
  return new Promise((resolve, reject) => {
    const socket = net.connect(socketPath)
    socket.once('connect', () => {
      socket.removeAllListeners('error')
      resolve(socket)
    })
    socket.once('error', (error) => {
      if (['ENOENT', 'ECONNREFUSED'].includes(errnoOf(error) ?? '')) resolve(undefined)
      else reject(new FailedError(`cannot reach QEMU at ${socketPath}: ${messageOf(error)}`, { cause: error }))
    })
  })
}
