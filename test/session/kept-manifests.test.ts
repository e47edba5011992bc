/** Copies of manifests on a client: whole or not there, bounded, and what a session needs stays. */
import fs from 'node:fs'
import path from 'node:path'
import test from 'ava'
import { sha256Hex } from '../../src/base/digest.js'
import { writeSessionFile } from '../../src/session/identity.js'
import { KEPT_MANIFESTS_MAX, keepManifest, keptManifest, neededBySession } from '../../src/session/kept-manifests.js'
import { temporaryDirectory } from '../support/make-vm.js'

const VM = 'ab'.repeat(16)

function manifest(number: number): Buffer {
  return Buffer.from(`manifest ${String(number)}`)
}

function filesOf(client: string): string[] {
  return fs.readdirSync(path.join(client, 'manifests', VM))
}

test('a copy is read only when its bytes have its digest, and a damaged one is written anew', (t) => {
  const client = temporaryDirectory('client')
  const digest = sha256Hex(manifest(1))
  t.is(keptManifest(client, VM, digest), undefined)
  keepManifest(client, VM, manifest(1))
  t.deepEqual(keptManifest(client, VM, digest), manifest(1))
  const file = path.join(client, 'manifests', VM, digest)
  t.is(fs.statSync(file).mode & 0o777, 0o600)
  t.is(fs.statSync(path.dirname(file)).mode & 0o777, 0o700)
  fs.truncateSync(file, 3)
  t.is(keptManifest(client, VM, digest), undefined)
  keepManifest(client, VM, manifest(1))
  t.deepEqual(keptManifest(client, VM, digest), manifest(1))
  t.is(keptManifest(client, 'cd'.repeat(16), digest), undefined, 'of another VM')
})

test('the copies are bounded in number; those that the session needs are never dropped', (t) => {
  const client = temporaryDirectory('client')
  const directory = path.join(client, 'sessions', VM)
  fs.mkdirSync(directory, { recursive: true })
  const digests = [1, 2, 3].map((number) => sha256Hex(manifest(number)))
  writeSessionFile(directory, {
    format: 'isrfs-session',
    version: 1,
    sessionId: 'cd'.repeat(16),
    vmId: VM,
    client: 'ef'.repeat(16),
    baseGeneration: 1,
    baseDigest: digests[0] ?? '',
    createdIso: '2026-11-23T00:00:00.000Z',
    leaseNumber: 1,
    discard: false,
    salt: 1,
    boot: 'boot',
    published: null,
    checkpoint: { generation: 2, digest: digests[1] ?? '', sequence: 1 }
  })
  t.deepEqual(
    neededBySession(client, VM).map(({ generation }) => generation),
    [1, 2]
  )
  for (let number = 1; number <= KEPT_MANIFESTS_MAX + 20; number++) {
    keepManifest(client, VM, manifest(number))
    const file = path.join(client, 'manifests', VM, sha256Hex(manifest(number)))
    fs.utimesSync(file, number, number)
  }
  const kept = filesOf(client)
  t.is(kept.length, KEPT_MANIFESTS_MAX + 2)
  t.true(kept.includes(digests[0] ?? ''))
  t.true(kept.includes(digests[1] ?? ''))
  t.false(kept.includes(digests[2] ?? ''))
  t.true(kept.includes(sha256Hex(manifest(KEPT_MANIFESTS_MAX + 20))))
})
