/** The daemon killed with SIGKILL in the middle of writes, again and again (test/support/kill-campaign.py). */
import path from 'node:path'
import test from 'ava'
import { Bed, CLI } from '../support/bed.js'
import { Random } from '../support/random.js'

const ROUNDS = Number(process.env['ISRFS_KILL_ROUNDS'] ?? 8)

test('killed in the middle of writes, round after round: accepted pages are there, others are old or new', async (t) => {
  const bed = new Bed('kill')
  const { seed } = new Random()
  t.log(`seed ${String(seed)}`)
  bed.rememberMount(bed.path('mnt'))
  try {
    const script = path.resolve('test/support/kill-campaign.py')
    const { code, stdout, stderr } = await bed.command('python3', [script, String(seed), String(ROUNDS), bed.root, CLI])
    t.is(code, 0, stderr)
    t.is(stdout.trim().split('\n').length, ROUNDS)
  } finally {
    await bed.destroy()
  }
})
