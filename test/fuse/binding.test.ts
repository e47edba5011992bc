/** The transports' suite against the binding. */
import test from 'ava'
import fs from 'node:fs'
import path from 'node:path'
import { mountMemory } from './memory-mount.js'
import { canMount, defineTransportSuite } from './transport-suite.js'

defineTransportSuite(test, 'binding')

const define = canMount ? test.serial : test.serial.skip
define('names that libfuse hides removed files under cannot be made', async (t) => {
  const mount = await mountMemory('binding', 'writeback')
  try {
    const file = path.join(mount.directory, '.fuse_hidden0000000100000002')
    t.throws(() => fs.writeFileSync(file, ''), { code: 'EPERM' })
  } finally {
    await mount.remove()
  }
})
