/** INIT: what is agreed with the kernel, and why. */
import { INIT_FLAGS, PROTOCOL_MAJOR, PROTOCOL_MINOR, PROTOCOL_MINOR_MIN } from './protocol.js'

/** largest READ and WRITE: what the kernel gives at most without a sysctl, 256 pages */
export const IO_BYTES_MAX = 2 ** 20
const IO_PAGES_MAX = IO_BYTES_MAX / 4096
const BACKGROUND_REQUESTS = 64

export interface Offer {
  readonly major: number
  readonly minor: number
  readonly maxReadahead: number
  readonly flags: number
}

/** 'again': the kernel speaks a newer major version and asks once more when it has heard ours. */
export type Agreement =
  | { readonly kind: 'agreed'; readonly out: ReturnType<typeof agreedValues> }
  | { readonly kind: 'again'; readonly out: { readonly major: number; readonly minor: number } }
  | { readonly kind: 'too-old'; readonly version: string }

export function negotiate(offer: Offer, writeback: boolean): Agreement {
  if (offer.major > PROTOCOL_MAJOR) {
    return { kind: 'again', out: { major: PROTOCOL_MAJOR, minor: PROTOCOL_MINOR } }
  }
  if (offer.major < PROTOCOL_MAJOR || offer.minor < PROTOCOL_MINOR_MIN) {
    return { kind: 'too-old', version: `${offer.major}.${offer.minor}` }
  }
  return { kind: 'agreed', out: agreedValues(offer, writeback) }
}

function agreedValues(offer: Offer, writeback: boolean) {
  return {
    major: PROTOCOL_MAJOR,
    minor: Math.min(offer.minor, PROTOCOL_MINOR),
    maxReadahead: Math.max(offer.maxReadahead, IO_BYTES_MAX), // the kernel takes the smaller one; root raises it later
    flags: (wanted(writeback) & offer.flags) >>> 0,
    maxBackground: BACKGROUND_REQUESTS,
    congestionThreshold: BACKGROUND_REQUESTS * 0.75,
    maxWrite: IO_BYTES_MAX,
    timeGran: 1, // nanoseconds
    maxPages: IO_PAGES_MAX
  }
}

/**
 * Wanted, with the reason. Not wanted: AUTO_INVAL_DATA (only the kernel changes what it caches), ATOMIC_O_TRUNC and
 * HANDLE_KILLPRIV (the kernel clears set-id bits, it knows who writes), POSIX_LOCKS and FLOCK_LOCKS (the kernel keeps
 * locks of the one client itself), DONT_MASK (the kernel applies the umask), EXPORT_SUPPORT (a forgotten inode of a removed
 * file cannot be looked up by number), POSIX_ACL and the xattr extensions (there are no xattr).
 */
function wanted(writeback: boolean): number {
  return (
    INIT_FLAGS.ASYNC_READ | // several READs of one reader at once: readahead
    INIT_FLAGS.BIG_WRITES | // WRITEs of more than a page
    INIT_FLAGS.MAX_PAGES | // up to 1 MiB in one request
    INIT_FLAGS.ASYNC_DIO | // O_DIRECT at depth: requests side by side
    INIT_FLAGS.DO_READDIRPLUS | // a listing brings the attributes along
    INIT_FLAGS.READDIRPLUS_AUTO | // but only while somebody looks at them
    INIT_FLAGS.PARALLEL_DIROPS | // lookups in one directory side by side; the tree answers each in one step
    INIT_FLAGS.CACHE_SYMLINKS | // a symlink's target never changes
    INIT_FLAGS.ABORT_ERROR | // an aborted mount is told apart from an unmounted one
    (writeback ? INIT_FLAGS.WRITEBACK_CACHE : 0)
  )
}
