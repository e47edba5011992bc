/**
 * Runs QEMU on a VM's directory from start to end, and suspends it there.
 *
 *     no state file --start--> runs --quit, power off--> ended
 *     state file --take it in, remove it, continue--> runs --suspend: stop, state to a temporary name, sync, rename, quit--> suspended
 *
 * Invariant: a state file is there only while memory and disks are exactly what they were when it was written. So it is removed before
 * the guest goes on, and appears under its name only when it is complete.
 */
import { type ChildProcess, spawn } from 'node:child_process'
import fs from 'node:fs'
import { FailedError, messageOf } from '../base/errors.js'
import { pause, Qmp, textIn } from './qmp.js'

import type { QemuMachine } from './qemu-machine.js'

const PROGRAM = 'qemu-system-x86_64'
const PAUSE_MS = 20
const PARTIAL = '.partial'
/** Of QEMU's migration streams (migration/savevm.c, QEMU_VM_FILE_MAGIC). */
const STATE_MAGIC = 'QEVM'

export interface QemuRun {
  readonly machine: QemuMachine
  /** where it shall listen for `suspend`; the directory exists */
  readonly socketPath: string
  readonly extraArgs: readonly string[]
  readonly say: (text: string) => void
  /** ends the run with a suspend, or, where that is impossible, asks the guest to power off */
  readonly signal: AbortSignal
}

export type QemuEnd = 'ended' | 'suspended'

/** Resolves when QEMU has ended in an orderly way; throws FailedError when it could not start, or died. */
export async function runQemu(run: QemuRun): Promise<QemuEnd> {
  const { machine, socketPath, say } = run
  const isSuspended = checkState(machine)
  if (!isSuspended) prepareMemory(machine)
  fs.rmSync(socketPath, { force: true })
  const qemu = start(run, isSuspended)
  try {
    if (isSuspended) await takeIn(run, qemu)
    say(isSuspended ? 'the guest goes on where it was suspended' : 'the guest is starting')
    const stop = (): void => void stopRunning(run)
    run.signal.addEventListener('abort', stop, { once: true })
    if (run.signal.aborted) stop()
    await qemu.ended
    run.signal.removeEventListener('abort', stop)
  } catch (error) {
    if (!qemu.isGone()) qemu.child.kill('SIGTERM')
    await qemu.ended.catch(() => undefined)
    throw error
  } finally {
    fs.rmSync(socketPath, { force: true })
  }
  return fs.existsSync(machine.stateFile) ? 'suspended' : 'ended'
}

/** Suspends the guest of the QEMU that listens at `socketPath`, which then ends. When that fails, or is given up, the guest goes on. */
export async function suspendQemu(socketPath: string, machine: QemuMachine, giveUp?: AbortSignal): Promise<void> {
  if (machine.noSuspend !== undefined) {
    throw new FailedError(machine.noSuspend, {
      hint: 'shut the guest down instead; docs/qemu.md says how to convert the disk'
    })
  }
  const qmp = await Qmp.connect(socketPath)
  if (qmp === undefined) throw new FailedError('no QEMU listens there')
  try {
    await qmp.run('stop')
    try {
      await writeState(qmp, machine, giveUp)
    } catch (error) {
      // also the state itself: an earlier call may have ended between writing it and ending QEMU
      for (const file of [`${machine.stateFile}${PARTIAL}`, machine.stateFile]) fs.rmSync(file, { force: true })
      await qmp.run('cont').catch(() => undefined)
      throw new FailedError(`the guest could not be suspended, and goes on: ${messageOf(error)}`, { cause: error })
    }
    await qmp.runLast('quit')
  } finally {
    qmp.close()
  }
}

/** As the button of a real machine: the guest decides. */
export async function powerDownQemu(socketPath: string): Promise<void> {
  const qmp = await Qmp.connect(socketPath)
  if (qmp === undefined) throw new FailedError('no QEMU listens there')
  try {
    await qmp.run('system_powerdown')
  } finally {
    qmp.close()
  }
}

async function writeState(qmp: Qmp, machine: QemuMachine, giveUp: AbortSignal | undefined): Promise<void> {
  const partial = `${machine.stateFile}${PARTIAL}`
  await chooseMemory(qmp, machine)
  await qmp.run('migrate', { uri: `exec:cat > ${quoted(partial)}` })
  let isCancelling = false
  for (;;) {
    const answer = await qmp.run('query-migrate')
    const status = textIn(answer, 'status')
    if (status === 'completed') break
    if (giveUp?.aborted === true && !isCancelling) {
      isCancelling = true
      await qmp.run('migrate_cancel')
    }
    if (status === 'cancelled' && isCancelling) throw new FailedError('interrupted')
    if (status === 'failed' || status === 'cancelled') throw new FailedError(textIn(answer, 'error-desc') || status)
    await pause(PAUSE_MS)
  }
  if (giveUp?.aborted === true) throw new FailedError('interrupted')
  if (machine.memoryFile !== undefined) sync(machine.memoryFile)
  sync(partial)
  if (readMagic(partial) !== STATE_MAGIC) throw new FailedError(`${partial} was not written`)
  fs.renameSync(partial, machine.stateFile)
}

