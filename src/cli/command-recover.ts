/** isrfs recover: publishes, or drops, what a mount has left behind. */
import path from 'node:path'
import { UsageError } from '../base/errors.js'
import type { Dropped } from '../daemon/discard-left-over.js'
import { discardSession, recoverSession, type RecoverRequest } from '../daemon/recover.js'
import { salvageSession } from '../daemon/salvage.js'
import { bytes, moment } from './figures.js'
import { directoriesOf, type GlobalOptions } from './options.js'
import { outcomeText, salvageText } from './outcome.js'
import { resultAs } from './output.js'
import { prepareDirectory } from './prerequisites.js'
import { progressView } from './progress.js'

/** of what is dropped */
const FILES_NAMED_MAX = 8

export async function recoverCommand(
  given: string,
  options: GlobalOptions & {
    readonly discard?: boolean
    readonly salvage?: boolean
    readonly acceptLoss?: boolean
    readonly acceptRollback?: boolean
    readonly from?: string
    readonly json?: boolean
  }
): Promise<void> {
  if (options.discard === true && options.from !== undefined) {
    throw new UsageError('--discard drops the session of this client, and --from names another one', {
      hint: `one that was set aside is dropped by removing it: rm -r ${path.resolve(options.from)}`
    })
  }
  const { clientDirectory, cacheDirectory } = directoriesOf(options)
  prepareDirectory(clientDirectory, '--client-dir')
  const view = progressView()
  const request: RecoverRequest = {
    vmPath: path.resolve(given),
    clientDirectory,
    cacheDirectory,
    acceptLoss: options.acceptLoss === true,
    acceptRollback: options.acceptRollback === true,
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
      const dropped = await discardSession(request, (what) => view.say(dropText(vm, what)))
      view.end()
      resultAs(options.json, { vm, ...(dropped === undefined ? { kind: 'nothing' } : droppedJson(dropped)) }, () =>
        dropped === undefined ? nothing : `the session of ${moment(dropped.created)} was dropped`
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

function droppedJson({ created, generation, changedBytes, changedFiles }: Dropped): object {
  return { kind: 'discarded', created, generation, changedBytes, changedFiles: changedFiles?.length ?? null }
}

/** What is lost, said before it is. */
function dropText(vm: string, dropped: Dropped): string {
  const { created, generation, changedBytes, changedFiles, published, damage } = dropped
  const since = created === 'unknown' ? 'of an unknown time' : `since ${moment(created)}`
  const based = generation === null ? '' : `, based on generation ${String(generation)}`
  const size = changedBytes === null ? 'an unknown number of bytes' : bytes(changedBytes)
  const kept = published === null ? '' : `; generation ${published} has all of it`
  const why = damage === undefined ? '' : ` (damaged: ${damage})`
  return `dropping the changes of ${vm} ${since}${based}: ${size} in ${filesText(changedFiles)}${kept}${why}`
}

function filesText(files: readonly string[] | undefined): string {
  if (files === undefined) return 'an unknown number of files'
  const more = files.length > FILES_NAMED_MAX ? `, and ${String(files.length - FILES_NAMED_MAX)} more` : ''
  const names = files.length === 0 ? '' : ` (${files.slice(0, FILES_NAMED_MAX).join(', ')}${more})`
  return `${String(files.length)} ${files.length === 1 ? 'file' : 'files'}${names}`
}
