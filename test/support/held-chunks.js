/**
 * Preloaded into isrfs (node --import): no thread of `recover` can put a chunk in its place before the file exists that
 * ISRFS_TEST_GO names. The other threads go on.
 */
import fs from 'node:fs'
import { isMainThread } from 'node:worker_threads'

const go = process.env.ISRFS_TEST_GO
const { renameSync, existsSync } = fs

if (!isMainThread && go !== undefined) {
  fs.renameSync = (from, to) => {
    const clock = new Int32Array(new SharedArrayBuffer(4))
    while (String(to).includes('/chunks/') && !existsSync(go)) Atomics.wait(clock, 0, 0, 50)
    renameSync(from, to)
  }
}
