/** The parts of the daemon that need no mount. */
import fs from 'node:fs'
import net from 'node:net'
import os from 'node:os'
import path from 'node:path'
import anyTest, { type TestFn } from 'ava'
import { BusyError, FailedError } from '../../src/base/errors.js'
import { removals } from '../../src/base/remove-later.js'
import { askStatus, askUnmount } from '../../src/daemon/control-client.js'
import { ControlServer, type Controlled } from '../../src/daemon/control-server.js'
import type { Status } from '../../src/daemon/messages.js'
import { mountAt, parseMountTable } from '../../src/daemon/mount-table.js'
import { fromMessageError, toMessageError } from '../../src/daemon/plain-error.js'
import { createPrivateDirectory } from '../../src/daemon/private-session.js'
import { parseMountRequest } from '../../src/daemon/request.js'
import { createSocketPath, findSockets, socketDirectories, socketName } from '../../src/daemon/socket-path.js'
import { StartGate } from '../../src/daemon/start-gate.js'
import { withinMs } from '../../src/daemon/within.js'

const test = anyTest as TestFn<{ root: string }>

test.beforeEach((t) => {
  t.context.root = fs.mkdtempSync(path.join(os.tmpdir(), 'isrfs-test-daemon-'))
})
test.afterEach.always((t) => {
  fs.rmSync(t.context.root, { recursive: true })
})

test('a socket has a short hashed name in the first directory that is this user’s alone', (t) => {
  const { root } = t.context
  const place = { uid: process.getuid!(), runtimeDirectory: root, temporaryDirectory: root }
  const socketPath = createSocketPath('/mnt/x', place)
  t.is(socketPath, path.join(root, 'isrfs', socketName('/mnt/x')))
  t.regex(path.basename(socketPath), /^[0-9a-f]{16}\.sock$/)
  fs.writeFileSync(socketPath, '')
  t.deepEqual(findSockets('/mnt/x', place), [socketPath])
  t.true(findSockets(undefined, place).includes(socketPath))
})

test('a directory that others may enter is not used, and one that is too long neither', (t) => {
  const { root } = t.context
  fs.mkdirSync(path.join(root, 'isrfs'), { mode: 0o755 })
  const place = { uid: 4711, runtimeDirectory: root, temporaryDirectory: path.join(root, 'nowhere') }
  t.throws(() => createSocketPath('/mnt/x', place), { message: /no directory for the control socket/ })
  const long = { ...place, runtimeDirectory: `/${'x'.repeat(120)}` }
  t.false(socketDirectories(long).some((directory) => directory.includes('xxx')))
})

test('the mount table is read with blanks in its paths, the topmost mount counts', (t) => {
  const table = parseMountTable(
    '36 35 0:31 / /mnt/a\\040b rw,nosuid shared:1 - fuse.isrfs /export/vm rw\n' +
      '37 35 0:32 / /mnt/a\\040b rw - ext4 /dev/sda1 rw\n\nnonsense\n'
  )
  t.is(table.length, 2)
  t.like(mountAt('/mnt/a b', table), { fileSystemType: 'ext4', device: '0:32' })
  t.is(mountAt('/mnt', table), undefined)
})

test('an error keeps its code and hint on its way through a socket', (t) => {
  const error = fromMessageError(toMessageError(new BusyError('in use', { hint: 'wait' })))
  t.true(error instanceof BusyError)
  t.like(error, { message: 'in use', hint: 'wait', code: 'BUSY' })
})

test('a daemon that is started without a request says who starts it', (t) => {
  t.throws(() => parseMountRequest(undefined), { message: /isrfs mount/ })
  t.throws(() => parseMountRequest('{"vmPath":"relative"}'), { message: /isrfs mount/ })
})

test('private directories are removed when their mount is dead, and only then', async (t) => {
  const first = createPrivateDirectory(t.context.root)
  fs.writeFileSync(path.join(first.path, 'journal'), 'x')
  const dead = path.join(t.context.root, 'private', 'dead')
  fs.mkdirSync(dead)
  const second = createPrivateDirectory(t.context.root)
  t.true(fs.existsSync(first.path))
  t.false(fs.existsSync(dead))
  first.remove()
  second.remove()
  await removals()
  t.deepEqual(fs.readdirSync(path.join(t.context.root, 'private')), [])
})

test('a start that was given up stops at its next step, an open one goes on', (t) => {
  const given = new StartGate()
  given.giveUp()
  t.throws(() => given.checkpoint(), { message: /given up/ })
  const open = new StartGate()
  t.true(open.open())
  open.giveUp()
  t.notThrows(() => open.checkpoint())
  const late = new StartGate()
  late.giveUp()
  t.false(late.open(), 'during the last step: it ends at once, and in an orderly way')
})

test('waiting with a limit tells which came first', async (t) => {
  t.true(await withinMs(Promise.resolve(), 1000))
  t.false(await withinMs(new Promise(() => undefined), 1))
  await t.throwsAsync(withinMs(Promise.reject(new Error('x')), 1000), { message: 'x' })
})

const STATUS: Status = {
  vm: '/s/v',
  mountpoint: '/m',
  state: 'mounted',
  generation: 1,
  checkpoint: null,
  readOnly: false,
  discard: false,
  client: 'c',
  lease: 'held',
  leaseNumber: 1,
  since: '',
  pid: 1,
  log: '',
  dirtyBytes: 0,
  pendingBytes: 0,
  suspendBytes: 0,
  suspendSeconds: null,
  presentBytes: 0,
  dataBytes: 0,
  warm: false,
  totalBytes: 0,
  fetchedBytes: 0,
  fetchedBlocks: 0,
  lookasideBlocks: 0,
  aheadBlocks: 0,
  aheadUsedBlocks: 0,
  profileBlocks: 0,
  profileUsedBlocks: 0,
  uploadedBytes: 0,
  trickledBytes: 0,
  cacheBytes: 0,
  shareErrors: 0,
  shareAnswers: true,
  damagedBlocks: 0,
  phase: '',
  doneBytes: 0,
  toDoBytes: 0,
  openHandles: 0,
  transport: 'direct',
  threadReads: 0,
  threadWrites: 0,
  residentBytes: 0,
  waiting: []
}

