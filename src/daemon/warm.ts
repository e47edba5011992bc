/**
 * Filling this client's cache: through the daemon of a mount, or without a mount, as a reader that takes a pin and no
 * lease. Both leave what they have fetched to the next try when they are given up.
 */
import pino from 'pino'
import { Images } from '../image/images.js'
import { LOG_LIMITS } from './log-file.js'
import type { Progress, Warmed } from './messages.js'
import { abandon, openVm, type OpenedVm } from './opened-vm.js'
import type { MountRequest } from './request.js'

/** Who watches. */
export interface Warming {
  readonly onProgress: (progress: Progress) => void
  /** looked at between two steps */
  readonly isStopped: () => boolean
}

export interface WarmRequest extends Pick<
  MountRequest,
  'vmPath' | 'clientDirectory' | 'cacheDirectory' | 'cacheBytesMax'
> {
  readonly notice: (text: string) => void
}

/** Fills the cache of a mount. Rejects as image/warm.ts does. */
export async function warmMount(
  { pool }: Pick<OpenedVm, 'pool'>,
  images: Images,
  { onProgress, isStopped }: Warming
): Promise<Warmed> {
  const before = pool.counters.fetchedBytes
  const { totalBytes } = await images.warm(
    (progress) => onProgress({ phase: 'warm', ...progress, sentBytes: 0 }),
    isStopped
  )
  return { totalBytes, fetchedBytes: pool.counters.fetchedBytes - before }
}

/** Fills the cache with the newest generation, without a mount. */
export async function warmVm({ notice, ...places }: WarmRequest, warming: Warming): Promise<Warmed> {
  const request: MountRequest = {
    ...places,
    mountpoint: '(isrfs warm)',
    logFile: '/dev/null',
    log: LOG_LIMITS,
    generation: null,
    branch: null,
    readOnly: true,
    discard: false,
    allowOther: false,
    acceptRollback: false,
    writeback: true,
    trickle: false,
    transport: 'direct',
    shareTimeoutMs: null,
    metricsPort: null
  }
  const log = pino({ level: 'silent' })
  const vm = await openVm({ request, log, notice, checkpoint: () => undefined })
  try {
    const images = new Images({
      session: vm.session,
      cache: vm.cache,
      pool: vm.pool,
      onDamage: notice,
      onWarning: notice
    })
    return await warmMount(vm, images, warming)
  } finally {
    await abandon(vm)
    await vm.release()
  }
}
