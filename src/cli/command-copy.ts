/** isrfs import and export: plain directory -> VM -> plain directory. */
import path from 'node:path'
import { FailedError } from '../base/errors.js'
import { exportGeneration } from '../commit/export.js'
import { importDirectory } from '../commit/import.js'
import { hostName } from '../daemon/host.js'
import { openClient } from '../session/client.js'
import { bytes, percent } from './figures.js'
import { directoriesOf, type GlobalOptions, toGenerationNumber } from './options.js'
import { notice, result } from './output.js'
import { prepareDirectory } from './prerequisites.js'
import { progressView } from './progress.js'

export async function importCommand(
  source: string,
  vm: string,
  options: GlobalOptions & { readonly update?: boolean; readonly joinPieces?: boolean }
): Promise<void> {
  const { clientDirectory } = directoriesOf(options)
  prepareDirectory(clientDirectory, '--client-dir')
  const view = progressView()
  const vmPath = path.resolve(vm)
  try {
    const { published, files, totalBytes, changedBytes, sentBytes } = await importDirectory({
      source: path.resolve(source),
      vmPath,
      update: options.update === true,
      joinPieces: options.joinPieces === true,
      client: { id: openClient(clientDirectory).id, host: hostName() },
      onProgress: (progress) => view.show(progress),
      onWarning: (message) => view.say(message),
      signal: endOnSignals()
    })
    view.end()
    if (published === undefined) {
      result(`nothing differs from the newest generation of ${vmPath}; nothing was published`)
      return
    }
    // a directory of a few bytes is larger on the share: its maps count too
    const saved = sentBytes < totalBytes ? ` (${percent(totalBytes - sentBytes, totalBytes)} saved)` : ''
    result(
      `generation ${String(published.number)} of ${vmPath}: ${String(files)} files, ${bytes(totalBytes)}, ${bytes(changedBytes)} changed, ${bytes(sentBytes)} sent${saved}`
    )
  } finally {
    view.end()
  }
}

export async function exportCommand(
  vm: string,
  directory: string,
  options: { readonly generation?: string }
): Promise<void> {
  const generation = options.generation === undefined ? undefined : toGenerationNumber(options.generation)
  const view = progressView()
  try {
    const exported = await exportGeneration({
      vmPath: path.resolve(vm),
      destination: path.resolve(directory),
      ...(generation === undefined ? {} : { generation }),
      onProgress: (progress) => view.show(progress),
      onWarning: (message) => view.say(message),
      signal: endOnSignals()
    })
    view.end()
    result(
      `generation ${String(exported.generation.number)} of ${path.resolve(vm)} is in ${path.resolve(directory)}: ${String(exported.files)} files, ${bytes(exported.totalBytes)}`
    )
  } finally {
    view.end()
  }
}

/** The first Ctrl-C ends between two units, the second at once. */
function endOnSignals(): AbortSignal {
  const controller = new AbortController()
  for (const signal of ['SIGINT', 'SIGTERM'] as const) {
    process.once(signal, () => {
      notice('ending; what was sent is kept for the next try')
      controller.abort(new FailedError(`ended by ${signal}`))
    })
  }
  return controller.signal
}
