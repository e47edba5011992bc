/** isrfs doctor: which settings of a VM hurt on isrfs, and the line to change. Reads a plain directory, a mount, or a VM on a share. */
import fs from 'node:fs'
import path from 'node:path'
import { FailedError } from '../base/errors.js'
import { readNewestGeneration } from '../format/generations.js'
import { readVmDescriptor } from '../format/vm.js'
import { pathsOf, readFileHead } from '../history/read-file.js'
import { Share } from '../share/share.js'
import { advise, type Finding, hasErrors } from '../vmm/advice.js'
import { findDisks } from '../vmm/disks.js'
import { findVmx, plainFiles, type VmFiles } from '../vmm/vm-files.js'
import { notice, result } from './output.js'

export async function doctorCommand(given: string, options: { readonly json?: boolean }): Promise<void> {
  const files = filesOf(path.resolve(given))
  const found = await findVmx(files)
  const findings = advise({ ...found, files, disks: await findDisks(files, found.vmx) })
  if (options.json === true) result(JSON.stringify(findings))
  else if (findings.length === 0) notice(`${files.where}: nothing to change`)
  else result(findings.map(textOf).join('\n\n'))
  if (hasErrors(findings)) {
    throw new FailedError(`${files.where} would not work on another host as it is`, {
      hint: 'change what is marked as error; docs/vmware.md explains each line'
    })
  }
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
  const paths = pathsOf(manifest)
  const byPath = new Map(manifest.entries.map((entry) => [paths.get(entry.inode) ?? '', entry]))
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

function textOf({ severity, file, what, why, change }: Finding): string {
  return [`${severity}: ${file}: ${what}`, `  why     ${why}`, `  change  ${change}`].join('\n')
}
