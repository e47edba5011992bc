/** The share's file system calls, of which the Nth fails with an errno and does nothing. */
import { nodeFileSystem, type ShareFileSystem } from '../../src/share/file-system.js'

export class FaultyFileSystem {
  readonly calls: ShareFileSystem
  /** whether the call that was to fail came */
  wasReached = false
  #count = 0

  constructor(fault: { readonly call: number; readonly errno: string }) {
    const wrapped = Object.entries(nodeFileSystem).map(([name, call]: [string, unknown]) => {
      if (typeof call !== 'function') return [name, call]
      return [
        name,
        (...parameters: unknown[]): unknown => {
          this.#count++
          if (this.#count === fault.call) {
            this.wasReached = true
            throw Object.assign(new Error(`${fault.errno}: injected into ${name}`), { code: fault.errno })
          }
          return call.apply(nodeFileSystem, parameters)
        }
      ]
    })
    this.calls = Object.fromEntries(wrapped) as ShareFileSystem // the same names with the same signatures
  }
}
