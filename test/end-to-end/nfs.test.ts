/**
 * The command line on a real NFS server with real NFS clients: two client machines and a server in a User-Mode-Linux guest
 * (test/support/nfs/guest), whatever this machine's own kernel can do. What happens is written in the scenarios in
 * test/support/nfs/; what must come of it stands here.
 */
import anyTest, { type ExecutionContext, type TestFn } from 'ava'
import type { StatusJson } from '../support/bed.js'
import { type Ended, NfsGuest } from '../support/nfs-guest.js'
import { Random } from '../support/random.js'

type Status = StatusJson & Record<'shareAnswers' | 'waiting' | 'lease' | 'phase', unknown>

const test = anyTest as TestFn<{ log: string }>
const { seed } = new Random()
/**
 * Booting costs as much as two commands: what goes well together shares a guest. One guest at a time, in the order of the tests: two at once
 * take twice the processor time, and no less time.
 */
const guests = [
  ['cycle.py 4.2', 'cycle.py 3', 'outage.py'],
  ['refused.py', 'lossy.py', 'kill.py'],
  ['litter.py', 'fresh.py']
].map((scenarios) => ({ scenarios, guest: new NfsGuest(seed, scenarios) }))

test.afterEach.always((t) => {
  if (!t.passed) t.log(`seed ${String(seed)}\n${t.context.log}`)
})

async function run<Facts>(t: ExecutionContext<{ log: string }>, scenario: string): Promise<Facts> {
  t.context.log = ''
  const found = guests.find(({ scenarios }) => scenarios.includes(scenario))
  if (!found) throw new Error(`no guest runs ${scenario}`)
  const { facts, log } = await found.guest.seen<Facts>(scenario)
  t.context.log = log
  return facts
}

for (const version of ['4.2', '3']) {
  test.serial(
    `NFSv${version}: what one client publishes, the other resumes at once; it is refused before`,
    async (t) => {
      const { refused, unmounted, unmountedAgain, ...facts } = await run<{
        refused: Ended
        unmounted: Ended
        unmountedAgain: Ended
        asImported: boolean
        onTheOther: boolean
        exported: boolean
      }>(t, `cycle.py ${version}`)
      t.is(refused.code, 3)
      t.regex(refused.text, /is in use: host a, .*mounted at \/scratch\/a\/mnt/)
      t.regex(refused.text, /suspend it there/)
      t.is(unmounted.code, 0)
      t.regex(unmounted.text, /generation 2 of .* is durable/)
      t.is(unmountedAgain.code, 0)
      t.regex(unmountedAgain.text, /generation 3 of .* is durable/)
      t.deepEqual(facts, { asImported: true, onTheOther: true, exported: true })
    }
  )
}

test.serial('the server stops and comes back: reads, the lease and a commit wait and go on', async (t) => {
  const seen = await run<{
    whileAway: Status
    statusText: Ended
    presentReads: boolean
    readerWaits: boolean
    absentReads: boolean
    afterwards: Status
    refused: Ended
    generationsMeanwhile: string[]
    whileCommitting: Status
    commitWaits: boolean
    unmounted: Ended
    published: boolean
  }>(t, 'outage.py')
  t.like(seen.whileAway, { state: 'mounted', shareAnswers: false, lease: 'held' })
  t.regex(seen.statusText.text, /share +does not answer/)
  t.regex(seen.statusText.text, /waiting +\S.*\(\d+ s\)/)
  t.true(seen.presentReads, 'what is present is served')
  t.true(seen.readerWaits, 'what is not present waits')
  t.true(seen.absentReads, 'and comes when the server is back')
  t.like(seen.afterwards, { state: 'mounted', shareAnswers: true, lease: 'held', damagedBlocks: 0 })
  t.is(seen.refused.code, 3)

  t.like(seen.whileCommitting, { state: 'committing', phase: 'upload', shareAnswers: false })
  t.true(seen.commitWaits)
  t.deepEqual(seen.generationsMeanwhile, ['00000001'])
  t.is(seen.unmounted.code, 0)
  t.true(seen.published)
})

