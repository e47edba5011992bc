/** Which transport serves a mount: the direct one, with the binding behind it for kernels that are too old. */
import { FailedError, IsrfsError, messageOf } from '../base/errors.js'
import { createBindingTransport } from './binding.js'
import { createDirectTransport, KernelTooOldError } from './direct/transport.js'
import type { FileSystem, Transport, TransportName, TransportOptions } from './port.js'

/** What makes a transport; a test can give others. */
export type TransportMakers = Readonly<
  Record<TransportName, (tree: FileSystem, options: TransportOptions) => Transport>
>

const MAKERS: TransportMakers = { binding: createBindingTransport, direct: createDirectTransport }

/** `onFallback` is told why, after the direct transport has ended and before the binding serves anything. */
export function createTransport(
  name: TransportName,
  tree: FileSystem,
  options: TransportOptions,
  onFallback: (why: string) => void,
  makers: TransportMakers = MAKERS
): Transport {
  const first = makers[name](tree, options)
  if (name === 'binding') return first
  return new WithFallback(first, () => makers.binding(tree, { ...options, isDirectTooNew: true }), onFallback)
}

class WithFallback implements Transport {
  readonly ended: Promise<void>
  readonly #first: Transport
  readonly #createOther: () => Transport
  readonly #onFallback: (why: string) => void
  #current: Transport
  #resolveMounted: () => void = () => undefined

  constructor(first: Transport, createOther: () => Transport, onFallback: (why: string) => void) {
    this.#first = first
    this.#current = first
    this.#createOther = createOther
    this.#onFallback = onFallback
    const mounted = new Promise<void>((resolve) => (this.#resolveMounted = resolve))
    this.ended = mounted.then(() => this.#current.ended)
  }

  async mount(): Promise<void> {
    try {
      await this.#first.mount()
    } catch (error) {
      if (!(error instanceof KernelTooOldError)) throw error
      await this.#fallBack(error.message)
    }
    this.#resolveMounted()
  }

  get name(): TransportName {
    return this.#current.name
  }

  get threadsWait(): boolean {
    return this.#first.threadsWait || this.#current.threadsWait
  }

  drained(): Promise<void> {
    return this.#current.drained()
  }

  close(): Promise<void> {
    return this.#current.close()
  }

  async #fallBack(why: string): Promise<void> {
    try {
      const other = this.#createOther()
      this.#onFallback(`${why}; falling back to the binding`)
      this.#current = other
      await other.mount()
    } catch (error) {
      const hint = error instanceof IsrfsError ? error.hint : undefined
      throw new FailedError(`${why}, and the binding cannot take its place: ${messageOf(error)}`, {
        cause: error,
        ...(hint === undefined ? {} : { hint })
      })
    }
  }
}
