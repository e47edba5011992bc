/**
 * The transport over the npm binding `fuse-native` (libfuse 3's high-level interface). The only module that knows it, and
 * the package is optional: `mount-scripts/setup --binding` adds it where npm leaves it out. native-notes/fuse-binding.md
 * has the measurements behind the options.
 *
 * Order of an end: sync and fusermount3 -u (daemon/) -> DESTROY, `ended` -> drained() -> close(). The binding itself
 * answers requests that still run with EIO when the mount ends; drained() waits for what they do, not for the answer.
 */
import { createRequire } from 'node:module'
import type Fuse from 'fuse-native'
import path from 'node:path'
import { FailedError, messageOf } from '../base/errors.js'
import { tuneMount } from './kernel-tuning.js'
import { createOperations } from './operations.js'
import type { FileSystem, Transport, TransportOptions } from './port.js'
import { RunningOperations } from './running-operations.js'

const CAP_ATOMIC_O_TRUNC = 1 << 3
const CAP_AUTO_INVAL_DATA = 1 << 12
const CAP_WRITEBACK_CACHE = 1 << 16
const CAP_HANDLE_KILLPRIV = 1 << 20

/** One mount owns the tree: nothing changes behind the kernel's back. */
const CACHE_SECONDS = 86_400
/** The event loop must live as long as the mount, and the binding does not see to it. */
const TIMER_MS_MAX = 2 ** 31 - 1
const MOUNT_MS_MAX = 30_000

export function createBindingTransport(tree: FileSystem, options: TransportOptions): Transport {
  return new BindingTransport(tree, options)
}

class BindingTransport implements Transport {
  readonly name = 'binding'
  readonly ended: Promise<void>
  readonly threadsWait = false
  readonly #tree: FileSystem
  readonly #fuse: WithExtraOptions
  readonly #running: RunningOperations
  readonly #mountpoint: string
  readonly #refusesToWrite: () => boolean
  readonly #options: TransportOptions
  #resolveEnded: () => void = () => undefined
  #keepAlive: NodeJS.Timeout | undefined

