/** isrfs checkpoint: asks the daemon for a generation of what the mount shows; the mount goes on. */
import { askCheckpoint } from '../daemon/control-client.js'
import type { Checkpointed } from '../daemon/messages.js'
import { mountAt } from '../daemon/mount-table.js'
import { whyNoDaemon } from './command-unmount.js'
import { bytes } from './figures.js'
import { locateMountpoint } from './mountpoint.js'
import { resultAs } from './output.js'
import { progressView } from './progress.js'
import { connectToLiving } from './silent-daemon.js'

export async function checkpointCommand(given: string, options: { readonly json?: boolean }): Promise<void> {
  const mountpoint = locateMountpoint(given)
  const vm = mountAt(mountpoint)?.source ?? 'the VM'
  const socket = await connectToLiving(mountpoint)
  if (socket === undefined) throw await whyNoDaemon(mountpoint)
  const view = progressView()
  let checkpointed: Checkpointed
  try {
    checkpointed = await askCheckpoint(socket, {
      notice: (text) => view.say(text),
      progress: (progress) => view.show(progress)
    })
  } finally {
    view.end()
  }
  resultAs(options.json, { vm, ...checkpointed }, () => checkpointText(vm, checkpointed))
}

export function checkpointText(vm: string, checkpointed: Checkpointed): string {
  const generation = `generation ${String(checkpointed.generation)} of ${vm}`
  if (checkpointed.kind === 'unchanged') return `nothing was changed; ${generation} is what the mount shows`
  const { changedBytes, sentBytes, holdMs } = checkpointed
  return `${generation} is durable on the share, and the mount goes on: ${bytes(changedBytes)} changed, ${bytes(sentBytes)} sent, requests held for ${String(Math.ceil(holdMs))} ms`
}
