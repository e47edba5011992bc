import { execFile } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import test from 'ava'
import { FailedError, IntegrityError, LeaseHeldError } from '../../src/base/errors.js'
import {
  acquireLease,
  beatLease,
  breakLease,
  describeHolder,
  type LeaseHolder,
  leaseStillHeld,
  readLease,
  releaseLease
} from '../../src/share/lease.js'
import { Share } from '../../src/share/share.js'
import { temporaryDirectory } from '../support/make-vm.js'

const run = promisify(execFile)
const holder = (client: string): LeaseHolder => ({
  client: client.repeat(16),
  host: `host-${client}`,
  user: 'joe',
  pid: 7,
  boot: 'b',
  mountpoint: `/mnt/${client}`
})
const generation = { number: 3, digest: 'cd'.repeat(32) }

test('a lease is held by one client until it is given back, and names the newest generation for the next', (t) => {
  const share = new Share(temporaryDirectory('lease'))
  t.is(readLease(share), undefined)
  const first = acquireLease(share, holder('a'))
  t.is(first.number, 1)
  t.is(first.generation, null)
  const error = t.throws(() => acquireLease(share, holder('b')), { instanceOf: LeaseHeldError })
  t.regex(error.message, /host-a.*\/mnt\/a/)
  t.true(beatLease(share, first, 1))
  const state = readLease(share)
  t.is(state?.beat?.count, 1)
  if (state !== undefined) t.regex(describeHolder(state), /last sign of life/)
  releaseLease(share, first, generation)
  t.false(leaseStillHeld(share, first))
  const second = acquireLease(share, holder('b'))
  t.deepEqual([second.number, second.generation, second.takenBack], [2, generation, undefined])
})

test('the client that holds it takes it back; the earlier one stops counting', (t) => {
  const share = new Share(temporaryDirectory('lease'))
  const first = acquireLease(share, holder('a'))
  const second = acquireLease(share, holder('a'))
  t.is(second.takenBack, first.number)
  t.false(leaseStillHeld(share, first))
  t.false(beatLease(share, first, 2))
  releaseLease(share, first, null)
  t.true(leaseStillHeld(share, second), 'an old holder cannot release what is not its own')
})

test('a broken lease is free, its holder finds out, and who broke it is kept', (t) => {
  const share = new Share(temporaryDirectory('lease'))
  const first = acquireLease(share, holder('a'))
  const observed = readLease(share)
  if (observed === undefined) throw new Error('no lease')
  breakLease(share, observed, holder('b'))
  t.false(leaseStillHeld(share, first))
  t.regex(readLease(share)?.released?.who ?? '', /joe@host-b, from host-a/)
  t.throws(
    () => {
      breakLease(share, observed, holder('c'))
    },
    { instanceOf: FailedError, message: /changed hands/ }
  )
  t.is(acquireLease(share, holder('c')).number, 3)
})

test('old leases are removed, the newest few stay', (t) => {
  const share = new Share(temporaryDirectory('lease'))
  for (let count = 0; count < 7; count++) releaseLease(share, acquireLease(share, holder('a')), null)
  t.deepEqual(share.list('leases').sort(), ['00000004', '00000005', '00000006', '00000007'])
})

test('a damaged lease is an error, a damaged beat is not', (t) => {
  const share = new Share(temporaryDirectory('lease'))
  const first = acquireLease(share, holder('a'))
  share.write('leases/00000001/beat.json', Buffer.from('{'))
  t.true(leaseStillHeld(share, first))
  share.write('leases/00000001/lease.json', Buffer.from('{"number": 1}'))
  t.throws(() => readLease(share), { instanceOf: IntegrityError, message: /damaged/ })
  share.write('leases/00000001/lease.json', Buffer.from('['))
  t.throws(() => readLease(share), { instanceOf: IntegrityError, message: /not JSON/ })
})

test('of many processes that want it at once exactly one has it', async (t) => {
  const script = fileURLToPath(new URL('../support/take-lease.js', import.meta.url))
  for (let round = 0; round < 3; round++) {
    const share = new Share(temporaryDirectory('lease'))
    const answers = await Promise.all(
      ['a', 'b', 'c', 'd'].map((client) => run(process.execPath, [script, share.root, client]))
    )
    t.is(answers.filter(({ stdout }) => stdout.startsWith('won')).length, 1)
  }
})
