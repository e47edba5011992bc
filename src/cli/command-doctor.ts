/**
 * isrfs doctor: why does it not mount, why is it slow, what would not work elsewhere; and what to change. Looks at this host and the disk of
 * this client; at the share, a mount, and the settings of a VM when one is named.
 */
import fs from 'node:fs'
import path from 'node:path'
import { FailedError } from '../base/errors.js'
import { readNewestGeneration } from '../format/generations.js'
import { readVmDescriptor } from '../format/vm.js'
import { manifestPaths } from '../format/manifest.js'
import { readFileHead } from '../history/read-file.js'
import { Share } from '../share/share.js'
import { advise, type Finding, hasErrors } from '../vmm/advice.js'
import { findDisks } from '../vmm/disks.js'
import { findVmx, plainFiles, type VmFiles } from '../vmm/vm-files.js'
import { MOUNT_TYPE, mountAt } from '../daemon/mount-table.js'
import { coloured } from './colour.js'
import { defaultOf } from './configuration/settings.js'
import { clientFindings, measureDisk, speedFindings } from './doctor/client.js'
import { hostFindings, mountedFindings } from './doctor/host.js'
import { mountOptionFindings, probeShare, shareFindings, shareText } from './doctor/share.js'
import { bytes } from './figures.js'
import { lifeOf, locateMountpoint } from './mountpoint.js'
import { directoriesOf, type GlobalOptions, toSize } from './options.js'
import { notice, result } from './output.js'
import { thisMachine } from './prerequisites.js'
import { silentDaemon } from './silent-daemon.js'

const ORDER = ['error', 'warning', 'note'] as const

export interface DoctorOptions extends GlobalOptions {
  readonly cacheSize?: string
  readonly json?: boolean
}

export async function doctorCommand(given: string | undefined, options: DoctorOptions): Promise<void> {
  const where = given === undefined ? undefined : locateMountpoint(given)
  const mounted = where === undefined ? undefined : mountAt(where)
  const isMount = mounted?.fileSystemType === MOUNT_TYPE
  if (isMount && where !== undefined && (await lifeOf(where)) !== 'alive') throw silentDaemon(where).error
  const shareDirectory = isMount ? mounted.source : where
  const found = [...hostFindings(thisMachine()), ...clientDisk(options)]
  if (isMount && where !== undefined) found.push(...mountedFindings(where))
  if (shareDirectory !== undefined) found.push(...(await share(shareDirectory)))
  const answers = !found.some(({ severity, file }) => severity === 'error' && file === shareDirectory)
  const inVm = where !== undefined && answers ? await vm(where) : []
  const findings = ORDER.flatMap((severity) => [...inVm, ...found].filter((one) => one.severity === severity))
  const subject = where ?? 'this host'
  if (options.json === true) result(JSON.stringify(findings))
  else if (findings.length === 0) notice(`${subject}: nothing to change`)
  else result(findings.map(textOf).join('\n\n'))
  if (!hasErrors(findings)) return
  if (hasErrors(inVm)) {
    throw new FailedError(`${subject} would not work on another host as it is`, {
      hint: 'change what is marked as error; docs/vmware.md explains each line'
    })
  }
  throw new FailedError(`${subject} cannot be used as it is`, { hint: 'change what is marked as error' })
}

function clientDisk(options: DoctorOptions): Finding[] {
  const directories = directoriesOf(options)
  const cacheBytesMax = toSize(options.cacheSize ?? defaultOf('cache-size'))
  const speed = measureDisk(directories.clientDirectory)
  if (speed === undefined) return clientFindings(directories, cacheBytesMax)
  notice(
    `disk of this client: ${bytes(speed.bytesPerSecond)}/s, ${speed.syncMs.toFixed(1)} ms until a write is durable`
  )
  return [...clientFindings(directories, cacheBytesMax), ...speedFindings(directories.clientDirectory, speed)]
}

/** Only of a VM on a share; a plain directory is only looked at. */
async function share(directory: string): Promise<Finding[]> {
  const options = mountOptionFindings(directory)
  const probed = await probeShare(directory).catch(() => null)
  if (probed === undefined) return [...options, ...shareFindings(directory, undefined)]
  if (probed === null || probed.readMs === null) return []
  notice(`share: ${shareText(probed)}`)
  return [...options, ...shareFindings(directory, probed)]
}

async function vm(where: string): Promise<Finding[]> {
  const files = filesOf(where)
  const found = await findVmx(files)
  return advise({ ...found, files, disks: await findDisks(files, found.vmx) })
}

function filesOf(where: string): VmFiles {
  const isDirectory = fs.statSync(where, { throwIfNoEntry: false })?.isDirectory() === true
  if (!isDirectory)
    throw new FailedError(`${where} is not a directory`, { hint: 'name the directory of a VM, or a VM on the share' })
  return fs.existsSync(path.join(where, 'vm.json')) ? filesOnShare(where) : plainFiles(where)
}

function filesOnShare(vmPath: string): VmFiles {
  const share = new Share(vmPath)
  readVmDescriptor(share)
  const { number, manifest } = readNewestGeneration(share)
  const byPath = new Map(manifestPaths(manifest.entries))
  byPath.delete('')
  return {
    where: `${vmPath} (generation ${String(number)})`,
    list: [...byPath].map(([file, entry]) => ({
      path: file,
      type: entry.type === 'file' || entry.type === 'directory' ? entry.type : 'other',
      sizeBytes: entry.type === 'file' ? entry.size : 0
    })),
    read: async (file, bytesMax) => {
      const entry = byPath.get(file)
      if (entry?.type !== 'file') throw new FailedError(`${file} is not a file of ${vmPath}`)
      return readFileHead(share, entry, bytesMax)
    }
  }
}

const STYLES = { error: 'red', warning: 'yellow', note: 'cyan' } as const

function textOf({ severity, file, what, why, change }: Finding): string {
  return [
    `${coloured(STYLES[severity], severity, process.stdout)}: ${file}: ${what}`,
    `  why     ${why}`,
    `  change  ${change}`
  ].join('\n')
}
