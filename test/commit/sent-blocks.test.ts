/** What a checkpoint takes for sent, when reader threads write to the session's pages, too. */
import test from 'ava'
import { BLOCK_BYTES, PAGE_BYTES } from '../../src/base/units.js'
import { SentBlocks } from '../../src/commit/sent-blocks.js'
import type { RegionSharing } from '../../src/session/sharing.js'
import { create, FILE } from '../support/session-bed.js'

test('a block that a thread has written to since it was sent is copied again at the instant', (t) => {
  const { session, file } = create()
  let hasWritten = false
  const nothing = (): void => undefined
  const threads: RegionSharing = {
    pause: nothing,
    resume: nothing,
    withdraw: nothing,
    withdrawAll: nothing,
    writtenBytes: 0,
    endWrites: () => {
      if (hasWritten) session.noteSharedWrites(FILE, 0, [0], PAGE_BYTES)
      hasWritten = false
    }
  }
  session.share(threads)
  session.write(file, Buffer.alloc(2 * BLOCK_BYTES, 1), 0)
  const sent = new SentBlocks(session)
  const staged = sent.stage(sent.pending())
  const place = { encoding: 'raw', chunk: 'c'.repeat(64), offset: 0, storedBytes: BLOCK_BYTES } as const
  for (const block of staged) sent.note(block, { state: 'placed', place: { ...place, digest: Buffer.alloc(32) } })
  t.deepEqual(sent.freeze(0)?.staged, [])
  t.deepEqual(
    [0, 1, 2].map((block) => sent.isSent(file, block)),
    [true, true, false]
  )
  hasWritten = true
  t.deepEqual(
    sent.freeze(1)?.staged.map(({ dirty }) => dirty.block),
    [0]
  )
  t.deepEqual(
    [0, 1].map((block) => sent.isSent(file, block)),
    [false, true]
  )
})