  constructor(tree: FileSystem, options: TransportOptions) {
    this.ended = new Promise((resolve) => (this.#resolveEnded = resolve))
    this.#tree = tree
    this.#options = options
    this.#mountpoint = path.resolve(options.mountpoint)
    this.#refusesToWrite = () => !options.readOnly && options.hasHardLinks?.() === true
    this.#running = new RunningOperations(options.onError, options.times)
    const operations = createOperations(tree, this.#running, () => this.#fuse.context() ?? { uid: 0, gid: 0 })
    const isRoot = process.getuid?.() === 0
    const FuseWithOptions = extendBinding(loadBinding(options))
    this.#fuse = new FuseWithOptions(
      this.#mountpoint,
      {
        ...operations,
        initWithConfig: (connection, callback) =>
          callback(0, { want: wanted(connection.want, connection.capable, options.writeback) }),
        destroy: (callback) => {
          callback(0)
          this.#resolveEnded()
        }
      },
      {
        maxConcurrency: 64,
        // no operation has a limit (a fetch takes as long as the share does), mounting has one
        timeout: { default: false, init: MOUNT_MS_MAX },
        nullPathOk: true,
        defaultPermissions: true,
        allowOther: options.allowOther && !isRoot,
        kernelCache: true,
        attrTimeout: CACHE_SECONDS,
        entryTimeout: CACHE_SECONDS,
        fsname: mountWord(options.vmName),
        subtype: 'isrfs',
        onError: (error, operation) => {
          // Somebody unmounted: the binding sees its loop end, cleans up and calls destroy.
          if (operation === 'lifecycle' && !failedNatively(error)) return
          options.onError(error, operation)
        }
      }
    )
    if (options.readOnly) this.#fuse.extraOptions.push('ro')
    // The binding asks for user_allow_other in /etc/fuse.conf even of root, who does not need it.
    if (options.allowOther && isRoot) this.#fuse.extraOptions.push('allow_other')
  }

  async mount(): Promise<void> {
    if (this.#refusesToWrite()) {
      throw new FailedError(
        'a file of this VM has several names (hard links), and through the binding each of them would be a file of its own to the kernel: what is written to one would be lost to the other',
        { hint: `${orUseDirect(this.#options)}use --read-only` }
      )
    }
    this.#keepAlive = setInterval(() => undefined, TIMER_MS_MAX)
    try {
      await new Promise<void>((resolve, reject) => {
        this.#fuse.mount((error) => (error == null ? resolve() : reject(error)))
      })
    } catch (error) {
      this.#stopTimer()
      throw new FailedError(`cannot mount on ${this.#mountpoint}: ${messageOf(error)}`, {
        cause: error,
        hint: 'check that /dev/fuse and fusermount3 are there and that the mountpoint is an empty directory'
      })
    }
    tuneMount(this.#mountpoint)
  }

  drained(): Promise<void> {
    return this.#running.drained()
  }

  async close(): Promise<void> {
    try {
      await new Promise<void>((resolve, reject) => {
        this.#fuse.unmount((error) => (error == null ? resolve() : reject(error)))
      })
    } finally {
      this.#stopTimer()
      this.#resolveEnded()
    }
    // The last RELEASEs may never come (seen after a lazy detach). A giving up leaves operations that still run their handles.
    if (this.#running.isIdle) this.#tree.releaseAll()
  }

  #stopTimer(): void {
    clearInterval(this.#keepAlive)
    this.#keepAlive = undefined
  }
}

/** What the binding makes its `-o` string from; not public, so the version is pinned and a test looks at the mount. */
interface WithOptionString {
  _fuseOptions(): string
}

type WithExtraOptions = Fuse & { readonly extraOptions: string[] }

/** Throws FailedError where the package is not installed. */
function loadBinding(options: TransportOptions): typeof Fuse {
  try {
    return createRequire(import.meta.url)('fuse-native') as typeof Fuse
  } catch (error) {
    throw new FailedError(`the FUSE binding is not installed, or does not fit this Node.js: ${firstLine(error)}`, {
      hint: `${orUseDirect(options)}add the binding: sh mount-scripts/setup --binding`,
      cause: error
    })
  }
}

/** What comes first in a hint, where it can help. */
function orUseDirect({ isDirectTooNew = false }: TransportOptions): string {
  return isDirectTooNew ? '' : 'use --transport direct, or '
}

function firstLine(error: unknown): string {
  return messageOf(error).split('\n', 1)[0] ?? ''
}

/** The binding refuses mount options that it does not know, such as `ro`. */
function extendBinding(
  binding: typeof Fuse
): new (...settings: ConstructorParameters<typeof Fuse>) => WithExtraOptions {
  return class extends binding {
    readonly extraOptions: string[] = []

    _fuseOptions(): string {
      // its type declarations leave out what is not public
      const prototype = binding.prototype as unknown as WithOptionString
      return [prototype._fuseOptions.call(this), ...this.extraOptions].join(',')
    }
  }
}

/**
 * Not wanted: clearing set-id bits ourselves (the kernel knows who writes, a WRITE out of its cache does not), O_TRUNC
 * inside OPEN (as a SETATTR it clears set-id bits too), dropping cached pages when an mtime changes (only we change it).
 */
function wanted(offered: number, capable: number, writeback: boolean): number {
  const want = offered & ~(CAP_ATOMIC_O_TRUNC | CAP_AUTO_INVAL_DATA | CAP_HANDLE_KILLPRIV)
  const withCache = writeback ? want | CAP_WRITEBACK_CACHE : want & ~CAP_WRITEBACK_CACHE
  return (withCache & capable) >>> 0
}

/** The request loop ended with an error, not because the mount is gone. */
function failedNatively(error: unknown): boolean {
  return (
    error instanceof Error &&
    'nativeResult' in error &&
    typeof error.nativeResult === 'number' &&
    error.nativeResult < 0
  )
}

/** Mount options are separated by commas; the binding refuses what would break them. */
function mountWord(name: string): string {
  return name.replace(/[\0,\\\r\n]/g, '_') || 'isrfs'
}
