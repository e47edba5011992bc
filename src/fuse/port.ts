/**
 * What a transport is, and what it needs: the tree's public interface. A transport turns kernel requests into tree
 * calls and PosixErrors into errno; it keeps no file system state but what its kernel interface forces on it.
 */
import type { Tree } from '../tree/tree.js'
import type { OperationTimes } from './operation-times.js'

/** The requests a transport may make. Structural, so that a test can serve something smaller. */
export type FileSystem = Pick<
  Tree,
  | 'lookup'
  | 'getattr'
  | 'setattr'
  | 'readlink'
  | 'create'
  | 'mkdir'
  | 'mknod'
  | 'symlink'
  | 'link'
  | 'unlink'
  | 'rmdir'
  | 'rename'
  | 'open'
  | 'read'
  | 'write'
  | 'flush'
  | 'fsync'
  | 'fallocate'
  | 'seek'
  | 'release'
  | 'releaseAll'
  | 'opendir'
  | 'readdir'
  | 'releasedir'
  | 'fsyncdir'
  | 'statfs'
  | 'isOpen'
  | 'remember'
  | 'forget'
>

/** Something that is not an answer to a program: a defect, or damage behind an EIO. */
export type ErrorListener = (error: unknown, operation: string) => void

export type TransportName = 'binding' | 'direct'

export interface TransportOptions {
  readonly mountpoint: string
  readonly readOnly: boolean
  readonly allowOther: boolean
  readonly writeback: boolean
  /** whether a file has several names: the binding cannot serve these for writing */
  readonly hasHardLinks?: () => boolean
  /** this kernel is too old for the direct transport: nothing advises to use it */
  readonly isDirectTooNew?: boolean
  /** shown as the mount's source */
  readonly vmName: string
  readonly onError: ErrorListener
  /** told of every request */
  readonly times?: OperationTimes
  /** what the direct transport's threads may answer reads from (base/region-table.ts) */
  readonly shared?: { readonly table: Int32Array; readonly counters: Float64Array } | undefined
}

export interface Transport {
  /** the one that serves, which after a fallback is not the one that was asked for */
  readonly name: TransportName
  /** Resolves when the mountpoint answers. */
  mount(): Promise<void>
  /** Resolves when the kernel has ended the mount (DESTROY): no request comes any more. */
  readonly ended: Promise<void>
  /** Whether threads wait in the kernel: then process.exit() would wait for them for ever. */
  readonly threadsWait: boolean
  /** Resolves when no operation is running. After `ended` it stays so. */
  drained(): Promise<void>
  /**
   * Takes down what is left of the mount, open handles included; call it after the kernel has ended it, or to give up.
   */
  close(): Promise<void>
}
