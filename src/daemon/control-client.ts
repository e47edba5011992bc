/** Talks to a daemon through its control socket. */
import net from 'node:net'
import { FailedError, NotPublishedError } from '../base/errors.js'
import { receiveLines, sendLine } from './lines.js'
import {
  type Cells,
  type CellsWanted,
  type Checkpointed,
  type ControlReply,
  type ControlRequest,
  type Outcome,
  type Progress,
  replySchema,
  type Status,
  type UnmountOptions,
  type View,
  type Warmed
} from './messages.js'
import { fromMessageError } from './plain-error.js'
import { findSockets } from './socket-path.js'

/** The daemon is there and says nothing: it is stopped, or busy beyond measure. */
export class SilentError extends FailedError {}

/** The daemon went away in the middle of the conversation. */
export class GoneError extends FailedError {}

/** a daemon that serves its main loop answers within this */
const STATUS_TIMEOUT_MS = 10_000
const LISTING_TIMEOUT_MS = 2000

/** Status of the daemon behind one socket; undefined when nobody listens there any more. */
export async function askStatus(socketPath: string, limitMs = STATUS_TIMEOUT_MS): Promise<Status | undefined> {
  const reply = await askOnce(socketPath, { command: 'status' }, limitMs)
  return reply?.kind === 'status' ? reply.status : undefined
}

/** Metrics of the daemon behind one socket, as text; undefined when nobody listens there any more. */
export async function askMetrics(socketPath: string, limitMs = LISTING_TIMEOUT_MS): Promise<string | undefined> {
  const reply = await askOnce(socketPath, { command: 'metrics' }, limitMs)
  return reply?.kind === 'metrics' ? reply.text : undefined
}

/** What there is to see of the mount behind one socket; undefined when nobody listens there any more. */
export async function askView(
  socketPath: string,
  since: number,
  limitMs = LISTING_TIMEOUT_MS
): Promise<View | undefined> {
  const reply = await askOnce(socketPath, { command: 'view', since }, limitMs)
  return reply?.kind === 'view' ? reply.view : undefined
}

/** Where the blocks of one of its files are; undefined when nobody listens there any more. Rejects when there is no such file. */
export async function askCells(
  socketPath: string,
  wanted: CellsWanted,
  limitMs = LISTING_TIMEOUT_MS
): Promise<Cells | undefined> {
  const reply = await askOnce(socketPath, { command: 'cells', ...wanted }, limitMs)
  return reply?.kind === 'cells' ? reply.cells : undefined
}

/** One question, one answer. Rejects with SilentError after `limitMs`, and with the daemon's own error. */
async function askOnce(
  socketPath: string,
  request: ControlRequest,
  limitMs: number
): Promise<ControlReply | undefined> {
  const socket = await connect(socketPath)
  if (socket === undefined) return undefined
  let answer: ControlReply | undefined
  socket.setTimeout(limitMs, () => socket.destroy(new SilentError('the daemon does not answer')))
  try {
    await converse(socket, request, (reply) => {
      if (reply.kind === 'failed') throw fromMessageError(reply.error)
      answer = reply
    })
  } catch (error) {
    if (error instanceof GoneError) return undefined
    throw error
  }
  return answer
}

/** Status of every mount of this user that says something soon. */
export async function askAllStatus(): Promise<Status[]> {
  const answers = findSockets(undefined).map((socketPath) =>
    askStatus(socketPath, LISTING_TIMEOUT_MS).catch(() => undefined)
  )
  return (await Promise.all(answers)).filter((status) => status !== undefined)
}

/** A connection to the daemon that serves the mountpoint; undefined when there is none. */
export async function connectTo(mountpoint: string): Promise<net.Socket | undefined> {
  for (const socketPath of findSockets(mountpoint)) {
    const socket = await connect(socketPath)
    if (socket !== undefined) return socket
  }
  return undefined
}

