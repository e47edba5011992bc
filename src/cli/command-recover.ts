/** isrfs recover: publishes, or drops, what a mount has left behind. */
import path from 'node:path'
import { discardSession, recoverSession, type RecoverRequest } from '../daemon/recover.js'
import { moment } from './figures.js'
import { directoriesOf, type GlobalOptions } from './options.js'
import { outcomeText } from './outcome.js'
import { result } from './output.js'
import { prepareDirectory } from './prerequisites.js'
import { progressView } from './progress.js'

export async function recoverCommand(
  vm: string,
  options: GlobalOptions & { readonly discard?: boolean; readonly acceptLoss?: boolean; readonly from?: string }
): Promise<void> {
  const { clientDirectory } = directoriesOf(options)
  prepareDirectory(clientDirectory, '--client-dir')
  const view = progressView()
  const request: RecoverRequest = {
    vmPath: path.resolve(vm),
    clientDirectory,
    acceptLoss: options.acceptLoss === true,
    from: options.from === undefined ? undefined : path.resolve(options.from),
    notice: (text) => view.say(text),
    onProgress: (progress) => view.show(progress)
  }
  const nothing = `nothing of ${request.vmPath} was left behind on this client`
  try {
    if (options.discard === true) {
      const created = await discardSession(request)
      view.end()
      result(created === undefined ? nothing : `the session of ${moment(created)} was dropped`)
    } else {
      const outcome = await recoverSession(request)
      view.end()
      result(outcome === undefined ? nothing : outcomeText(request.vmPath, outcome))
    }
  } finally {
    view.end()
  }
}
