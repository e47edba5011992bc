/** isrfs metrics: what Prometheus would read, of one mount or of all. */
import { FailedError } from '../base/errors.js'
import { askMetrics } from '../daemon/control-client.js'
import { findSockets } from '../daemon/socket-path.js'
import { locateMountpoint } from './mountpoint.js'
import { notice } from './output.js'

export async function metricsCommand(given: string | undefined): Promise<void> {
  const mountpoint = given === undefined ? undefined : locateMountpoint(given)
  const texts: string[] = []
  for (const socketPath of findSockets(mountpoint)) {
    try {
      const text = await askMetrics(socketPath)
      if (text !== undefined) texts.push(text)
    } catch (error) {
      if (mountpoint !== undefined) throw error
      notice(`the daemon behind ${socketPath} does not answer`)
    }
  }
  if (mountpoint !== undefined && texts.length === 0) {
    throw new FailedError(`${mountpoint} is not an isrfs mount`, { hint: 'isrfs status lists the mounts' })
  }
  process.stdout.write(mergeMetrics(texts))
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
