/**
 * Two clients of one VM that mount, write, crash, stop, recover, break leases, roll back and prune at random, compared with a
 * model after each step (test/support/two-clients.py). ISRFS_TWO_CLIENTS_ROUNDS makes it longer.
 */
import path from 'node:path'
import test from 'ava'
import { Bed, CLI } from '../support/bed.js'
import { Random } from '../support/random.js'

const ROUNDS = Number(process.env['ISRFS_TWO_CLIENTS_ROUNDS'] ?? 8)

test('two clients at random: one history, and what was accepted is in it, in a branch, or in a session', async (t) => {
  const bed = new Bed('two-clients')
  const { seed } = new Random()
  for (const name of ['mnt-a', 'mnt-b', 'view-a', 'view-b', 'show']) bed.rememberMount(bed.path(name))
  try {
    const script = path.resolve('test/support/two-clients.py')
    const words = [script, String(seed), String(ROUNDS), bed.root, CLI]
    const { code, stdout, stderr } = await bed.command('python3', words)
    t.log(stdout.trim())
    t.is(code, 0, stderr)
    t.true(stdout.includes(`seed ${String(seed)}: ${String(ROUNDS)} rounds`), stdout)
  } finally {
    await bed.destroy()
  }
})
