/**
 * The daemon's process after main.ts: its request comes as JSON. Tells the command line over IPC how the start goes, then lives
 * on its own until the mount has ended.
 */
import { EXIT_CODES, IsrfsError } from '../base/errors.js'
import { removals } from '../base/remove-later.js'
import { takeDownInherited } from '../fuse/direct/mounting.js'
import type { StartMessage } from './messages.js'
import { toMessageError } from './plain-error.js'
import { parseMountRequest } from './request.js'
import { runMount } from './run.js'
import { endProcess } from './share-threads.js'
import { GIVE_UP, StartGate } from './start-gate.js'

const gate = new StartGate()

process.on('disconnect', () => gate.giveUp())
if (process.send !== undefined && !process.connected) gate.giveUp() // while this was loaded
// an orderly end when the mount is ready already
process.on('message', (message) => {
  if (message === GIVE_UP) process.kill(process.pid, 'SIGTERM')
})
for (const signal of ['SIGTERM', 'SIGINT'] as const) process.on(signal, () => gate.giveUp())

let mountpoint = ''
try {
  const request = parseMountRequest(process.argv[2])
  mountpoint = request.mountpoint
  process.title = `isrfs-daemon ${request.vmPath} ${request.mountpoint}`
  await runMount(
    request,
    {
      notice: (text) => void tell({ kind: 'notice', text }),
      ready: (ready) => void tell({ kind: 'ready', ...ready })
    },
    gate
  )
  process.title = 'isrfs-daemon (unmounted, removes files)'
  for (const signal of ['SIGTERM', 'SIGINT'] as const) process.on(signal, () => endProcess(0)) // the next mount goes on
  await removals()
  endProcess(0)
} catch (error) {
  await takeDownInherited(mountpoint)
  await tell({ kind: 'failed', error: toMessageError(error) })
  endProcess(error instanceof IsrfsError ? EXIT_CODES[error.code] : 1)
}

/** Resolves when the command line has it, or is not there any more. */
function tell(message: StartMessage): Promise<void> {
  return new Promise((resolve) => {
    if (process.send === undefined || !process.connected) resolve()
    else process.send(message, undefined, undefined, () => resolve())
  })
}
