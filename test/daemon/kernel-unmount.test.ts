/** Taking a mount out of the kernel: what sync and fusermount3 say decides. */
import fs from 'node:fs'
import path from 'node:path'
import test from 'ava'
import { BusyError, FailedError } from '../../src/base/errors.js'
import { flushKernel, unmountKernel } from '../../src/daemon/kernel-unmount.js'
import { temporaryDirectory } from '../support/make-vm.js'

/** A command that says and answers what its script tells, and writes down how often it was called. */
function command(directory: string, name: string, script: string): () => number {
  const calls = path.join(directory, `${name}.calls`)
  fs.writeFileSync(path.join(directory, name), `#!/bin/sh\necho "$@" >> ${calls}\n${script}\n`, { mode: 0o755 })
  return () => (fs.existsSync(calls) ? fs.readFileSync(calls, 'utf8').trim().split('\n').length : 0)
}

const { PATH } = process.env
test.beforeEach(() => {
  process.env['PATH'] = PATH
})
test.after.always(() => {
  process.env['PATH'] = PATH
})

function shadow(name: string, script: string): () => number {
  const directory = temporaryDirectory('commands')
  const calls = command(directory, name, script)
  process.env['PATH'] = `${directory}:${String(PATH)}`
  return calls
}

test.serial('what the kernel could not write stops the unmount', async (t) => {
  const calls = shadow('sync', 'echo "sync: error syncing \'$2\': Input/output error" >&2; exit 1')
  const error = await t.throwsAsync(
    flushKernel('/mnt', () => false),
    { instanceOf: FailedError, message: /Input\/output error/ }
  )
  t.regex(error.hint ?? '', /nothing was unmounted/)
  t.is(calls(), 1)
})

test.serial(
  'a removed file that could not be told its times is overlooked, but not after a failed write',
  async (t) => {
    const stale = 'echo "sync: error syncing \'$2\': Stale file handle" >&2; exit 1'
    const calls = shadow('sync', `[ $(wc -l < "$0.calls") -ge 3 ] && exit 0; ${stale}`)
    await t.notThrowsAsync(flushKernel('/mnt', () => false))
    t.is(calls(), 3)
    shadow('sync', stale)
    await t.throwsAsync(
      flushKernel('/mnt', () => true),
      { instanceOf: FailedError }
    )
  }
)

test.serial("the kernel's word that somebody uses it decides, after a few tries", async (t) => {
  const calls = shadow('fusermount3', 'echo "fusermount3: failed to unmount $2: Device or resource busy" >&2; exit 1')
  await t.throwsAsync(unmountKernel('/mnt'), { instanceOf: BusyError })
  t.true(calls() > 1)
  shadow('fusermount3', '[ "$1" = -u ]')
  t.is(await unmountKernel('/mnt'), 'unmounted', 'never lazily')
})
