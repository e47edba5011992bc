/** isrfs recover: publishes, or drops, what a mount has left behind. */
import path from 'node:path'
import { discardSession, recoverSession, type RecoverRequest } from '../daemon/recover.js'
import { salvageSession } from '../daemon/salvage.js'
import { UsageError } from '../base/errors.js'
import { moment } from './figures.js'
import { directoriesOf, type GlobalOptions } from './options.js'
import { outcomeText, salvageText } from './outcome.js'
import { resultAs } from './output.js'
import { prepareDirectory } from './prerequisites.js'
import { progressView } from './progress.js'

export async function recoverCommand(
  given: string,
  options: GlobalOptions & {
    readonly discard?: boolean
    readonly salvage?: boolean
    readonly acceptLoss?: boolean
    readonly from?: string
    readonly json?: boolean
  }
): Promise<void> {
  const { clientDirectory } = directoriesOf(options)
  prepareDirectory(clientDirectory, '--client-dir')
  const view = progressView()
  const request: RecoverRequest = {
    vmPath: path.resolve(given),
    clientDirectory,
    acceptLoss: options.acceptLoss === true,
    from: options.from === undefined ? undefined : path.resolve(options.from),
    notice: (text) => view.say(text),
    onProgress: (progress) => view.show(progress)
  }
  const vm = request.vmPath
  const nothing = `nothing of ${request.vmPath} was left behind on this client`
  try {
    if (options.salvage === true) {
      if (options.discard === true) throw new UsageError('--salvage and --discard contradict each other')
      const salvage = await salvageSession(request)
      view.end()
      const { lost, ...found } = salvage ?? { kind: 'nothing', lost: [] }
      for (const line of lost) view.say(line)
      resultAs(options.json, { vm, ...found, ...(salvage && { lost }) }, () =>
        salvage === undefined ? nothing : salvageText(vm, salvage)
      )
    } else if (options.discard === true) {
      const created = await discardSession(request)
      view.end()
      const value = { vm, ...(created === undefined ? { kind: 'nothing' } : { kind: 'discarded', created }) }
      resultAs(options.json, value, () =>
        created === undefined ? nothing : `the session of ${moment(created)} was dropped`
      )
    } else {
      const outcome = await recoverSession(request)
      view.end()
      resultAs(options.json, { vm, ...(outcome ?? { kind: 'nothing' }) }, () =>
        outcome === undefined ? nothing : outcomeText(vm, outcome)
      )
    }
  } finally {
    view.end()
  }
}
