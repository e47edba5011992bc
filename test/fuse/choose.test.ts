/** A kernel that is too old for the direct transport is served by the binding; any other failure is told. */
import test from 'ava'
import { createTransport, type TransportMakers } from '../../src/fuse/choose.js'
import { KernelTooOldError } from '../../src/fuse/direct/transport.js'
import type { FileSystem, Transport, TransportName, TransportOptions } from '../../src/fuse/port.js'

// neither is used by the stand-ins
const tree = {} as FileSystem
const options = {} as TransportOptions

function standIn(log: string[], name: TransportName, failure?: Error): Transport {
  return {
    name,
    mount: () => {
      log.push(`${name} mounts`)
      return failure === undefined ? Promise.resolve() : Promise.reject(failure)
    },
    ended: Promise.resolve(),
    threadsWait: false,
    drained: () => Promise.resolve(),
    close: () => {
      log.push(`${name} closes`)
      return Promise.resolve()
    }
  }
}

function makers(log: string[], failure?: Error): TransportMakers {
  return { direct: () => standIn(log, 'direct', failure), binding: () => standIn(log, 'binding') }
}

test('an old kernel is served by the binding, with a notice', async (t) => {
  const log: string[] = []
  const old = new KernelTooOldError('this kernel speaks FUSE 7.23')
  const transport = createTransport('direct', tree, options, (text) => log.push(text), makers(log, old))
  t.is(transport.name, 'direct')
  await transport.mount()
  t.is(transport.name, 'binding')
  await transport.ended
  await transport.close()
  t.deepEqual(log, [
    'direct mounts',
    'this kernel speaks FUSE 7.23; falling back to the binding',
    'binding mounts',
    'binding closes'
  ])
})

test('nothing else falls back', async (t) => {
  const log: string[] = []
  const transport = createTransport('direct', tree, options, (text) => log.push(text), makers(log, new Error('no')))
  await t.throwsAsync(transport.mount(), { message: 'no' })
  t.deepEqual(log, ['direct mounts'])
})
