/**
 * A share whose file system misbehaves on purpose: the Nth call fails with an errno, before or after it was carried out
 * (NFS retransmits a request and then reports the second answer), writes and reads come in pieces, and somebody may look
 * at the disk after every call, as a crash at that moment would leave it.
 *
 *     const faulty = new FaultyShare(root, { call: 3, errno: 'EIO' })
 *     faulty.share.write(...)
 *     faulty.wasReached                 // false: the work needs fewer calls than that, all cases were seen
 *
 * fsync counts as a call and does nothing: no power is cut here, and thousands of cases should take seconds. Give `only` to count calls of one kind: { call: 1, errno: 'ENOSPC', only: 'fsyncSync' }.
 */
import { nodeFileSystem, type ShareFileSystem } from '../../src/share/file-system.js'
import { Share } from '../../src/share/share.js'

export type CallName = keyof ShareFileSystem

export interface Fault {
  /** 1 is the first */
  readonly call: number
  readonly errno: string
  readonly only?: CallName
  /** the call does its work and then reports failure; close always does */
  readonly after?: boolean
}

export interface FaultyOptions {
  /** at most so many bytes in one read or write */
  readonly pieceBytesMax?: number
  readonly afterEachCall?: () => void
}

const NAMES: readonly CallName[] = [
  'openSync',
  'readSync',
  'writeSync',
  'fsyncSync',
  'closeSync',
  'fstatSync',
  'lstatSync',
  'statfsSync',
  'mkdirSync',
  'readdirSync',
  'renameSync',
  'rmSync',
  'utimesSync'
]

export class FaultyShare {
  readonly share: Share
  /** every call, in order */
  readonly calls: CallName[] = []
  /** whether the call that was to fail came */
  wasReached = false
  #counted = 0

  constructor(root: string, fault?: Fault, options: FaultyOptions = {}) {
    const wrapped = NAMES.map((name) => [
      name,
      (...parameters: unknown[]): unknown => {
        try {
          return this.#call(name, cut(name, parameters, options.pieceBytesMax), fault)
        } finally {
          options.afterEachCall?.()
        }
      }
    ])
    this.share = new Share(root, Object.fromEntries(wrapped) as ShareFileSystem) // the same names and signatures
  }

  #call(name: CallName, parameters: unknown[], fault: Fault | undefined): unknown {
    const call = (name === 'fsyncSync' ? () => undefined : nodeFileSystem[name]) as (
      ...parameters: unknown[]
    ) => unknown // called with what its caller gave
    this.calls.push(name)
    if (fault === undefined || (fault.only !== undefined && fault.only !== name)) return call(...parameters)
    this.#counted++
    if (this.#counted !== fault.call) return call(...parameters)
    this.wasReached = true
    if (fault.after === true || name === 'closeSync') call(...parameters)
    throw errnoError(fault.errno, name)
  }
}

export function errnoError(errno: string, syscall: string): Error {
  return Object.assign(new Error(`${errno}: injected into ${syscall}`), { code: errno, syscall })
}

/** readSync and writeSync with a shorter length. */
function cut(name: CallName, parameters: unknown[], bytesMax: number | undefined): unknown[] {
  if (bytesMax === undefined || (name !== 'readSync' && name !== 'writeSync')) return parameters
  const [fd, bytes, offset, length, ...more] = parameters
  return [fd, bytes, offset, Math.min(Number(length), bytesMax), ...more]
}
