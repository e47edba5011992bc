/**
 * Processes that fail: everything that runs in one (AsyncLocalStorage) makes its file system calls through it, so that the
 * nth call of a kind can fail, tear, lie or be the last one that this process ever makes. All of it happens in the test's
 * own process: one case takes milliseconds, and thousands can be tried.
 *
 * Power loss: what was written to a file since its last fsync is undone, wholly or in part; names that were made, moved
 * or removed since the last fsync of their directory may be as before. 'power' spares names on the share (an NFS server makes
 * them durable before it answers), 'power-server' does not (other file systems need the fsync of the directory).
 *
 * Tasks of worker threads (task()) can hang: an nth one waits before it does anything, or with its answer, until release().
 */
import { AsyncLocalStorage } from 'node:async_hooks'
import fs from 'node:fs'
import path from 'node:path'
import { PAGE_BYTES } from '../../src/base/units.js'
import type { Random } from '../support/random.js'

export type Side = 'client' | 'share'
export type Errno = 'EIO' | 'ENOSPC' | 'EDQUOT' | 'EROFS' | 'EACCES' | 'ESTALE'
/**
 * 'lie': the call is made, and reports an error all the same. 'lie-ok': it reports success and does nothing. 'short': fewer bytes than
 * asked for. 'power-server': the share's machine loses power as well. 'hang-before', 'hang-after': of a task, not of a call.
 */
export type Kind =
  | Errno
  | 'die-before'
  | 'die-after'
  | 'tear'
  | 'short'
  | 'lie'
  | 'lie-ok'
  | 'power'
  | 'power-server'
  | 'hang-before'
  | 'hang-after'

export interface Fault {
  readonly side: Side
  readonly operation: string
  /** which of its calls, from 1 */
  readonly call: number
  readonly kind: Kind
}

/** The process has ended: no call of it does anything any more. */
export class ProcessEnded extends Error {
  readonly code = 'EENDED'

  constructor() {
    super('this process has ended')
  }
}

interface Undo {
  durable: boolean
  readonly side: Side
  readonly directory: string
  /** of a file that came from another directory: the one it left, and whether that is durable */
  readonly left?: string | undefined
  leftDurable: boolean
  undo(): void
}

type AnyFunction = (...args: never[]) => unknown

const current = new AsyncLocalStorage<FaultyProcess>()
const real = { ...fs }
const BOOT_FILE = '/proc/sys/kernel/random/boot_id'
const TIMER_DIVISOR = 200
/** of base/remove-later.ts, whose queue is the same for all processes here */
const REMOVALS: ReadonlySet<string> = new Set(['promises.unlink', 'promises.rmdir', 'promises.readdir'])

export class FaultyProcess {
  readonly counts = new Map<string, number>()
  fired = false
  isDead = false
  /** resolves when the process has ended */
  readonly ended: Promise<void>
  /** resolves when a task has begun to hang */
  readonly hanging: Promise<void>
  readonly #roots: Readonly<Record<Side, string>>
  readonly #fault: Fault | undefined
  readonly #boot: string
  readonly #stash: string
  #resolveEnded: () => void = () => undefined
  #resolveHanging: () => void = () => undefined
  #resolveReleased: () => void = () => undefined
  readonly #released: Promise<void>
  readonly #descriptors = new Map<number, string>()
  readonly #handles = new Map<number, { handle: fs.promises.FileHandle; file: string }>()
  readonly #timers = new Set<NodeJS.Timeout>()
  /** by device and inode: a descriptor of our own, and the bytes that writes have replaced since the last fsync */
  readonly #unsynced = new Map<string, { descriptor: number; writes: { at: number; old: Buffer; size: number }[] }>()
  readonly #names: Undo[] = []
  #stashed = 0

