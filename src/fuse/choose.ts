/** Which transport serves a mount: the direct one, with the binding behind it for kernels that are too old. */
import { createBindingTransport } from './binding.js'
import { createDirectTransport, KernelTooOldError } from './direct/transport.js'
import type { FileSystem, Transport, TransportName, TransportOptions } from './port.js'

/** What makes a transport; a test can give others. */
export type TransportMakers = Readonly<
  Record<TransportName, (tree: FileSystem, options: TransportOptions) => Transport>
>

const MAKERS: TransportMakers = { binding: createBindingTransport, direct: createDirectTransport }

export function createTransport(
  name: TransportName,
  tree: FileSystem,
  options: TransportOptions,
  notice: (text: string) => void,
  makers: TransportMakers = MAKERS
): Transport {
  const first = makers[name](tree, options)
  return name === 'binding' ? first : new WithFallback(first, () => makers.binding(tree, options), notice)
}

class WithFallback implements Transport {
  readonly ended: Promise<void>
  readonly #createOther: () => Transport
  readonly #notice: (text: string) => void
  #current: Transport
  #resolveMounted: () => void = () => undefined

  constructor(first: Transport, createOther: () => Transport, notice: (text: string) => void) {
    this.#current = first
    this.#createOther = createOther
    this.#notice = notice
    const mounted = new Promise<void>((resolve) => (this.#resolveMounted = resolve))
    this.ended = mounted.then(() => this.#current.ended)
  }

  async mount(): Promise<void> {
    try {
      await this.#current.mount()
    } catch (error) {
      if (!(error instanceof KernelTooOldError)) throw error
      this.#notice(`${error.message}; the binding serves this mount`)
      this.#current = this.#createOther()
      await this.#current.mount()
    }
    this.#resolveMounted()
  }

  get threadsWait(): boolean {
    return this.#current.threadsWait
  }

  drained(): Promise<void> {
    return this.#current.drained()
  }

  close(): Promise<void> {
    return this.#current.close()
  }
}
