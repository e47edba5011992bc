/** isrfs import and export: plain directory -> VM -> plain directory. */
import path from 'node:path'
import { FailedError } from '../base/errors.js'
import { exportGeneration } from '../commit/export.js'
import { importDirectory } from '../commit/import.js'
import { hostName } from '../daemon/host.js'
import { openClient } from '../session/client.js'
import { bytes, percent } from './figures.js'
import { directoriesOf, type GlobalOptions, toGenerationNumber } from './options.js'
import { notice, resultAs } from './output.js'
import { prepareDirectory } from './prerequisites.js'
import { progressView } from './progress.js'

export async function importCommand(
  source: string,
  vm: string,
  options: GlobalOptions & { readonly update?: boolean; readonly joinPieces?: boolean; readonly json?: boolean }
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
    // a directory of a few bytes is larger on the share: its maps count too
    const saved = sentBytes < totalBytes ? ` (${percent(totalBytes - sentBytes, totalBytes)} saved)` : ''
    const generation = published?.number ?? null
    resultAs(options.json, { vm: vmPath, generation, files, totalBytes, changedBytes, sentBytes }, () =>
      generation === null
        ? `nothing differs from the newest generation of ${vmPath}; nothing was published`
        : `generation ${String(generation)} of ${vmPath}: ${String(files)} files, ${bytes(totalBytes)}, ${bytes(changedBytes)} changed, ${bytes(sentBytes)} sent${saved}`
    )
  } finally {
    view.end()
  }
}

export async function exportCommand(
  vm: string,
  directory: string,
  options: { readonly generation?: string; readonly json?: boolean }
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
    const { number } = exported.generation
    const { files, totalBytes } = exported
    const where = { vm: path.resolve(vm), directory: path.resolve(directory) }
    resultAs(
      options.json,
      { ...where, generation: number, files, totalBytes },
      () =>
        `generation ${String(number)} of ${where.vm} is in ${where.directory}: ${String(files)} files, ${bytes(totalBytes)}`
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