  constructor(options: { roots: Readonly<Record<Side, string>>; stash: string; boot: string; fault?: Fault }) {
    this.#roots = options.roots
    this.#fault = options.fault
    this.#boot = options.boot
    this.#stash = real.mkdtempSync(path.join(options.stash, 'process-'))
    this.ended = new Promise((resolve) => (this.#resolveEnded = resolve))
    this.hanging = new Promise((resolve) => (this.#resolveHanging = resolve))
    this.#released = new Promise((resolve) => (this.#resolveReleased = resolve))
  }

  run<Result>(body: () => Result): Result {
    return current.run(this, body)
  }

  /** SIGKILL: descriptors are closed, and with them locks let go. */
  end(): void {
    if (this.isDead) return
    this.isDead = true
    for (const descriptor of this.#descriptors.keys()) {
      try {
        real.closeSync(descriptor)
      } catch {
        // closed already
      }
    }
    this.#descriptors.clear()
    for (const { handle } of [...this.#handles.values()]) void handle.close().catch(() => undefined)
    for (const timer of this.#timers) clearInterval(timer)
    this.#resolveEnded()
  }

  /** What hangs goes on. */
  release(): void {
    this.#resolveReleased()
  }

  /** A task of a worker thread, which may hang. One whose thread was ended meanwhile does nothing more. */
  async task(name: string, perform: () => unknown, isEnded: () => boolean): Promise<unknown> {
    const hangs = this.#isFault('share', `task.${name}`) ? this.#fault?.kind : undefined
    if (hangs !== undefined) this.fired = true
    if (hangs === 'hang-before') {
      await this.#hang()
      if (isEnded()) return new Promise(() => undefined)
    }
    try {
      return perform()
    } finally {
      if (hangs === 'hang-after' && !this.isDead) await this.#hang()
    }
  }

  #hang(): Promise<void> {
    this.#resolveHanging()
    return this.#released
  }

  /** After end(): what was not synced is lost, in part. Each machine has done its names in their order. */
  losePower(random: Random, machines: readonly Side[]): void {
    for (const { descriptor, writes } of this.#unsynced.values()) {
      for (const { at, old, size } of [...writes].reverse()) {
        if (random.below(3) === 0) continue
        real.writeSync(descriptor, old, 0, old.length, at)
        if (real.fstatSync(descriptor).size > size && at + old.length >= size) real.ftruncateSync(descriptor, size)
      }
    }
    for (const machine of machines) {
      const names = this.#names.filter(({ side }) => side === machine)
      const kept = random.below(names.length + 1)
      for (const name of names.slice(kept).reverse()) if (!name.durable) name.undo()
    }
  }

  dispose(): void {
    this.end()
    for (const { descriptor } of this.#unsynced.values()) real.closeSync(descriptor)
    this.#unsynced.clear()
  }

  call(operation: string, original: AnyFunction, args: unknown[]): unknown {
    if (this.isDead) throw new ProcessEnded()
    const [first] = args
    if (first === BOOT_FILE) return `${this.#boot}\n`
    const file = typeof first === 'number' ? this.#fileOf(first) : typeof first === 'string' ? first : undefined
    const side = this.#sideOf(file)
    const perform = (given = args): unknown => this.#perform(operation, original, given, file)
    if (side === undefined) return perform()
    if (!this.#isFault(side, operation) || this.#fault === undefined) return perform()
    this.fired = true
    switch (this.#fault.kind) {
      case 'die-before':
      case 'power':
      case 'power-server':
        this.end()
        throw new ProcessEnded()
      case 'die-after':
        unanswered(perform())
        this.end()
        throw new ProcessEnded()
      case 'tear':
        if (file?.includes('/regions/') === true) performPages(args, perform)
        else perform(halved(args))
        this.end()
        throw new ProcessEnded()
      case 'short':
        return perform(halved(args))
      case 'lie':
        unanswered(perform())
        throw errorOf('EIO', operation)
      case 'lie-ok':
        return undefined
      default:
        if (operation === 'closeSync') perform() // the descriptor is gone whatever close says
        if (operation === 'existsSync') return false
        throw errorOf(this.#fault.kind, operation)
    }
  }

  /** Counts the call; whether it is the one that goes wrong. */
  #isFault(side: Side, operation: string): boolean {
    const key = `${side} ${operation}`
    const count = (this.counts.get(key) ?? 0) + 1
    this.counts.set(key, count)
    const fault = this.#fault
    return fault?.side === side && fault.operation === operation && fault.call === count
  }

  async callLater(operation: string, original: AnyFunction, args: unknown[]): Promise<unknown> {
    await Promise.resolve()
    const result = await this.call(operation, original, args)
    if (this.isDead && REMOVALS.has(operation)) throw new ProcessEnded() // the next process's wait for it
    return this.isDead ? new Promise(() => undefined) : result
  }

  adopt(handle: fs.promises.FileHandle, file: string): void {
    const descriptor = handle.fd
    this.#handles.set(descriptor, { handle, file })
    for (const name of ['datasync', 'sync'] as const) {
      const method = handle[name].bind(handle)
      handle[name] = async () => {
        const before = this.#writesOf(descriptor)
        const names = this.#namesOf(file)
        await this.callLater(`handle.${name}`, () => method(), [descriptor])
        this.#forgetWrites(before)
        for (const durable of names) durable()
      }
    }
    const close = handle.close.bind(handle)
    handle.close = async () => {
      this.#handles.delete(descriptor)
      await close()
    }
  }

  addTimer(timer: NodeJS.Timeout): void {
    this.#timers.add(timer)
  }

  #fileOf(descriptor: number): string | undefined {
    return this.#descriptors.get(descriptor) ?? this.#handles.get(descriptor)?.file
  }

  #sideOf(file: string | undefined): Side | undefined {
    if (file === undefined) return undefined
    for (const side of ['client', 'share'] as const)
      if (file === this.#roots[side] || file.startsWith(`${this.#roots[side]}/`)) return side
    return undefined
  }

  #perform(operation: string, original: AnyFunction, args: unknown[], file: string | undefined): unknown {
    const call = original as (...given: unknown[]) => unknown
    switch (operation) {
      case 'writeSync': {
        const [descriptor, bytes, , length, position] = args as [number, unknown, unknown, number, number | undefined]
        this.#rememberWrite(descriptor, position, typeof bytes === 'string' ? Buffer.byteLength(bytes) : length)
        return call(...args)
      }
      case 'ftruncateSync': {
        const [descriptor, size] = args as [number, number]
        this.#rememberWrite(descriptor, size, Math.max(0, real.fstatSync(descriptor).size - size))
        return call(...args)
      }
      case 'fsyncSync':
      case 'fdatasyncSync': {
        const [descriptor] = args as [number]
        const result = call(...args)
        this.#forgetWrites(this.#writesOf(descriptor))
        if (real.fstatSync(descriptor).isDirectory()) for (const durable of this.#namesOf(file)) durable()
        return result
      }
      case 'openSync': {
        const name = String(args[0])
        const isNew = !real.existsSync(name)
        const descriptor = call(...args) as number
        this.#descriptors.set(descriptor, name)
        if (isNew) this.#rememberName(name, () => real.rmSync(name, { force: true }))
        return descriptor
      }
      case 'closeSync':
        this.#descriptors.delete(args[0] as number)
        return call(...args)
      case 'mkdirSync': {
        const name = String(args[0])
        const isNew = !real.existsSync(name)
        const result = call(...args)
        if (isNew) this.#rememberName(name, () => real.rmSync(name, { recursive: true, force: true }))
        return result
      }
      case 'renameSync':
      case 'promises.rename': {
        const [from, to] = args as [string, string]
        const replaced = this.#linkAside(to)
        if (operation === 'renameSync') call(...args)
        else real.renameSync(from, to) // now: what the process does after its end does not count
        const undo = (name: Undo): void => {
          // that it left its old name is durable, and the old name may be another file's by now: it has none
          if (name.leftDurable) real.rmSync(to, { recursive: true, force: true })
          else if (real.existsSync(to)) real.renameSync(to, from)
          if (replaced !== undefined) real.linkSync(replaced, to)
        }
        this.#rememberName(to, undo, path.dirname(from))
        return undefined
      }
      case 'promises.rmdir': {
        const name = String(args[0])
        real.rmdirSync(name)
        this.#rememberName(name, () => {
          real.mkdirSync(name, { mode: 0o700 })
        })
        return undefined
      }
      case 'rmSync':
      case 'unlinkSync':
      case 'promises.unlink': {
        const name = String(args[0])
        const stat = real.lstatSync(name, { throwIfNoEntry: false })
        if (stat?.isDirectory() === true && operation === 'rmSync') {
          const aside = this.#aside()
          real.renameSync(name, aside)
          this.#rememberName(name, () => real.renameSync(aside, name))
          return undefined
        }
        const aside = this.#linkAside(name)
        if (operation === 'promises.unlink') real.unlinkSync(name)
        else call(...args)
        if (aside !== undefined)
          this.#rememberName(name, () => {
            real.rmSync(name, { force: true })
            real.linkSync(aside, name)
          })
        return undefined
      }
      default:
        return call(...args)
    }
  }

  #rememberName(name: string, undo: (given: Undo) => void, from?: string): void {
    const side = this.#sideOf(name)
    if (side === undefined) return
    const directory = path.dirname(name)
    const left = from === directory ? undefined : from
    const remembered: Undo = {
      durable: false,
      side,
      directory,
      left,
      leftDurable: false,
      undo: () => {
        try {
          undo(remembered)
        } catch {
          // its directory is gone by another undo
        }
      }
    }
    this.#names.push(remembered)
  }

  /** What has happened to names of a directory until now; each becomes durable when it is called. */
  #namesOf(directory: string | undefined): (() => void)[] {
    if (directory === undefined) return []
    const here = this.#names.filter((name) => name.directory === directory)
    const gone = this.#names.filter((name) => name.left === directory)
    return [...here.map((name) => () => (name.durable = true)), ...gone.map((name) => () => (name.leftDurable = true))]
  }

  #aside(): string {
    return path.join(this.#stash, String(this.#stashed++))
  }

  #linkAside(name: string): string | undefined {
    if (!real.existsSync(name) || real.lstatSync(name).isDirectory()) return undefined
    const aside = this.#aside()
    real.linkSync(name, aside)
    return aside
  }

