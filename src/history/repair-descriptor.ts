/**
 * `check --repair` of vm.json: the only thing in it that is nowhere else is the id of the VM, and every manifest names that.
 * Made anew only when all that can be read agree on it.
 */
import { IntegrityError } from '../base/errors.js'
import { newVmDescriptor, readVmDescriptor, writeVmDescriptor } from '../format/vm.js'
import { UnknownVersionError } from '../share/json.js'
import type { Share } from '../share/share.js'
import { readLive } from './references.js'

/** Whether it was damaged or missing, and is whole now. Throws what is wrong with it when it cannot be made anew. */
export function repairDescriptor(share: Share): boolean {
  try {
    readVmDescriptor(share)
    return false
  } catch (error) {
    if (!(error instanceof IntegrityError) || error instanceof UnknownVersionError) throw error
    const ids = new Set(readLive(share).live.map(({ published }) => published.manifest.vm))
    const [vm] = ids
    if (vm === undefined || ids.size > 1) throw error
    writeVmDescriptor(share, { ...newVmDescriptor(), vm })
    return true
  }
}
