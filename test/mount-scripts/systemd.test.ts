/**
 * The units and mount(8) where they are at home: a machine of its own with systemd and logind (a User-Mode-Linux guest that has this one's
 * file tree). What is done there stands in systemd-scenario.
 */
import { execFile } from 'node:child_process'
import fs from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { promisify } from 'node:util'
import test from 'ava'
import { CLI } from '../support/bed.js'

const run = promisify(execFile)
const MACHINE = path.resolve('test/mount-scripts/systemd-machine')

test('units and mount(8): ready means mounted, stopping suspends, a shutdown waits for it, nothing is killed', async (t) => {
  t.timeout(2_400_000) // another guest may be running: it waits for its turn
  const directory = fs.mkdtempSync(path.join(os.tmpdir(), 'isrfs-test-systemd-'))
  t.teardown(() => fs.rmSync(directory, { recursive: true }))
  const read = (name: string): string => {
    const file = path.join(directory, name)
    return fs.existsSync(file) ? fs.readFileSync(file, 'utf8') : ''
  }
  fs.writeFileSync(path.join(directory, 'environment'), `ISRFS_NODE='${process.execPath}' ISRFS_CLI='${CLI}'\n`)
  const env = { ...process.env, MACHINES: MACHINE, LIMIT_S: '840' }
  await run(path.resolve('test/support/nfs/guest'), [directory], { env }).catch((error: unknown) => {
    t.log(read('console').slice(-3000), read('output').slice(-3000))
    throw error
  })
  t.log(read('output'), read('journal'))
  const facts = Object.fromEntries(
    [...read('output').matchAll(/^FACT (\w+) (.*)$/gm)].map(([, name = '', value = '']) => [name, value])
  )
  t.deepEqual(facts, {
    mount8: '0 00000002',
    fstab: '0 disk ro',
    user: '0 mounted written',
    userAgain: '0 00000003 ',
    started: '0 user active',
    lock: '1 active',
    stopped: '0 00000004 inactive success',
    unlocked: '0',
    busy: 'deactivating alive 00000004',
    free: 'inactive 00000005',
    poweroff: '0'
  })
  // when the first unit was stopped the suspend was published
  t.is(read('at-shutdown').trim().split('\n').at(-1), '00000006')
  t.is(read('at-last'), read('at-shutdown'))
})
