/** A VM in format version 1 as it was written when the version was made: every later isrfs must read it. */
import { execFileSync } from 'node:child_process'
import fs from 'node:fs'
import path from 'node:path'
import test from 'ava'
import { exportGeneration } from '../../src/commit/export.js'
import { temporaryDirectory } from '../support/make-vm.js'

test('every byte, time and name of the version 1 fixture is read', async (t) => {
  const work = temporaryDirectory('fixture')
  fs.cpSync('test/fixtures/vm-v1', path.join(work, 'vm'), { recursive: true })
  const destination = path.join(work, 'exported')
  await exportGeneration({
    vmPath: path.join(work, 'vm'),
    destination,
    onProgress: () => undefined,
    onWarning: () => undefined
  })
  const list = path.resolve('test/fixtures/vm-v1.sha256')
  t.notThrows(() => execFileSync('sha256sum', ['--check', '--quiet', list], { cwd: destination }))
  t.is(fs.readlinkSync(path.join(destination, 'link')), 'testvm.vmx')
  t.is(fs.statSync(path.join(destination, 'testvm.nvram'), { bigint: true }).mtimeNs, 1767323045123456789n)
})
