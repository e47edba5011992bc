/**
 * The campaigns of kill.test.ts and two-clients.test.ts with their share on a real NFS server that stops, comes back and is slow
 * meanwhile (test/support/nfs/campaign.py). `npm run test:long` runs it: ISRFS_NFS_CAMPAIGN_ROUNDS kills, and as many rounds.
 */
import test from 'ava'
import { NfsGuest } from '../support/nfs-guest.js'
import { Random } from '../support/random.js'

const ROUNDS = Number(process.env['ISRFS_NFS_CAMPAIGN_ROUNDS'] ?? 5)
/** a guest computes many times slower than its host */
const LIMIT_S = 600 + 120 * ROUNDS

interface Seen {
  readonly code: number
  readonly said: string
  readonly outages: { readonly stopped: number; readonly slow: number }
}

for (const [program, title] of [
  ['kill-campaign.py', 'killed at any moment'],
  ['two-clients.py', 'two client machines at random']
] as const) {
  test.serial(`on an NFS server that stops and comes back, ${title}: nothing accepted is lost`, async (t) => {
    t.timeout(2 * LIMIT_S * 1000)
    const { seed } = new Random()
    const scenario = `campaign.py ${program} ${String(ROUNDS)}`
    const { facts, log } = await new NfsGuest(seed, [scenario], LIMIT_S).seen<Seen>(scenario)
    t.log(`seed ${String(seed)}: ${facts.said}; ${JSON.stringify(facts.outages)}`)
    t.is(facts.code, 0, log)
    t.regex(facts.said, /0 violations$/)
    t.true(facts.outages.stopped > 0)
  })
}
