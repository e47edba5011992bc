import fs from 'node:fs'
import test from 'ava'
import { ShareError } from '../../src/base/errors.js'
import { beatPin, createPin, removePin } from '../../src/share/pin.js'
import { Share } from '../../src/share/share.js'
import { FaultyShare } from '../support/faulty-share.js'
import { temporaryDirectory } from '../support/make-vm.js'

const holder = { client: 'ab'.repeat(8), host: 'box', user: 'joe', pid: 7, boot: 'b', mountpoint: '/mnt' }

function readJson(share: Share, name: string): unknown {
  return JSON.parse(fs.readFileSync(share.pathOf(name), 'utf8'))
}

test('a pin says who reads which generation until it is removed; one client may have several', (t) => {
  const share = new Share(temporaryDirectory('pin'))
  const first = createPin(share, holder, 3)
  const second = createPin(share, holder, 4)
  t.regex(first.name, /^pins\/(ab){8}-[0-9a-f]{8}$/)
  t.is(share.list('pins').length, 2)
  const { taken: _taken, ...pin } = readJson(share, `${first.name}/pin.json`) as { taken: string }
  t.deepEqual<unknown, unknown>(pin, { format: 'isrfs-pin', version: 1, holder, generation: 3 })
  beatPin(share, first, 12)
  t.is((readJson(share, `${first.name}/beat.json`) as { count: number }).count, 12)
  removePin(share, first)
  t.deepEqual(share.list('pins'), [second.name.replace('pins/', '')])
  t.throws(() => beatPin(share, first, 13), { instanceOf: ShareError }, 'a removed pin stays removed')
  t.deepEqual(share.list('tmp'), [])
})

test('a share that cannot be written refuses a pin with its errno, and removing one never fails', (t) => {
  const root = temporaryDirectory('pin')
  const faulty = new FaultyShare(root, { call: 1, errno: 'EROFS', only: 'mkdirSync' })
  t.is(t.throws(() => createPin(faulty.share, holder, 1), { instanceOf: ShareError }).errno, 'EROFS')
  const pin = createPin(new Share(root), holder, 1)
  t.notThrows(() => removePin(new FaultyShare(root, { call: 1, errno: 'EIO', only: 'rmSync' }).share, pin))
})
