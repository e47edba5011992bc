/** isrfs qemu: runs QEMU on the machine that a directory describes, or suspends the one that runs on it. */
import fs from 'node:fs'
import path from 'node:path'
import { FailedError } from '../base/errors.js'
import { createSocketPath, findSockets, surroundings } from '../daemon/socket-path.js'
import { findDisks } from '../vmm/disks.js'
import { qemuMachine, type QemuMachine } from '../vmm/qemu-machine.js'
import { powerDownQemu, runQemu, suspendQemu } from '../vmm/qemu-run.js'
import { isListening } from '../vmm/qmp.js'
import { findVmx, plainFiles } from '../vmm/vm-files.js'
import { notice, result } from './output.js'

export interface QemuOptions {
  readonly suspend?: boolean
  readonly powerDown?: boolean
  readonly isRunning?: boolean
  readonly accel: string
}

export async function qemuCommand(given: string, extraArgs: readonly string[], options: QemuOptions): Promise<void> {
  const directory = path.resolve(given)
  const running = await findRunning(directory)
  if (options.isRunning === true) {
    if (running === undefined) throw new FailedError(`no QEMU runs on ${directory}`)
    return
  }
  if (options.suspend === true || options.powerDown === true) {
    if (running === undefined) throw new FailedError(`no QEMU that isrfs started runs on ${directory}`)
    if (options.powerDown === true) {
      await powerDownQemu(running)
      notice('the guest was asked to power off')
    } else {
      await suspendQemu(running, await machineOf(directory, options), interruption())
      result(`the guest is suspended in ${directory}`)
    }
    return
  }
  if (running !== undefined) {
    throw new FailedError(`a QEMU runs on ${directory} already`, {
      hint: `isrfs qemu ${directory} --suspend suspends its guest`
    })
  }
  await run(directory, extraArgs, options)
}

/** A socket that is left of a QEMU that was killed does not count. */
async function findRunning(directory: string): Promise<string | undefined> {
  for (const socketPath of findSockets(directory, surroundings(), 'qmp')) {
    if (await isListening(socketPath)) return socketPath
  }
  return undefined
}

async function run(directory: string, extraArgs: readonly string[], options: QemuOptions): Promise<void> {
  const machine = await machineOf(directory, options)
  const socketPath = createSocketPath(directory, surroundings(), 'qmp')
  const end = await runQemu({ machine, socketPath, extraArgs, say: notice, signal: interruption() })
  result(end === 'suspended' ? `the guest is suspended in ${directory}` : `the guest of ${directory} was powered off`)
}

/** From here on ^C does not end this process. */
function interruption(): AbortSignal {
  const controller = new AbortController()
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, () => controller.abort())
  return controller.signal
}

async function machineOf(directory: string, { accel }: QemuOptions): Promise<QemuMachine> {
  if (fs.statSync(directory, { throwIfNoEntry: false })?.isDirectory() !== true) {
    throw new FailedError(`${directory} is not a directory`, {
      hint: 'name the directory of a VM, normally a mount of isrfs'
    })
  }
  const files = plainFiles(directory)
  const found = await findVmx(files)
  const hasDisplay = ['DISPLAY', 'WAYLAND_DISPLAY'].some((name) => (process.env[name] ?? '') !== '')
  return qemuMachine({ directory, found, disks: await findDisks(files, found.vmx), accelerators: accel, hasDisplay })
}
