/**
 * SIGKILL in the middle of writes, mount, unmount, recover and checkpoint, again and again (test/support/kill-campaign.py).
 * ISRFS_KILL_ROUNDS kills are shared out among ISRFS_KILL_WORKERS campaigns at a time, each with a seed and a bed of its own.
 */
import path from 'node:path'
import test from 'ava'
import { Bed, CLI } from '../support/bed.js'
import { Random } from '../support/random.js'

const ROUNDS = Number(process.env['ISRFS_KILL_ROUNDS'] ?? 4)
const WORKERS = Number(process.env['ISRFS_KILL_WORKERS'] ?? 1)

test('killed at any moment, round after round: accepted pages are there, others are old or new', async (t) => {
  const { seed } = new Random()
  await Promise.all(
    Array.from({ length: WORKERS }, async (_, worker) => {
      const bed = new Bed(`kill-${String(worker)}`)
      bed.rememberMount(bed.path('mnt'))
      try {
        const script = path.resolve('test/support/kill-campaign.py')
        const rounds = Math.ceil(ROUNDS / WORKERS)
        const { code, stdout, stderr } = await bed.command('python3', [
          script,
          String(seed + worker),
          String(rounds),
          bed.root,
          CLI
        ])
        t.log(stdout.trim())
        t.is(code, 0, stderr)
        t.true(stdout.includes(`seed ${String(seed + worker)}: ${String(rounds)} kills`), stdout)
      } finally {
        await bed.destroy()
      }
    })
  )
})
