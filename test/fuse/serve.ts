/**
 * The serving process of the mount tests: a tree in memory behind a transport. Reports on standard output, line by
 * line, and ends when the kernel has ended the mount. Arguments: mountpoint and any of direct, writeback, read-only, async, others.
 */
import { createBindingTransport } from '../../src/fuse/binding.js'
import { createDirectTransport } from '../../src/fuse/direct/transport.js'
import { Tree } from '../../src/tree/tree.js'
import { MemoryImage, MemorySession } from '../tree/stand-in.js'

const [mountpoint = '', ...words] = process.argv.slice(2)
const session = new MemorySession()
const image = new MemoryImage(session)
image.asynchronous = words.includes('async')
const readOnly = words.includes('read-only')
const writeback = words.includes('writeback')

const tree = new Tree(session, image, { readOnly, writeback })
const create = words.includes('direct') ? createDirectTransport : createBindingTransport
const transport = create(tree, {
  mountpoint,
  readOnly,
  allowOther: words.includes('others'),
  writeback,
  vmName: 'in-memory',
  onError: (error, operation) => console.log(`error ${operation} ${String(error)}`)
})
await transport.mount()
console.log('mounted')
if (words.includes('close-on-term')) process.once('SIGTERM', () => void transport.close())
await transport.ended
console.log('ended')
await transport.drained()
console.log('drained')
await transport.close()
const inodes = [...session.namespace.inodes()]
const names = inodes.map(({ name }) => name).filter((name) => name !== '')
console.log(`closed handles=${tree.openHandles} inodes=${inodes.length} names=${JSON.stringify(names)}`)