/** Without this QEMU would put the memory, which is a file of its own, into the state too. */
async function chooseMemory(qmp: Qmp, machine: QemuMachine): Promise<void> {
  if (machine.memoryFile !== undefined) {
    await qmp.run('migrate-set-capabilities', { capabilities: [{ capability: 'x-ignore-shared', state: true }] })
  } else {
    await qmp.run('migrate-set-parameters', { 'max-bandwidth': 0 })
  }
}

interface Running {
  readonly child: ChildProcess
  readonly ended: Promise<void>
  readonly isGone: () => boolean
}

/** In a process group of its own: Ctrl-C at the terminal must reach the caller, which suspends, not QEMU, which would just end. */
function start({ machine, socketPath, extraArgs }: QemuRun, isSuspended: boolean): Running {
  const args = [...machine.args, '-qmp', `unix:${socketPath.replaceAll(',', ',,')},server=on,wait=off`]
  if (isSuspended) args.push('-incoming', 'defer')
  const child = spawn(PROGRAM, [...args, ...extraArgs], { detached: true, stdio: ['ignore', 'inherit', 'inherit'] })
  let gone = false
  const ended = new Promise<void>((resolve, reject) => {
    child.once('error', (error) => {
      gone = true
      const missing = 'code' in error && error.code === 'ENOENT'
      reject(
        new FailedError(missing ? `${PROGRAM} is not installed` : messageOf(error), {
          hint: 'apt-get install qemu-system-x86',
          cause: error
        })
      )
    })
    child.once('exit', (code, signal) => {
      gone = true
      if (code === 0) resolve()
      else {
        reject(
          new FailedError(
            `QEMU ended with ${signal ?? `exit code ${String(code)}`}; what its guest wrote until then is there`,
            {
              hint: 'start it again, as after a power cut; where /dev/kvm is there and does not work, with --accel tcg'
            }
          )
        )
      }
    })
  })
  ended.catch(() => undefined) // awaited by the caller, perhaps later
  return { child, ended, isGone: () => gone }
}

async function takeIn({ machine, socketPath }: QemuRun, qemu: Running): Promise<void> {
  const qmp = await Qmp.connect(socketPath, qemu.isGone)
  if (qmp === undefined) {
    await qemu.ended
    throw new FailedError('QEMU does not answer')
  }
  try {
    await chooseMemory(qmp, machine)
    await qmp.run('migrate-incoming', { uri: `exec:cat ${quoted(machine.stateFile)}` })
    let status = await qmp.status()
    while (status === 'inmigrate') {
      await pause(PAUSE_MS)
      status = await qmp.status()
    }
    fs.rmSync(machine.stateFile)
    await qmp.run('cont')
  } catch (error) {
    throw new FailedError(`QEMU could not resume the guest: ${messageOf(error)}`, {
      hint: `the suspended state is untouched (${machine.stateFile}); it needs the QEMU version and processor features with which it was written`,
      cause: error
    })
  } finally {
    qmp.close()
  }
}

async function stopRunning({ machine, socketPath, say }: QemuRun): Promise<void> {
  try {
    if (machine.noSuspend === undefined) {
      say('suspending the guest')
      await suspendQemu(socketPath, machine)
    } else {
      say(`${machine.noSuspend}; asking the guest to power off`)
      await powerDownQemu(socketPath)
    }
  } catch (error) {
    say(messageOf(error))
  }
}

/** Whether a guest is suspended here. A state that somebody else wrote is not touched. */
function checkState(machine: QemuMachine): boolean {
  fs.rmSync(`${machine.stateFile}${PARTIAL}`, { force: true })
  const magic = readMagic(machine.stateFile)
  if (magic === undefined) return false
  if (magic !== STATE_MAGIC) {
    throw new FailedError(`${machine.stateFile} was not written by QEMU: the VM was suspended by another VMM`, {
      hint: 'resume it there and shut the guest down; or remove the file, which is as pulling the plug of the guest'
    })
  }
  if (
    machine.memoryFile !== undefined &&
    fs.statSync(machine.memoryFile, { throwIfNoEntry: false })?.size !== machine.memoryBytes
  ) {
    throw new FailedError(`${machine.memoryFile} is missing or does not have the size of the guest's memory`, {
      hint: `mend memsize in the .vmx; or remove ${machine.stateFile}, which is as pulling the plug of the guest`
    })
  }
  return true
}

/** The guest starts with memory of zeros, which costs no transfer. */
function prepareMemory(machine: QemuMachine): void {
  if (machine.memoryFile !== undefined) fs.rmSync(machine.memoryFile, { force: true })
}

function readMagic(file: string): string | undefined {
  let descriptor: number
  try {
    descriptor = fs.openSync(file, 'r')
  } catch {
    return undefined
  }
  try {
    const bytes = Buffer.alloc(STATE_MAGIC.length)
    fs.readSync(descriptor, bytes, 0, bytes.length, 0)
    return bytes.toString('latin1')
  } finally {
    fs.closeSync(descriptor)
  }
}

function sync(file: string): void {
  const descriptor = fs.openSync(file, 'r+')
  try {
    fs.fsyncSync(descriptor)
  } finally {
    fs.closeSync(descriptor)
  }
}

/** For the shell that QEMU's `exec:` runs. */
function quoted(file: string): string {
  return `'${file.replaceAll("'", "'\\''")}'`
}
