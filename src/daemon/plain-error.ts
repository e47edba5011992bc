/** Errors as they travel in messages: JSON has no undefined, so absent facts are left out and put back. */
import { fromPlainError, type IsrfsError, toPlainError } from '../base/errors.js'
import type { MessageError } from './messages.js'

export function toMessageError(error: unknown): MessageError {
  const { code, message, hint, errno, path } = toPlainError(error)
  return {
    code,
    message,
    ...(hint === undefined ? {} : { hint }),
    ...(errno === undefined ? {} : { errno }),
    ...(path === undefined ? {} : { path })
  }
}

export function fromMessageError(error: MessageError): IsrfsError {
  return fromPlainError({
    code: error.code,
    message: error.message,
    hint: error.hint,
    errno: error.errno,
    path: error.path
  })
}
