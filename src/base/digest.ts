/** SHA-256, the only digest on the share. */
import { createHash } from 'node:crypto'

export const DIGEST_BYTES = 32

export function sha256(bytes: Uint8Array): Buffer {
  return createHash('sha256').update(bytes).digest()
}

export function sha256Hex(bytes: Uint8Array): string {
  return createHash('sha256').update(bytes).digest('hex')
}
