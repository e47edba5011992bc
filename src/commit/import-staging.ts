/**
 * Where a new VM is put together: a hidden directory beside its final place, so that nothing that is not finished
 * looks like a VM, and one rename(2) makes it one.
 *
 *     absent --take--> owned --publish (rename)--> a VM
 *                       | interrupted, or the process died
 *                       v
 *                      left: its chunks are named by their content, the next try finds them there
 */
import fs from 'node:fs'
import path from 'node:path'
import { errnoOf, FailedError, messageOf, UsageError } from '../base/errors.js'
import { whyNameIsRefused } from '../format/manifest.js'
import { readVmDescriptor, type VmDescriptor, writeVmDescriptor } from '../format/vm.js'
import { Share } from '../share/share.js'
import { leaveStaging, stillOwns, type StagingOwnership, takeStaging } from './import-owner.js'

const STAGING_SUFFIX = '.isrfs-import'

export class Staging {
  readonly share: Share
  readonly #vmPath: string
  readonly #ownership: StagingOwnership

  private constructor(vmPath: string, share: Share, ownership: StagingOwnership) {
    this.#vmPath = vmPath
    this.share = share
    this.#ownership = ownership
  }

  /** Checks that a VM can be made at `vmPath` (absolute) and takes its staging directory. */
  static take(vmPath: string): Staging {
    checkPlace(vmPath)
    const share = new Share(stagingPath(vmPath))
    const ownership = takeStaging(share)
    const staging = new Staging(vmPath, share, ownership)
    // An earlier try may have come as far as this; it was based on another state of the directory.
    share.remove('vm.json')
    share.remove('generations')
    return staging
  }

  /** Something that an earlier try has sent may be of use. */
  get takenOver(): boolean {
    return this.#ownership.takenOver
  }

  /** Removes chunks that an earlier try has sent and this one does not use. */
  removeOtherChunks(used: ReadonlySet<string>): void {
    for (const folder of this.share.list('chunks')) {
      for (const chunk of this.share.list(`chunks/${folder}`)) {
        if (!used.has(chunk)) this.share.remove(`chunks/${folder}/${chunk}`)
      }
    }
  }

  /** Makes the finished directory the VM. Its generation has to be published in it before. */
  publish(descriptor: VmDescriptor): void {
    writeVmDescriptor(this.share, descriptor)
    if (!stillOwns(this.share, this.#ownership)) {
      throw new FailedError(`another import has taken over ${this.share.root}`, {
        hint: `see what is at ${this.#vmPath} now`
      })
    }
    try {
      fs.renameSync(this.share.root, this.#vmPath)
    } catch (error) {
      // A retransmitted rename reports failure after success (NFS): what is there decides.
      if (!isVm(this.#vmPath, descriptor.vm)) throw whyNotPublished(this.#vmPath, error)
    }
    const vm = new Share(this.#vmPath)
    leaveStaging(vm, this.#ownership)
    new Share(path.dirname(this.#vmPath)).syncDirectory('.')
  }

  /** After a failure: what was sent stays for the next try, unless there will be none since a VM is there now. */
  leave(): void {
    try {
      if (!stillOwns(this.share, this.#ownership)) return
      if (fs.existsSync(path.join(this.#vmPath, 'vm.json'))) {
        fs.rmSync(this.share.root, { recursive: true, force: true })
        return
      }
      this.share.remove('vm.json')
      leaveStaging(this.share, this.#ownership)
    } catch {
      // its owner record tells the next import that this process is gone
    }
  }
}

export function stagingPath(vmPath: string): string {
  return path.join(path.dirname(vmPath), `.${path.basename(vmPath)}${STAGING_SUFFIX}`)
}

/** Every existing, writable directory is a share; the VM's own directory must be absent or empty. */
function checkPlace(vmPath: string): void {
  const parent = path.dirname(vmPath)
  const name = path.basename(vmPath)
  const refused = whyNameIsRefused(path.basename(stagingPath(vmPath)))
  if (name === '' || refused !== undefined)
    throw new UsageError(`${vmPath} cannot be the path of a VM`, { hint: 'choose a shorter, plain name' })
  const stat = fs.statSync(parent, { throwIfNoEntry: false })
  if (stat === undefined) {
    throw new FailedError(`the share ${parent} does not exist`, {
      hint: `check the path and that the share is mounted, or make it: mkdir -p ${parent}`
    })
  }
  if (!stat.isDirectory()) throw new FailedError(`${parent} is not a directory, so it cannot be a share`)
  if (fs.existsSync(path.join(parent, 'vm.json'))) {
    throw new UsageError(`${parent} is a VM itself; a VM cannot be made inside of it`, {
      hint: `choose a place beside it, such as ${path.join(path.dirname(parent), name)}`
    })
  }
  const existing = fs.lstatSync(vmPath, { throwIfNoEntry: false })
  if (existing !== undefined && !(existing.isDirectory() && fs.readdirSync(vmPath).length === 0))
    throw placeTaken(vmPath)
  try {
    fs.accessSync(parent, fs.constants.W_OK | fs.constants.X_OK)
  } catch (error) {
    throw new FailedError(`the share ${parent} cannot be written: ${messageOf(error)}`, {
      hint: 'check its permissions, and that it is not mounted read-only',
      cause: error
    })
  }
}

function placeTaken(vmPath: string): FailedError {
  if (fs.existsSync(path.join(vmPath, 'vm.json'))) {
    return new FailedError(`a VM is at ${vmPath} already`, {
      hint: 'publish the directory as its next generation with --update, or choose another name'
    })
  }
  return new FailedError(`${vmPath} exists and is not an empty directory`, {
    hint: 'choose another name, or remove it'
  })
}

function whyNotPublished(vmPath: string, error: unknown): FailedError {
  const taken = ['EEXIST', 'ENOTEMPTY', 'ENOTDIR'].includes(errnoOf(error) ?? '')
  return taken
    ? placeTaken(vmPath)
    : new FailedError(`cannot rename the finished VM to ${vmPath}: ${messageOf(error)}`, { cause: error })
}

function isVm(vmPath: string, id: string): boolean {
  try {
    return readVmDescriptor(new Share(vmPath)).vm === id
  } catch {
    return false
  }
}
