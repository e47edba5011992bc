import { execFile } from 'node:child_process'
import fs from 'node:fs'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import test from 'ava'
import { FailedError, IntegrityError, LeaseHeldError, ShareError } from '../../src/base/errors.js'
import {
  acquireLease,
  beatLease,
  breakLease,
  describeHolder,
  type LeaseHolder,
  type LeaseRecord,
  type LeaseState,
  leaseStillHeld,
  readLease,
  releaseLease
} from '../../src/share/lease.js'
import { leaseBytes } from '../../src/share/lease-record.js'
import { Share } from '../../src/share/share.js'
import { FaultyShare } from '../support/faulty-share.js'
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
  t.throws(() => breakLease(share, observed, holder('c')), { instanceOf: FailedError, message: /changed hands/ })
  t.is(acquireLease(share, holder('c')).number, 3)
})

test('old leases are removed, the newest few stay', (t) => {
  const share = new Share(temporaryDirectory('lease'))
  for (let count = 0; count < 7; count++) releaseLease(share, acquireLease(share, holder('a')), null)
  t.deepEqual(share.list('leases').sort(), ['00000004', '00000005', '00000006', '00000007'])
})

test('a client that slept while its number came and went has not won it', (t) => {
  const root = temporaryDirectory('lease')
  const others = new Share(root)
  releaseLease(others, acquireLease(others, holder('a')), null)
  let asleep = false
  const afterEachCall = (): void => {
    if (asleep || sleeper.calls.at(-1) !== 'mkdirSync') return
    asleep = true // it has seen lease 1, and is about to make lease 2
    for (let count = 0; count < 6; count++) releaseLease(others, acquireLease(others, holder('a')), null)
    acquireLease(others, holder('b'))
  }
  const sleeper = new FaultyShare(root, undefined, { afterEachCall })
  const error = t.throws(() => acquireLease(sleeper.share, holder('c')), { instanceOf: LeaseHeldError })
  t.regex(error.message, /host-b/)
  t.is(readLease(others)?.lease.number, 8)
})

test('somebody who breaks a lease that has moved on meanwhile is told, and the newer holder keeps his', (t) => {
  const share = new Share(temporaryDirectory('lease'))
  const first = acquireLease(share, holder('a'))
  const observed = readLease(share) as LeaseState
  releaseLease(share, first, generation)
  for (let count = 0; count < 6; count++) releaseLease(share, acquireLease(share, holder('a')), generation)
  const held = acquireLease(share, holder('b'))
  t.throws(() => breakLease(share, observed, holder('c')), { instanceOf: FailedError, message: /changed hands/ })
  t.true(leaseStillHeld(share, held))
})

test('a break keeps the newest generation that was known', (t) => {
  const share = new Share(temporaryDirectory('lease'))
  releaseLease(share, acquireLease(share, holder('a')), generation)
  acquireLease(share, holder('b'))
  breakLease(share, readLease(share) as LeaseState, holder('c'))
  t.deepEqual(acquireLease(share, holder('d')).generation, generation)
})

test('whatever call fails, nobody has a lease who was not told so, and the same client gets it next', (t) => {
  for (const after of [false, true]) {
    for (const errno of ['EIO', 'ESTALE', 'ETIMEDOUT', 'ENOSPC']) {
      for (let call = 1, wasReached = true; wasReached; call++) {
        const root = temporaryDirectory('lease')
        const share = new Share(root)
        releaseLease(share, acquireLease(share, holder('b')), generation)
        const faulty = new FaultyShare(root, { call, errno, after })
        try {
          t.true(leaseStillHeld(share, acquireLease(faulty.share, holder('a'))))
        } catch (error) {
          t.true(error instanceof ShareError, String(error))
        }
        wasReached = faulty.wasReached
        const held = acquireLease(share, holder('a'))
        t.deepEqual(held.generation, generation)
        t.throws(() => acquireLease(share, holder('b')), { instanceOf: LeaseHeldError })
        fs.rmSync(root, { recursive: true })
      }
    }
  }
})

test('a lease that nobody could read is not written, and one that cannot be read says how to go on', (t) => {
  const share = new Share(temporaryDirectory('lease'))
  t.throws(() => acquireLease(share, { ...holder('a'), mountpoint: 'x'.repeat(5000) }), { instanceOf: IntegrityError })
  t.is(readLease(share), undefined)
  acquireLease(share, { ...holder('a'), user: 'joe\u001b[2J' })
  t.is(readLease(share)?.lease.holder.user, 'joe?[2J', 'nothing that steers a terminal')
  fs.rmSync(share.pathOf('leases/00000001/lease.json'))
  const error = t.throws(() => readLease(share), {
    instanceOf: IntegrityError,
    message: /lease 1 of .* cannot be read/
  })
  t.regex(error.hint ?? '', /remove .*leases\/00000001/)
  share.write('leases/00000001/lease.json', Buffer.from('{"format": "isrfs-lease", "version": 9}'))
  t.is(t.throws(() => readLease(share), { instanceOf: IntegrityError, message: /version 9/ }).hint, 'use a newer isrfs')
  fs.mkdirSync(share.pathOf('leases/99999999'))
  const { format: _format, version: _version, ...lease } = sample(99_999_999)
  fs.writeFileSync(share.pathOf('leases/99999999/lease.json'), leaseBytes(lease))
  t.throws(() => acquireLease(share, holder('a')), { instanceOf: FailedError, message: /no number left/ })
})

test('a beat that is being replaced does not keep the lease from being read', (t) => {
  const root = temporaryDirectory('lease')
  const held = acquireLease(new Share(root), holder('a'))
  beatLease(new Share(root), held, 1)
  for (let call = 1, wasReached = true; wasReached; call++) {
    const faulty = new FaultyShare(root, { call, errno: 'EIO', only: 'readSync' })
    if (call === 1) t.throws(() => leaseStillHeld(faulty.share, held), { instanceOf: ShareError }, 'lease.json counts')
    else t.true(leaseStillHeld(faulty.share, held))
    wasReached = faulty.wasReached
  }
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

test('of many processes that want it at once exactly one has it, and the others know who', async (t) => {
  const script = fileURLToPath(new URL('../support/take-lease.js', import.meta.url))
  const share = new Share(temporaryDirectory('lease'))
  for (let round = 0; round < 3; round++) {
    const clients = ['a', 'b', 'c', 'd', 'e']
    const answers = await Promise.all(
      clients.map(async (client) => (await run(process.execPath, [script, share.root, client])).stdout)
    )
    const winners = clients.filter((_, index) => answers[index] === 'won\n')
    t.is(winners.length, 1, answers.join())
    const state = readLease(share) as LeaseState
    t.is(state.lease.holder.client, String(winners[0]).repeat(16))
    t.deepEqual(share.list('tmp'), [])
    breakLease(share, state, holder('f'))
  }
})

function sample(number: number): LeaseRecord {
  const taken = '2026-01-02T03:04:05.678Z'
  return {
    format: 'isrfs-lease',
    version: 1,
    number,
    token: '0'.repeat(32),
    taken,
    holder: holder('a'),
    generation: null
  }
}
