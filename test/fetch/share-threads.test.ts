/** Threads that are prepared before the pool that will use them. */
import test from 'ava'
import { MOUNT_THREADS, prepareShareThreads, startShareThreads } from '../../src/fetch/share-threads.js'

test('prepared threads are taken once, and only by a mount of their VM', async (t) => {
  prepareShareThreads('/export/one')
  const other = startShareThreads('/export/other', MOUNT_THREADS)
  const recovery = startShareThreads('/export/one', 1)
  const mount = startShareThreads('/export/one', MOUNT_THREADS)
  const second = startShareThreads('/export/one', MOUNT_THREADS)
  const pools = [other, recovery, mount, second]
  t.is(new Set(pools).size, pools.length)
  t.is(recovery.maxThreads, 3)
  t.is(mount.maxThreads, MOUNT_THREADS + 2)
  await Promise.all(pools.map((pool) => pool.destroy()))
})
