/**
 * The daemon, started by `isrfs mount` with its request as JSON (process.ts). Before its modules are loaded, the thread that will
 * read from the share is started: it loads its own meanwhile, on another processor, and a mount is ready 0.1 s earlier.
 */
import { prepareShareThreads } from '../fetch/share-threads.js'
import { closeInheritedDescriptors } from './inherited-descriptors.js'

closeInheritedDescriptors()
const vmPath = pathIn(process.argv[2])
try {
  if (vmPath !== undefined) prepareShareThreads(vmPath)
} catch {
  // no thread can be had: whoever asks the share says so, and takes the mount down that a launcher has made
}
await import('./process.js')

/** Of a request that process.ts will look at: what is wrong with it is told there. */
function pathIn(request = ''): string | undefined {
  try {
    const value: unknown = JSON.parse(request)
    if (typeof value !== 'object' || value === null || !('vmPath' in value)) return undefined
    return typeof value.vmPath === 'string' ? value.vmPath : undefined
  } catch {
    return undefined
  }
}
