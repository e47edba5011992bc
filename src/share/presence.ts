/**
 * Whether a VM is where it was opened. A share that is not mounted any more (umount under a live mount, a dropped sshfs,
 * autofs) does not fail: its directory is gone, or an empty one of the local disk. Only vm.json tells that from a VM
 * without leases, generations or chunks.
 */
import * as z from 'zod'
import { IntegrityError, ShareError } from '../base/errors.js'
import { identifier } from './fields.js'
import { parseShareJson } from './json.js'

export const VM_FILE = 'vm.json'
export const VM_BYTES_MAX = 64 * 1024

const presenceSchema = z.object({ vm: identifier })

/** The id in the bytes of a vm.json. Its other fields are format/vm.ts's. */
export function vmIdOf(bytes: Buffer, what: string): string {
  try {
    return parseShareJson(bytes, presenceSchema, what).vm
  } catch (error) {
    if (!(error instanceof IntegrityError)) throw error
    throw new IntegrityError(error.message, { hint: 'isrfs check <vm> --repair makes it anew', cause: error })
  }
}

/** `found` is the id of the VM that is there instead. */
export function vmIsAway(root: string, found: string | undefined, cause?: unknown): ShareError {
  const message =
    found === undefined
      ? `there is no VM at ${root} any more: is the share mounted?`
      : `another VM is at ${root} now, ${found}: is another share mounted there?`
  return new ShareError('ENODEV', root, message, {
    hint: 'mount the share there, or, when only vm.json is gone, make it anew with isrfs check <vm> --repair',
    cause
  })
}
