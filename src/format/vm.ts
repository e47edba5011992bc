/** vm.json: what makes a directory on the share a VM. Written last by an import, never changed. */
import { randomBytes } from 'node:crypto'
import * as z from 'zod'
import { errnoOf, FailedError, IntegrityError } from '../base/errors.js'
import { BLOCK_BYTES, CHUNK_BYTES_MAX } from '../base/units.js'
import { VM_BYTES_MAX, VM_FILE, vmIsAway } from '../share/presence.js'
import type { Share } from '../share/share.js'
import { identifier, parseVersioned, timestamp, toJson } from './validation.js'

const VM_FORMAT = 'isrfs'
const VM_VERSION = 1

const vmSchema = z.object({
  format: z.literal(VM_FORMAT),
  version: z.literal(VM_VERSION),
  vm: identifier,
  nonce: identifier,
  blockBytes: z.literal(BLOCK_BYTES),
  chunkBytesMax: z.literal(CHUNK_BYTES_MAX),
  compression: z.literal('zstd'),
  created: timestamp
})

export type VmDescriptor = z.infer<typeof vmSchema>

export function newVmDescriptor(): VmDescriptor {
  return {
    format: VM_FORMAT,
    version: VM_VERSION,
    vm: randomBytes(16).toString('hex'),
    nonce: randomBytes(16).toString('hex'),
    blockBytes: BLOCK_BYTES,
    chunkBytesMax: CHUNK_BYTES_MAX,
    compression: 'zstd',
    created: new Date().toISOString()
  }
}

export function writeVmDescriptor(share: Share, descriptor: VmDescriptor): void {
  share.write('vm.json', vmDescriptorBytes(descriptor))
}

export function vmDescriptorBytes(descriptor: VmDescriptor): Buffer {
  return toJson(descriptor)
}

/**
 * Reads vm.json; a FailedError with a hint when there is no VM at that path. The share belongs to this VM from then on: what
 * is missing in it is absent only while the VM is there. ShareError when it belongs to another VM already.
 */
export function readVmDescriptor(share: Share): VmDescriptor {
  const descriptor = readDescriptor(share)
  if (share.vmId !== undefined && share.vmId !== descriptor.vm) throw vmIsAway(share.root, descriptor.vm)
  share.belongTo(descriptor.vm)
  return descriptor
}

function readDescriptor(share: Share): VmDescriptor {
  let bytes: Buffer
  try {
    bytes = share.read(VM_FILE, VM_BYTES_MAX)
  } catch (error) {
    if (errnoOf(error) !== 'ENOENT' && errnoOf(error) !== 'ENOTDIR') throw error
    if (hasGenerations(share)) {
      throw new IntegrityError(`${share.pathOf('vm.json')} is missing, although there are generations`, {
        hint: waysOn(share),
        cause: error
      })
    }
    throw new FailedError(`there is no VM at ${share.root}`, {
      hint: 'is the share mounted there? isrfs list <share> shows its VMs; to make one: isrfs import <vm-dir> <vm>',
      cause: error
    })
  }
  try {
    return parseVersioned(bytes, { format: VM_FORMAT, version: VM_VERSION, schema: vmSchema }, share.pathOf('vm.json'))
  } catch (error) {
    if (!(error instanceof IntegrityError) || error.hint !== undefined) throw error
    throw new IntegrityError(error.message, { hint: waysOn(share), cause: error })
  }
}

function waysOn(share: Share): string {
  return `restore it from a backup of the share, or make it anew from the generations: isrfs check ${share.root} --repair`
}

function hasGenerations(share: Share): boolean {
  try {
    return share.list('generations').length > 0
  } catch {
    return false // no VM, or none that could be told
  }
}