  #rememberWrite(descriptor: number, position: number | null | undefined, length: number): void {
    const file = this.#fileOf(descriptor)
    if (this.#sideOf(file) === undefined) return
    const { dev, ino, size } = real.fstatSync(descriptor)
    const key = `${String(dev)}:${String(ino)}`
    let known = this.#unsynced.get(key)
    if (known === undefined) {
      const own = real.openSync(`/proc/self/fd/${String(descriptor)}`, 'r+')
      this.#unsynced.set(key, (known = { descriptor: own, writes: [] }))
    }
    const at = typeof position === 'number' ? position : size // without a position these files only grow
    const old = Buffer.alloc(Math.max(0, Math.min(length, size - at)))
    real.readSync(known.descriptor, old, 0, old.length, at)
    known.writes.push({ at, old, size })
  }

  #writesOf(descriptor: number): { key: string; count: number } {
    const { dev, ino } = real.fstatSync(descriptor)
    const key = `${String(dev)}:${String(ino)}`
    return { key, count: this.#unsynced.get(key)?.writes.length ?? 0 }
  }

  #forgetWrites({ key, count }: { key: string; count: number }): void {
    this.#unsynced.get(key)?.writes.splice(0, count)
  }

  /** fdatasync with a callback */
  async syncLater(descriptor: number): Promise<void> {
    const before = this.#writesOf(descriptor)
    await this.callLater(
      'fdatasync',
      () => {
        real.fdatasyncSync(descriptor)
      },
      [descriptor]
    )
    this.#forgetWrites(before)
  }
}

