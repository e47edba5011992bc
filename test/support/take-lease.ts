/** take-lease.js VM CLIENT: tries to take a VM's lease once; prints "won" or "lost". */
import { LeaseHeldError } from '../../src/base/errors.js'
import { acquireLease } from '../../src/share/lease.js'
import { Share } from '../../src/share/share.js'

const [root = '', client = ''] = process.argv.slice(2)
try {
  acquireLease(new Share(root), {
    client: client.repeat(16),
    host: 'h',
    user: 'u',
    pid: 1,
    boot: 'b',
    mountpoint: '/m'
  })
  process.stdout.write('won\n')
} catch (error) {
  if (!(error instanceof LeaseHeldError)) throw error
  process.stdout.write('lost\n')
}
