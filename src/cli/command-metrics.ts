/** isrfs metrics: what Prometheus would read, of one mount or of all. */
import { messageOf } from '../base/errors.js'
import { askMetrics } from '../daemon/control-client.js'
import { findSockets } from '../daemon/socket-path.js'
import { locateMountpoint } from './mountpoint.js'
import { notice, result } from './output.js'
import { askPatiently, socketsOfAll, whyNoDaemon } from './silent-daemon.js'

export async function metricsCommand(given: string | undefined): Promise<void> {
  const texts = given === undefined ? await metricsOfAll() : [await metricsAt(locateMountpoint(given))]
  if (texts.length > 0) result(mergeMetrics(texts).trimEnd())
}

async function metricsAt(mountpoint: string): Promise<string> {
  for (const socketPath of findSockets(mountpoint)) {
    const text = await askPatiently(mountpoint, (limitMs) => askMetrics(socketPath, limitMs))
    if (text !== undefined) return text
  }
  throw await whyNoDaemon(mountpoint)
}

/** A daemon that says nothing is told of, and is no reason to say nothing of the others. */
async function metricsOfAll(): Promise<string[]> {
  const asked = socketsOfAll().map(async ({ mountpoint, socketPath }) => {
    try {
      return await askPatiently(mountpoint, (limitMs) => askMetrics(socketPath, limitMs))
    } catch (error) {
      notice(messageOf(error))
      return undefined
    }
  })
  return (await Promise.all(asked)).filter((text) => text !== undefined)
}

/** Texts of several mounts as one: all samples of a metric stand together. */
export function mergeMetrics(texts: readonly string[]): string {
  const families = new Map<string, { readonly head: readonly string[]; readonly samples: string[] }>()
  for (const text of texts) {
    let name = ''
    const lines = text.split('\n').filter((line) => line !== '')
    for (const line of lines) {
      const described = /^# HELP (\S+)/.exec(line)?.[1]
      if (described !== undefined) name = described
      const family = families.get(name) ?? { head: lines.filter((one) => isHeadOf(one, name)), samples: [] }
      families.set(name, family)
      if (!line.startsWith('#')) family.samples.push(line)
    }
  }
  return [...families.values()].map(({ head, samples }) => `${[...head, ...samples].join('\n')}\n`).join('\n')
}

function isHeadOf(line: string, name: string): boolean {
  return line.startsWith(`# HELP ${name} `) || line.startsWith(`# TYPE ${name} `)
}
