import { spawn } from 'node:child_process'
import { once } from 'node:events'
import path from 'node:path'
import { fileURLToPath } from 'node:url'
import test from 'ava'
import { FailedError } from '../../src/base/errors.js'
import { DirectoryLock } from '../../src/base/file-lock.js'
import { temporaryDirectory } from '../support/make-vm.js'

const script = fileURLToPath(new URL('../support/hold-lock.js', import.meta.url))

test.serial('a lock excludes others until it is released', (t) => {
  const file = path.join(temporaryDirectory('lock'), 'lock')
  const first = DirectoryLock.tryAcquire(file)
  t.truthy(first)
  t.is(DirectoryLock.tryAcquire(file), undefined)
  first?.release()
  first?.release() // twice is once
  const second = DirectoryLock.tryAcquire(file)
  t.truthy(second)
  second?.release()
})

test.serial('another process holds it for its life, and SIGKILL lets it go', async (t) => {
  const file = path.join(temporaryDirectory('lock'), 'lock')
  const holder = spawn(process.execPath, [script, file], { stdio: ['ignore', 'pipe', 'inherit'] })
  t.teardown(() => holder.kill('SIGKILL'))
  await once(holder.stdout, 'data')
  t.is(DirectoryLock.tryAcquire(file), undefined)
  holder.kill('SIGKILL')
  await once(holder, 'exit')
  const mine = DirectoryLock.tryAcquire(file)
  t.truthy(mine)
  mine?.release()
})

test.serial('a lock that cannot be made is an error, not a lock held by another', (t) => {
  t.throws(() => DirectoryLock.tryAcquire(path.join(temporaryDirectory('lock'), 'missing', 'lock')))
  const PATH = process.env['PATH']
  process.env['PATH'] = '/nowhere'
  t.teardown(() => (process.env['PATH'] = PATH))
  const file = path.join(temporaryDirectory('lock'), 'lock')
  t.throws(() => DirectoryLock.tryAcquire(file), { instanceOf: FailedError, message: /cannot lock/ })
})
