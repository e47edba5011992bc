/** The file system conformance suite over the real thing: daemon, session, cache, share, with and without writeback. */
import test from 'ava'
import { Bed } from '../support/bed.js'
import { Random } from '../support/random.js'
import { makeSampleVm } from '../support/sample-vm.js'
import { defineConformance } from '../fuse/conformance.js'

const bed = new Bed('conformance')
const mounts: { client: string; mountpoint: string }[] = []

test.before(async () => {
  const source = bed.makeDirectory('source')
  makeSampleVm(source, new Random(1), { diskBytes: 2 ** 20, pieces: 2 })
  for (const [client, options] of [
    ['writeback', ['--transport', 'binding']],
    ['write-through', ['--transport', 'binding', '--no-writeback']],
    ['direct', ['--transport', 'direct']],
    ['direct write-through', ['--transport', 'direct', '--no-writeback']]
  ] as const) {
    await bed.mustIsrfs(client, 'import', source, bed.vm(client))
    const mountpoint = await bed.mount(client, bed.vm(client), `mnt-${client}`, '--allow-other', ...options)
    await bed.command('chmod', ['755', bed.root])
    mounts.push({ client, mountpoint })
  }
})

// Everything that the suites left must survive a suspend too.
test.after(async () => {
  for (const { client, mountpoint } of mounts) await bed.unmount(client, mountpoint)
})
test.after.always(() => bed.destroy())

for (const client of ['writeback', 'write-through', 'direct', 'direct write-through']) {
  defineConformance(test, {
    title: `daemon, ${client}`,
    directory: () => bed.path(`mnt-${client}`),
    others: true,
    hardLinks: client.startsWith('direct')
  })
}
