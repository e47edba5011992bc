/** isrfs unmount: asks the daemon, shows how far it is, names who keeps the mount busy. */
import { BusyError, FailedError, NotPublishedError } from '../base/errors.js'
import { askUnmount, GoneError } from '../daemon/control-client.js'
import type { Outcome } from '../daemon/messages.js'
import { clearDeadMount } from '../daemon/kernel-unmount.js'
import { MOUNT_TYPE, mountAt } from '../daemon/mount-table.js'
import { branchError } from '../daemon/settle.js'
import { describeHolders, findHolders } from './holders.js'
import { lifeOf, locateMountpoint } from './mountpoint.js'
import { outcomeText } from './outcome.js'
import { notice, resultAs } from './output.js'
import { progressView } from './progress.js'
import { connectToLiving, silentDaemon } from './silent-daemon.js'

export async function unmountCommand(
  given: string,
  options: { readonly verify?: boolean; readonly keepLocks?: boolean; readonly json?: boolean }
): Promise<void> {
  const mountpoint = locateMountpoint(given)
  const vm = mountAt(mountpoint)?.source ?? 'the VM'
  const socket = await connectToLiving(mountpoint)
  if (socket === undefined) throw await whyNoDaemon(mountpoint)
  const view = progressView()
  let outcome: Outcome
  try {
    outcome = await askUnmount(
      socket,
      { verify: options.verify === true, keepLocks: options.keepLocks === true },
      {
        notice: (text) => view.say(text),
        progress: (progress) => view.show(progress)
      }
    )
  } catch (error) {
    view.end()
    const isDead = error instanceof GoneError && mountAt(mountpoint)?.fileSystemType === MOUNT_TYPE
    throw isDead ? await whyNoDaemon(mountpoint) : await withHolders(error, mountpoint)
  }
  view.end()
  if (outcome.kind === 'branch') throw branchError(vm, outcome)
  resultAs(options.json, { vm, ...outcome }, () => outcomeText(vm, outcome))
}

/** No daemon answers for this path: nothing is mounted, something else is, or its daemon died. */
export async function whyNoDaemon(mountpoint: string): Promise<Error> {
  const mounted = mountAt(mountpoint)
  if (mounted?.fileSystemType !== MOUNT_TYPE) {
    return new FailedError(`${mountpoint} is not an isrfs mount`, { hint: 'isrfs status lists the mounts' })
  }
  const life = await lifeOf(mountpoint)
  if (life === 'hangs') return silentDaemon(mountpoint).error
  if (life === 'alive') {
    return new FailedError(`${mountpoint} is an isrfs mount, but its daemon cannot be reached`, {
      hint: 'it belongs to another user, or its control socket was removed; SIGTERM to the daemon ends it in an orderly way'
    })
  }
  await clearDeadMount(mountpoint)
  notice(`the daemon of ${mountpoint} is dead; the dead mount was cleared`)
  return new NotPublishedError(`the mount of ${mounted.source} ended without publishing`, {
    hint: `what was changed is safe on this client: isrfs recover ${mounted.source} (or mount it again)`
  })
}

/** A mount that is busy is kept so by somebody; any other error is returned as it is. */
export async function withHolders(error: unknown, mountpoint: string): Promise<unknown> {
  if (!(error instanceof BusyError)) return error
  const holders = await findHolders(mountpoint)
  if (holders.length === 0) {
    const hint =
      error.hint ?? 'no process of yours has it open: run it as root to see those of others, or look into containers'
    return new BusyError(error.message, { hint })
  }
  return new BusyError(`${error.message}:\n${describeHolders(holders)}`, {
    hint: 'end them (or suspend the VM), then try again'
  })
}
