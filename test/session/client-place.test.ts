/** Which directories are the same client: after a restart of the machine, after a copy. */
import fs from 'node:fs'
import path from 'node:path'
import test, { type ExecutionContext } from 'ava'
import { recoverSession } from '../../src/daemon/recover.js'
import { openClient } from '../../src/session/client.js'
import { makeVm, temporaryDirectory } from '../support/make-vm.js'

interface Kept {
  readonly directory: string
  readonly id: string
  /** changes what client.json says */
  change(values: Readonly<Record<string, unknown>>): void
}

function makeClient(t: ExecutionContext): Kept {
  const root = temporaryDirectory('client')
  t.teardown(() => fs.rmSync(root, { recursive: true }))
  const directory = path.join(root, 'client')
  const { id } = openClient(directory)
  fs.mkdirSync(path.join(directory, 'sessions', 'ab'), { recursive: true })
  const file = path.join(directory, 'client.json')
  const change = (values: Readonly<Record<string, unknown>>): void => {
    const content = JSON.parse(fs.readFileSync(file, 'utf8')) as Record<string, unknown> // an object, by client.ts
    fs.writeFileSync(file, JSON.stringify({ ...content, ...values }))
  }
  return { directory, id, change }
}

test('a client is the same one when it is opened again', (t) => {
  const { directory, id } = makeClient(t)
  t.deepEqual(openClient(directory), { id, directory, isNew: false, wasCopied: false })
})

test('another device number after a restart is the same client, with its sessions', (t) => {
  const { directory, id, change } = makeClient(t)
  for (const boot of ['an earlier boot', undefined]) {
    change({ device: '999999', boot })
    t.deepEqual(openClient(directory), { id, directory, isNew: false, wasCopied: false })
    t.true(fs.existsSync(path.join(directory, 'sessions', 'ab')))
  }
  change({ device: '999999' }) // the boot is known now: the number has to be right in it
  t.true(openClient(directory).wasCopied)
})

for (const [what, values] of Object.entries({
  machine: { machine: 'another', boot: 'another' },
  directory: { inode: '1', boot: 'another' },
  disk: { device: '999999' }
})) {
  test(`a copy on another ${what} is another client, and its sessions are set aside`, (t) => {
    const { directory, id, change } = makeClient(t)
    change(values)
    const client = openClient(directory)
    t.true(client.wasCopied)
    t.not(client.id, id)
    t.false(fs.existsSync(path.join(directory, 'sessions')))
    t.true(fs.readdirSync(directory).some((name) => name.startsWith(`sessions-of-${id}`)))
  })
}

test('recover says that it looked into a copy', async (t) => {
  const { directory, change } = makeClient(t)
  const vmPath = path.join(path.dirname(directory), 'vm')
  makeVm(vmPath, new Map())
  change({ inode: '1' })
  const notices: string[] = []
  const notice = (text: string): void => void notices.push(text)
  const outcome = await recoverSession({ vmPath, clientDirectory: directory, notice, onProgress: () => undefined })
  t.is(outcome, undefined)
  t.regex(notices[0] ?? '', /is a copy of another client/)
})
