/** What QEMU is told when a suspend is interrupted or fails. QEMU's side is played here; test/vmm/guest.test.ts has the real one. */
import fs from 'node:fs'
import net from 'node:net'
import os from 'node:os'
import path from 'node:path'
import { createInterface } from 'node:readline'
import anyTest, { type TestFn } from 'ava'
import type { QemuMachine } from '../../src/vmm/qemu-machine.js'
import { suspendQemu } from '../../src/vmm/qemu-run.js'

interface Context {
  root: string
  machine: QemuMachine
  told: string[]
  server: net.Server
  /** by command */
  answers: Record<string, () => object>
}

const test = anyTest as TestFn<Context>

test.beforeEach(async (t) => {
  const root = fs.mkdtempSync(path.join(os.tmpdir(), 'isrfs-test-qmp-'))
  const told: string[] = []
  const answers: Context['answers'] = {}
  const server = net.createServer((socket) => {
    socket.write('{"QMP": {}}\n')
    createInterface({ input: socket }).on('line', (line) => {
      const { execute } = JSON.parse(line) as { execute: string }
      told.push(execute)
      socket.write(`${JSON.stringify(answers[execute]?.() ?? { return: {} })}\n`)
    })
  })
  await new Promise<void>((resolve) => server.listen(path.join(root, 'qmp'), resolve))
  const machine: QemuMachine = {
    args: [],
    memoryMode: 'stream',
    memoryFile: undefined,
    memoryBytes: 4096,
    stateFile: path.join(root, 'vm.vmss'),
    noSuspend: undefined
  }
  t.context = { root, machine, told, server, answers }
})
test.afterEach.always((t) => {
  t.context.server.close()
  fs.rmSync(t.context.root, { recursive: true })
})

test('a suspend that is interrupted is cancelled, and the guest goes on', async (t) => {
  const { root, machine, told, answers } = t.context
  const interruption = new AbortController()
  let status = 'active'
  answers['query-migrate'] = () => {
    interruption.abort()
    return { return: { status } }
  }
  answers['migrate_cancel'] = () => {
    status = 'cancelled'
    return { return: {} }
  }
  await t.throwsAsync(suspendQemu(path.join(root, 'qmp'), machine, interruption.signal), {
    message: /the guest could not be suspended, and goes on: interrupted/
  })
  t.is(told.at(-1), 'cont')
  t.is(told.filter((command) => command === 'migrate_cancel').length, 1)
  t.false(told.includes('quit'))
  t.false(fs.existsSync(machine.stateFile))
})

test('a guest that goes on after a failed suspend leaves no state of an earlier one, which would not fit any more', async (t) => {
  const { root, machine, told, answers } = t.context
  fs.writeFileSync(machine.stateFile, 'QEVM: by a suspend whose caller died before it could end QEMU')
  answers['migrate'] = () => ({ error: { class: 'GenericError', desc: 'no' } })
  await t.throwsAsync(suspendQemu(path.join(root, 'qmp'), machine), { message: /goes on: QEMU refuses migrate: no/ })
  t.is(told.at(-1), 'cont')
  t.false(fs.existsSync(machine.stateFile))
})