function controlled(overrides: Partial<Controlled> = {}): Controlled {
  return {
    metrics: () => Promise.resolve(''),
    status: () => STATUS,
    view: () => ({
      status: STATUS,
      readBytes: 0,
      hitBytes: 0,
      samples: { columns: [], intervalMs: 1000, first: 0, rows: [] },
      latency: { endsSeconds: [], kinds: [] },
      files: []
    }),
    cells: () => {
      throw new FailedError('there is no such file')
    },
    warm: () => Promise.resolve({ totalBytes: 0, fetchedBytes: 0 }),
    checkpoint: () => Promise.reject(new Error('not now')),
    unmount: () => Promise.resolve({ kind: 'unchanged', generation: 1 }),
    watch: () => () => undefined,
    ...overrides
  }
}

function connect(socketPath: string): Promise<net.Socket> {
  return new Promise((resolve, reject) => {
    const socket = net.connect(socketPath, () => resolve(socket)).on('error', reject)
  })
}

test('the control socket answers status, and a second daemon for its name is refused', async (t) => {
  const socketPath = path.join(t.context.root, 's')
  const server = await ControlServer.listen(socketPath, controlled())
  t.deepEqual(await askStatus(socketPath), STATUS)
  await t.throwsAsync(ControlServer.listen(socketPath, controlled()), { message: /another daemon/ })
  await server.close()
  t.is(await askStatus(socketPath), undefined)
})

test('an unmount streams progress, then its outcome, also while the server closes', async (t) => {
  const socketPath = path.join(t.context.root, 's')
  let finish: () => void = () => undefined
  const finished = new Promise<void>((resolve) => (finish = resolve))
  const server = await ControlServer.listen(
    socketPath,
    controlled({
      unmount: async () => {
        await finished
        return { kind: 'unchanged', generation: 1 }
      },
      watch: (listener) => {
        listener.notice('hello')
        listener.progress({ phase: 'upload', doneBytes: 1, totalBytes: 2, sentBytes: 3 })
        return () => undefined
      }
    })
  )
  const heard: string[] = []
  const outcome = askUnmount(
    await connect(socketPath),
    { verify: false },
    {
      notice: (text) => heard.push(text),
      progress: ({ phase }) => {
        heard.push(phase)
        finish()
        void server.close()
      }
    }
  )
  t.deepEqual(await outcome, { kind: 'unchanged', generation: 1 })
  t.deepEqual(heard, ['hello', 'upload'])
})

test('a closing daemon answers who has connected, also who is not taken in and has not asked yet', async (t) => {
  const socketPath = path.join(t.context.root, 's')
  const watch = { notice: () => undefined, progress: () => undefined }
  const outcome = { kind: 'unchanged', generation: 1 }
  const server = await ControlServer.listen(socketPath, controlled())
  const taken = await connect(socketPath)
  const waiting = net.connect(socketPath) // in the kernel's queue
  const closed = server.close()
  await new Promise((resolve) => setTimeout(resolve, 100))
  t.deepEqual(await askUnmount(taken, { verify: false }, watch), outcome)
  t.deepEqual(await askUnmount(waiting, { verify: false }, watch), outcome)
  await closed
  t.false(fs.existsSync(socketPath))
})

test('a failed unmount rejects with the daemon’s error', async (t) => {
  const socketPath = path.join(t.context.root, 's')
  const server = await ControlServer.listen(
    socketPath,
    controlled({ unmount: () => Promise.reject(new BusyError('in use')) })
  )
  const watch = { notice: () => undefined, progress: () => undefined }
  await t.throwsAsync(askUnmount(await connect(socketPath), { verify: false }, watch), {
    instanceOf: BusyError,
    message: 'in use'
  })
  await server.close()
})

test('a daemon of another version is told of, and one that goes away in the middle is none any more', async (t) => {
  const socketPath = path.join(t.context.root, 's')
  const answers = ['{"kind":"status","status":{"vm":"/s/v"}}\n', undefined]
  const server = net.createServer((socket) => {
    socket.on('error', () => undefined)
    socket.once('data', () => {
      const answer = answers.shift()
      if (answer === undefined) socket.destroy()
      else socket.end(answer)
    })
  })
  await new Promise<void>((resolve) => server.listen(socketPath, resolve))
  await t.throwsAsync(askStatus(socketPath), { code: 'FAILED', message: /another version of isrfs/ })
  t.is(await askStatus(socketPath), undefined)
  server.close()
})

test('nonsense on the control socket ends the conversation and nothing else', async (t) => {
  const socketPath = path.join(t.context.root, 's')
  const server = await ControlServer.listen(socketPath, controlled())
  for (const nonsense of ['{"command":"dance"}\n', 'no json\n', 'x'.repeat(2 * 2 ** 20)]) {
    const socket = await connect(socketPath)
    socket.on('error', () => undefined)
    socket.write(nonsense)
    socket.resume()
    await new Promise((resolve) => socket.once('close', resolve))
  }
  t.deepEqual(await askStatus(socketPath), STATUS)
  await server.close()
})
