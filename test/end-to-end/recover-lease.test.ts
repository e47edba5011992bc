/** A recover that uploads for long shows that it lives: its lease is not broken under it. */
import fs from 'node:fs'
import path from 'node:path'
import test from 'ava'
import { readLease } from '../../src/share/lease.js'
import { Share } from '../../src/share/share.js'
import { Bed, CLI, waitFor } from '../support/bed.js'
import { Random } from '../support/random.js'

test('the lease of a recover that takes long has beats, and cannot be broken', async (t) => {
  t.timeout(600_000)
  const bed = new Bed('recover-lease')
  const random = new Random()
  t.log(`seed ${String(random.seed)}`)
  try {
    fs.writeFileSync(path.join(bed.makeDirectory('source'), 'disk'), random.bytes(300_000))
    await bed.mustIsrfs('c', 'import', bed.path('source'), bed.vm())
    const mountpoint = await bed.mount('a', bed.vm(), 'mnt')
    const changed = random.bytes(300_000)
    const fd = fs.openSync(path.join(mountpoint, 'disk'), 'r+')
    fs.writeSync(fd, changed)
    fs.fsyncSync(fd)
    fs.closeSync(fd)
    await bed.killDaemon('a', mountpoint)
    await bed.command('fusermount3', ['-uz', mountpoint])

    const share = new Share(bed.vm())
    const before = readLease(share)?.lease.number ?? 0
    const preload = path.resolve('test/support/held-chunks.js')
    const env = { ...process.env, ISRFS_TEST_GO: bed.path('go'), NODE_OPTIONS: `--import=${preload}` }
    const words = [CLI, '--client-dir', bed.path('client-a'), 'recover', bed.vm()]
    const recovering = bed.command(process.execPath, words, { env })
    const beats = (): number => {
      const state = readLease(share)
      return state === undefined || state.lease.number <= before ? 0 : (state.beat?.count ?? 0)
    }
    await waitFor(() => beats() >= 2, 'two beats of the lease', 300_000)
    const broken = await bed.isrfs('b', 'lease', bed.vm(), '--break')
    t.is(broken.code, 3, broken.stderr)
    t.regex(broken.stderr, /the holder of the lease lives/)
    fs.writeFileSync(bed.path('go'), '')
    const recovered = await recovering
    t.is(recovered.code, 0, recovered.stderr)
    t.regex(recovered.stdout, /generation 2/)
    t.regex((await bed.mustIsrfs('b', 'lease', bed.vm())).stdout, /^free/)
    await bed.mustIsrfs('b', 'export', bed.vm(), bed.path('out'))
    t.true(fs.readFileSync(bed.path('out', 'disk')).equals(changed))
  } finally {
    fs.writeFileSync(bed.path('go'), '')
    await bed.destroy()
  }
})
