/**
 * Operational errors: one hierarchy with stable codes. A message says what happened and to what; `hint` says
 * what to do next. Programmer errors are assertions (node:assert) and are never caught.
 */

/** Stable codes; the command line maps them to its exit codes (see EXIT_CODES). */
export type ErrorCode =
  'FAILED' | 'USAGE' | 'LEASE_HELD' | 'INTEGRITY' | 'NOT_PUBLISHED' | 'BUSY' | 'SHARE' | 'FILE_SYSTEM'

/** Process exit codes (docs/operations.md). */
export const EXIT_CODES: Readonly<Record<ErrorCode, number>> = {
  FAILED: 1,
  SHARE: 1,
  FILE_SYSTEM: 1,
  USAGE: 2,
  LEASE_HELD: 3,
  INTEGRITY: 4,
  NOT_PUBLISHED: 5,
  BUSY: 6
}

export interface ErrorDetails {
  /** what to do next, for a person */
  readonly hint?: string
  readonly cause?: unknown
}

export class IsrfsError extends Error {
  readonly code: ErrorCode
  readonly hint: string | undefined

  constructor(code: ErrorCode, message: string, details: ErrorDetails = {}) {
    super(message, details.cause === undefined ? undefined : { cause: details.cause })
    this.name = new.target.name
    this.code = code
    this.hint = details.hint
  }
}

/** The operation failed for a reason that has no exit code of its own. */
export class FailedError extends IsrfsError {
  constructor(message: string, details?: ErrorDetails) {
    super('FAILED', message, details)
  }
}

export class UsageError extends IsrfsError {
  constructor(message: string, details?: ErrorDetails) {
    super('USAGE', message, details)
  }
}

export class LeaseHeldError extends IsrfsError {
  constructor(message: string, details?: ErrorDetails) {
    super('LEASE_HELD', message, details)
  }
}

/** Bytes on the share or in the session are not what their digest or checksum says. */
export class IntegrityError extends IsrfsError {
  constructor(message: string, details?: ErrorDetails) {
    super('INTEGRITY', message, details)
  }
}

/** The session could not be published; it is whole and safe on this client. */
export class NotPublishedError extends IsrfsError {
  constructor(message: string, details?: ErrorDetails) {
    super('NOT_PUBLISHED', message, details)
  }
}

export class BusyError extends IsrfsError {
  constructor(message: string, details?: ErrorDetails) {
    super('BUSY', message, details)
  }
}

/** A call on the share failed; `errno` is the system's name for it (ENOENT, EIO, ESTALE, ...). */
export class ShareError extends IsrfsError {
  readonly errno: string
  readonly path: string

  constructor(errno: string, path: string, message: string, details?: ErrorDetails) {
    super('SHARE', message, details)
    this.errno = errno
    this.path = path
  }
}

/** An answer to a file system request: POSIX errno by name (ENOENT, ENOSPC, ...). */
export class PosixError extends IsrfsError {
  readonly errno: string

  constructor(errno: string, message: string = errno, details?: ErrorDetails) {
    super('FILE_SYSTEM', message, details)
    this.errno = errno
  }
}

/** The system's errno name of a thrown value, or undefined when it has none. */
export function errnoOf(error: unknown): string | undefined {
  if (error instanceof ShareError || error instanceof PosixError) return error.errno
  if (error instanceof Error && 'code' in error && typeof error.code === 'string' && /^E[A-Z0-9]+$/.test(error.code)) {
    return error.code
  }
  return undefined
}

/** A one-line description of any thrown value, without a stack. */
export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error)
}

/** The shape in which an error crosses a thread or a socket. */
export interface PlainError {
  readonly code: ErrorCode
  readonly message: string
  readonly hint: string | undefined
  readonly errno: string | undefined
  readonly path: string | undefined
}

export function toPlainError(error: unknown): PlainError {
  return {
    code: error instanceof IsrfsError ? error.code : 'FAILED',
    message: messageOf(error),
    hint: error instanceof IsrfsError ? error.hint : undefined,
    errno: errnoOf(error),
    path: error instanceof ShareError ? error.path : undefined
  }
}

export function fromPlainError(plain: PlainError): IsrfsError {
  const details = plain.hint === undefined ? {} : { hint: plain.hint }
  switch (plain.code) {
    case 'FAILED':
      return new FailedError(plain.message, details)
    case 'USAGE':
      return new UsageError(plain.message, details)
    case 'LEASE_HELD':
      return new LeaseHeldError(plain.message, details)
    case 'INTEGRITY':
      return new IntegrityError(plain.message, details)
    case 'NOT_PUBLISHED':
      return new NotPublishedError(plain.message, details)
    case 'BUSY':
      return new BusyError(plain.message, details)
    case 'SHARE':
      return new ShareError(plain.errno ?? 'EIO', plain.path ?? '', plain.message, details)
    case 'FILE_SYSTEM':
      return new PosixError(plain.errno ?? 'EIO', plain.message, details)
  }
}
