/** What a mount is asked to be: made by the command line, checked by the daemon, written to its log. Paths are absolute. */
import * as z from 'zod'
import { FailedError } from '../base/errors.js'

const mountRequestSchema = z.object({
  /** directory of the VM on the share */
  vmPath: z.string().startsWith('/'),
  mountpoint: z.string().startsWith('/'),
  clientDirectory: z.string().startsWith('/'),
  cacheDirectory: z.string().startsWith('/'),
  logFile: z.string().startsWith('/'),
  /** how much of it is kept */
  log: z.object({ bytesMax: z.number().int().positive(), filesMax: z.number().int().positive() }),
  /** null: the newest */
  generation: z.number().int().positive().nullable(),
  /** the beginning of a branch's name; null: no branch */
  branch: z.string().max(64).nullable(),
  readOnly: z.boolean(),
  /** writable, never published */
  discard: z.boolean(),
  allowOther: z.boolean(),
  /** show a newest generation that is older than what this client has seen */
  acceptRollback: z.boolean(),
  writeback: z.boolean(),
  /** send changes that are quiet while the mount lasts */
  trickle: z.boolean(),
  /** which way to the kernel */
  transport: z.enum(['binding', 'direct']),
  /** where metrics are served on the loopback address; null: nowhere */
  metricsPort: z.number().int().min(0).max(65_535).nullable(),
  /** how long reads of files that nobody writes or maps wait for the share; null: as long as it takes */
  shareTimeoutMs: z.number().positive().nullable(),
  cacheBytesMax: z.number().int().positive()
})

export type MountRequest = Readonly<z.infer<typeof mountRequestSchema>>

/** `text`: a MountRequest as JSON. Throws FailedError when it is none. */
export function parseMountRequest(text: string | undefined): MountRequest {
  try {
    return mountRequestSchema.parse(JSON.parse(text ?? ''))
  } catch (error) {
    throw new FailedError('the daemon was started without a valid request; it is started by: isrfs mount', {
      cause: error
    })
  }
}

/** Only a mount that may publish takes the lease and the VM's own session. */
export function mayPublish(request: MountRequest): boolean {
  return !request.readOnly && !request.discard
}