/** Unmounts and waits until everything is published. Rejects with the daemon's error. */
export async function askUnmount(
  socket: net.Socket,
  options: UnmountOptions,
  watch: { notice(text: string): void; progress(progress: Progress): void }
): Promise<Outcome> {
  let outcome: Outcome | undefined
  await converse(socket, { command: 'unmount', ...options }, (reply) => {
    switch (reply.kind) {
      case 'notice':
        watch.notice(reply.text)
        break
      case 'progress':
        watch.progress(reply.progress)
        break
      case 'ended':
        outcome = reply.outcome
        break
      case 'failed':
        throw fromMessageError(reply.error)
      case 'status':
      case 'metrics':
      case 'view':
      case 'cells':
      case 'warmed':
      case 'checkpointed':
        break
    }
  })
  if (outcome === undefined) {
    throw new GoneError('the daemon ended without an answer', {
      hint: 'isrfs log shows whether it had published; if not, what was changed is safe on this client: the next isrfs mount or isrfs recover finds it'
    })
  }
  return outcome
}

/** Publishes a generation of a mount that goes on. Rejects with the daemon's error. */
export async function askCheckpoint(
  socket: net.Socket,
  watch: { notice(text: string): void; progress(progress: Progress): void }
): Promise<Checkpointed> {
  let checkpointed: Checkpointed | undefined
  await converse(socket, { command: 'checkpoint' }, (reply) => {
    if (reply.kind === 'notice') watch.notice(reply.text)
    if (reply.kind === 'progress') watch.progress(reply.progress)
    if (reply.kind === 'checkpointed') checkpointed = reply.checkpointed
    if (reply.kind === 'failed') throw fromMessageError(reply.error)
  })
  if (checkpointed !== undefined) return checkpointed
  throw new NotPublishedError('the daemon ended before the checkpoint was done', {
    hint: 'what was changed is safe on this client; isrfs log shows whether the generation was published'
  })
}

/** Fills the cache of a mount. Rejects with the daemon's error; closing the socket gives it up. */
export async function askWarm(socket: net.Socket, onProgress: (progress: Progress) => void): Promise<Warmed> {
  let warmed: Warmed | undefined
  await converse(socket, { command: 'warm' }, (reply) => {
    if (reply.kind === 'progress') onProgress(reply.progress)
    if (reply.kind === 'warmed') warmed = reply.warmed
    if (reply.kind === 'failed') throw fromMessageError(reply.error)
  })
  if (warmed !== undefined) return warmed
  throw new FailedError('the daemon ended before the cache was filled', {
    hint: 'what was fetched stays in the cache: mount it again and go on'
  })
}

/** Sends the request and hands over replies until the daemon closes. */
function converse(socket: net.Socket, request: ControlRequest, onReply: (reply: ControlReply) => void): Promise<void> {
  return new Promise((resolve, reject) => {
    socket.on('error', (error) =>
      reject(
        error instanceof SilentError
          ? error
          : new GoneError(`no answer from the daemon: ${error.message}`, { cause: error })
      )
    )
    socket.on('close', () => resolve())
    receiveLines(socket, (value) => {
      try {
        onReply(parseReply(value))
      } catch (error) {
        reject(error instanceof Error ? error : new FailedError(String(error)))
        socket.destroy()
      }
    })
    sendLine(socket, request)
  })
}

/** An upgrade leaves daemons of the version before running. */
function parseReply(value: unknown): ControlReply {
  const reply = replySchema.safeParse(value)
  if (reply.success) return reply.data
  throw new FailedError('the daemon is of another version of isrfs: its answer is not understood', {
    hint: 'isrfs unmount suspends it all the same; what is mounted after that is of this version',
    cause: reply.error
  })
}

function connect(socketPath: string): Promise<net.Socket | undefined> {
  return new Promise((resolve) => {
    const socket = net.connect(socketPath)
    const fail = (): void => resolve(undefined)
    socket.once('error', fail)
    socket.once('connect', () => {
      socket.off('error', fail)
      resolve(socket)
    })
  })
}