test.serial(
  'a share that is read-only, full or not exported at unmount: exit 5 says why, and recover publishes it all',
  async (t) => {
    const { published, ...seen } = await run<
      { published: boolean } & Record<'readOnly' | 'full' | 'unexported', { unmounted: Ended; recovered: Ended }>
    >(t, 'refused.py')
    const reasons = {
      readOnly: /the share is read-only/,
      full: /the share is full/,
      unexported: /permission denied|stale file handle/
    }
    t.deepEqual(Object.keys(seen), Object.keys(reasons))
    for (const fault of ['readOnly', 'full', 'unexported'] as const) {
      const { unmounted, recovered } = seen[fault]
      t.is(unmounted.code, 5, fault)
      t.regex(unmounted.text, reasons[fault])
      t.regex(unmounted.text, /the changes are safe on this client; .*isrfs recover \/scratch\/a\/share-4\.2\/refused/)
      t.is(recovered.code, 0, fault)
      t.regex(recovered.text, /found the session that was left behind/)
    }
    t.true(published)
  }
)

test.serial('a slow network that loses packets changes nothing but the time', async (t) => {
  const seen = await run<{ unmounted: Ended; published: boolean; lostPackets: number }>(t, 'lossy.py')
  t.is(seen.unmounted.code, 0)
  t.true(seen.published)
  t.true(seen.lostPackets > 0)
})

test.serial(
  'the daemon killed in the middle of writes: the next mount goes on, another client gets everything',
  async (t) => {
    const seen = await run<{
      accepted: number
      mountedAgain: Ended
      acceptedIsThere: boolean
      unmounted: Ended
      published: boolean
    }>(t, 'kill.py')
    t.true(seen.accepted > 0)
    t.is(seen.mountedAgain.code, 0)
    t.regex(seen.mountedAgain.text, /found the session that was left behind/)
    t.true(seen.acceptedIsThere)
    t.is(seen.unmounted.code, 0)
    t.true(seen.published)
  }
)

test.serial('files that others have open while they are removed (.nfsXXXX) disturb no command', async (t) => {
  const seen = await run<{
    littered: number
    unmounted: Ended
    generations: string[]
    check: Ended
    pruned: Ended[]
    litteredMore: number
    generationsLeft: string[]
    published: boolean
    checkAtLast: Ended
  }>(t, 'litter.py')
  t.true(seen.littered > 5)
  t.is(seen.unmounted.code, 0)
  t.deepEqual(seen.generations, ['3', '2', '1'])
  t.is(seen.check.code, 0)
  t.deepEqual(
    seen.pruned.map(({ code }) => code),
    [0, 0]
  )
  t.regex(seen.pruned[0]?.text ?? '', /removed generations 1, 2; .*deleted [1-9]/)
  t.true(seen.litteredMore > seen.littered, 'what prune removed was open')
  t.deepEqual(seen.generationsLeft, ['3', '2 pruned', '1 pruned'])
  t.true(seen.published)
  t.is(seen.checkAtLast.code, 0)
})

test.serial('of two mounts at once one wins, and the loser sees at once what the winner does', async (t) => {
  const seen = await run<{
    mounts: Ended[]
    broken: Ended
    generationsBefore: string[]
    resumed: Ended
    unmounted: Ended
    generationsLeft: string[]
    pruned: Ended
    leases: string[][]
  }>(t, 'fresh.py')
  t.deepEqual(seen.mounts.map(({ code }) => code).sort(), [0, 3])
  t.is(seen.broken.code, 3)
  t.regex(seen.broken.text, /the holder of the lease lives/)
  t.deepEqual(seen.generationsBefore, ['1'])
  t.is(seen.resumed.code, 0)
  t.regex(seen.resumed.text, /generation 2 of .* is mounted/)
  t.is(seen.unmounted.code, 0)
  t.deepEqual(seen.generationsLeft, ['3', '2 pruned', '1 pruned'])
  t.is(seen.pruned.code, 1)
  t.regex(seen.pruned.text, /generation 1 of .* was pruned/)
  for (const both of seen.leases) t.deepEqual(both, ['lost', 'won'])
})