function halved(args: unknown[]): unknown[] {
  const [descriptor, bytes, offset, length, position] = args
  if (typeof bytes === 'string') return [descriptor, bytes.slice(0, bytes.length / 2)]
  return [descriptor, bytes, offset, Math.ceil(Number(length) / 2), position]
}

/** A signal ends write(2) between pages, never within one: the kernel copies a page of its cache in one step. */
function performPages(args: unknown[], perform: (given: unknown[]) => unknown): void {
  const [descriptor, bytes, offset, length, position] = args as [number, Uint8Array, number, number, number]
  const end = Math.floor((position + length / 2) / PAGE_BYTES) * PAGE_BYTES
  if (end > position) perform([descriptor, bytes, offset, end - position, position])
}

/** Of a call whose own end nobody learns. */
function unanswered(result: unknown): void {
  if (result instanceof Promise) result.catch(() => undefined)
}

function errorOf(code: string, operation: string): Error {
  return Object.assign(new Error(`${code}: made up, ${operation}`), { code, syscall: operation })
}

/** The process that the caller runs in, if it is one of these. */
export function currentProcess(): FaultyProcess | undefined {
  return current.getStore()
}

/** Puts these processes between the program and node:fs, and makes waiting short in them. For the whole test process. */
export function installFaultyFileSystem(): void {
  const target = fs as unknown as Record<string, AnyFunction>
  for (const [name, value] of Object.entries(fs)) {
    if (!name.endsWith('Sync') || typeof value !== 'function') continue
    const original = value as AnyFunction
    target[name] = (...args: never[]) => {
      const process = current.getStore()
      return process === undefined ? original(...args) : process.call(name, original, args)
    }
  }
  const fdatasync = fs.fdatasync
  target.fdatasync = (descriptor: number, done: (error: Error | null) => void) => {
    const process = current.getStore()
    if (process === undefined) fdatasync(descriptor, done)
    else
      process.syncLater(descriptor).then(
        () => done(null),
        (error: unknown) => done(error as Error)
      )
  }
  const promises = fs.promises as unknown as Record<string, AnyFunction>
  for (const name of ['open', 'writeFile', 'rename', 'unlink', 'rmdir', 'readdir', 'stat', 'opendir']) {
    const original = promises[name] as AnyFunction
    promises[name] = async (...args: never[]) => {
      const process = current.getStore()
      if (process === undefined) return original(...args)
      const result = await process.callLater(`promises.${name}`, original, args)
      if (name === 'open') process.adopt(result as fs.promises.FileHandle, String(args[0]))
      return result
    }
  }
  const repeat = globalThis.setInterval
  globalThis.setInterval = (action: () => void, ms?: number) => {
    const timer = repeat(action, ms)
    current.getStore()?.addTimer(timer)
    return timer
  }
  const wait = globalThis.setTimeout
  globalThis.setTimeout = ((action: (...given: unknown[]) => void, ms?: number, ...rest: unknown[]) =>
    wait(action, current.getStore() === undefined ? ms : (ms ?? 0) / TIMER_DIVISOR, ...rest)) as typeof setTimeout
}
