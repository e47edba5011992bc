/** Ways on for somebody whose generations, leases and pins are damaged or gone, and that a check tells of them. */
import fs from 'node:fs'
import path from 'node:path'
import test from 'ava'
import { sha256Hex } from '../../src/base/digest.js'
import { FailedError, IntegrityError } from '../../src/base/errors.js'
import {
  digestOfGeneration,
  generationName,
  listGenerations,
  readNewestGeneration
} from '../../src/format/generations.js'
import { toGeneration } from '../../src/base/units.js'
import { readVmDescriptor } from '../../src/format/vm.js'
import { repairDescriptor } from '../../src/history/repair-descriptor.js'
import { createPin } from '../../src/share/pin.js'
import { type History, historyOf, OTHER } from '../support/history-bed.js'

const nothing = Buffer.alloc(0)

function manifestOf(history: History, number: number): string {
  return history.share.pathOf(`${generationName(number)}/manifest.json`)
}

function flip(file: string): void {
  const bytes = fs.readFileSync(file)
  const middle = bytes.length >> 1
  bytes[middle] = (bytes[middle] ?? 0) ^ 1
  fs.writeFileSync(file, bytes)
}

async function flawsOf(history: History): Promise<string[]> {
  const { bad } = await history.check(false)
  return bad.map(({ path: object, why }) => `${path.relative(history.share.root, object)}: ${why}`)
}

test('a rollback gets past a newest generation that is damaged, whatever is damaged in it', async (t) => {
  const damages: ((history: History) => void)[] = [
    (history) => flip(manifestOf(history, 3)),
    (history) => fs.rmSync(manifestOf(history, 3)),
    (history) => fs.rmSync(history.share.pathOf(`${generationName(3)}/manifest.sha256`)),
    (history) => {
      for (const name of fs.readdirSync(path.dirname(manifestOf(history, 3)))) {
        fs.truncateSync(history.share.pathOf(`${generationName(3)}/${name}`), 0)
      }
    },
    (history) => {
      fs.rmSync(history.share.pathOf(generationName(3)), { recursive: true })
      fs.writeFileSync(history.share.pathOf(generationName(3)), 'not a directory')
    }
  ]
  for (const damage of damages) {
    const history = await historyOf(t, 3)
    damage(history)
    t.throws(() => readNewestGeneration(history.share), { instanceOf: IntegrityError })
    t.is(history.rollBack(2)?.number, toGeneration(4))
    t.true((await history.contentOf(4)).equals(history.contents[1] ?? nothing))
    await history.next() // the next client goes on from there
    t.is(readNewestGeneration(history.share).number, toGeneration(5))
    t.deepEqual(
      (await history.check()).bad.map(({ path: object }) => object),
      [history.share.pathOf(generationName(3))],
      'it stays, damaged, where it is'
    )
  }
})

test('a newest generation that the lease promises and nobody can find is given up on purpose only, and its number is not used again', async (t) => {
  const history = await historyOf(t, 4)
  const digest = digestOfGeneration(history.share, toGeneration(4))
  for (const number of [3, 4]) fs.rmSync(history.share.pathOf(generationName(number)), { recursive: true })
  t.regex((await flawsOf(history)).join(), /generations\/00000004: it is missing, although .* --accept-rollback/)
  const refusal = t.throws(() => history.rollBack(1), { instanceOf: FailedError, message: /names generation 4/ })
  t.regex(refusal.hint ?? '', /--accept-rollback/)
  t.is(readNewestGeneration(history.share).number, toGeneration(2), 'nothing was published')
  t.is(history.rollBack(1, true)?.number, toGeneration(5))
  t.true((await history.contentOf(5)).equals(history.contents[0] ?? nothing))
  t.is(digestOfGeneration(history.share, toGeneration(4)), digest, 'who has seen it finds it again, as a tombstone')
  t.not(digestOfGeneration(history.share, toGeneration(3)), digest)
  t.deepEqual(listGenerations(history.share), [1, 2, 3, 4, 5].map(toGeneration))
  t.deepEqual(await flawsOf(history), [])
  await history.next()
  t.is(readNewestGeneration(history.share).number, toGeneration(6))
})

test('a generation that becomes visible while it is given up stays, and nothing is published over it', async (t) => {
  const history = await historyOf(t, 3)
  const directory = history.share.pathOf(generationName(3))
  const hidden = history.share.pathOf('hidden')
  fs.renameSync(directory, hidden)
  const createDirectory = history.share.createDirectory.bind(history.share)
  history.share.createDirectory = (name, files) => {
    if (name === generationName(3)) fs.renameSync(hidden, directory)
    createDirectory(name, files)
  }
  t.throws(() => history.rollBack(1, true), { instanceOf: FailedError, message: /is there after all/ })
  t.is(readNewestGeneration(history.share).number, toGeneration(3))
  t.deepEqual(await flawsOf(history), [])
})

test('a rollback that stopped between the tombstone and its generation is repeated', async (t) => {
  const history = await historyOf(t, 3)
  fs.rmSync(history.share.pathOf(generationName(3)), { recursive: true })
  const createDirectory = history.share.createDirectory.bind(history.share)
  history.share.createDirectory = (name, files) => {
    if (name === generationName(4)) throw new FailedError('stopped')
    createDirectory(name, files)
  }
  t.throws(() => history.rollBack(1, true), { message: 'stopped' })
  history.share.createDirectory = createDirectory
  t.is(history.rollBack(1)?.number, toGeneration(4))
  t.true((await history.contentOf(4)).equals(history.contents[0] ?? nothing))
  t.deepEqual(await flawsOf(history), [])
})

test('a check tells of missing numbers, broken chains, and leases and pins that cannot be read', async (t) => {
  const history = await historyOf(t, 5)
  fs.rmSync(history.share.pathOf(generationName(2)), { recursive: true })
  t.deepEqual(await flawsOf(history), [`${generationName(2)}: it is missing`])
  t.deepEqual((await history.check()).bad[0]?.suffers, [{ generation: '2', path: '', from: 0, to: 0 }])

  fs.rmSync(history.share.pathOf(generationName(3)), { recursive: true })
  t.deepEqual(await flawsOf(history), [`${generationName(3)}: generations 2 to 3 are missing`])

  const pin = createPin(history.share, OTHER, 4)
  flip(history.share.pathOf(`${pin.name}/pin.json`))
  t.regex(
    (await flawsOf(history)).join(),
    /pins\/.*: a pin cannot be read: .*; when no client has this VM mounted, remove/
  )
  fs.rmSync(history.share.pathOf(pin.name), { recursive: true })

  const lease = history.share.pathOf('leases')
  const newest = fs.readdirSync(lease).sort().at(-1) ?? ''
  fs.truncateSync(path.join(lease, newest, 'lease.json'), 20)
  t.regex((await flawsOf(history)).join(), /leases: lease \d+ of .* cannot be read: .* remove/)
})

test('a check notices a history that was put together from two', async (t) => {
  const history = await historyOf(t, 3)
  const directory = history.share.pathOf(generationName(2))
  const other = history.rollBack(1) // as if another client had published it as generation 2
  const bytes = fs.readFileSync(manifestOf(history, other?.number ?? 0), 'utf8')
  const forged = bytes.replace('"generation": 4', '"generation": 2').replace('"generation": 3', '"generation": 1')
  fs.rmSync(history.share.pathOf(generationName(4)), { recursive: true })
  fs.writeFileSync(path.join(directory, 'manifest.json'), forged)
  fs.writeFileSync(path.join(directory, 'manifest.sha256'), `${sha256Hex(Buffer.from(forged))}  manifest.json\n`)
  t.regex((await flawsOf(history)).join('\n'), /generation 3 was made from another generation 2 than this one/)
})

test('vm.json is made anew from the generations, when they agree on whose they are', async (t) => {
  const history = await historyOf(t, 2)
  const file = history.share.pathOf('vm.json')
  const { vm } = readVmDescriptor(history.share)
  t.false(repairDescriptor(history.share), 'it is whole')
  for (const damage of [() => fs.truncateSync(file, 20), () => fs.rmSync(file)]) {
    damage()
    const error = t.throws(() => readVmDescriptor(history.share), { instanceOf: IntegrityError })
    t.regex(error.hint ?? '', /check .* --repair/)
    t.true(repairDescriptor(history.share))
    t.is(readVmDescriptor(history.share).vm, vm)
    t.deepEqual((await history.check()).bad, [])
  }
  await history.next()
  fs.writeFileSync(file, '{"format": "isrfs", "version": 9}')
  t.throws(() => repairDescriptor(history.share), { message: /version 9/ }, 'that of a newer isrfs is not damaged')
  fs.rmSync(file)
  fs.rmSync(history.share.pathOf('generations'), { recursive: true })
  t.throws(() => repairDescriptor(history.share), { message: /there is no VM/ })
})

test('what a newer isrfs has made is not damaged: it is neither rolled over nor given up', async (t) => {
  const history = await historyOf(t, 3)
  const file = manifestOf(history, 3)
  const newer = Buffer.from(fs.readFileSync(file, 'utf8').replace('"version": 1', '"version": 9'))
  fs.writeFileSync(file, newer)
  fs.writeFileSync(path.join(path.dirname(file), 'manifest.sha256'), `${sha256Hex(newer)}  manifest.json\n`)
  t.throws(() => history.rollBack(2), { message: /format version 9/ })
  t.throws(() => history.prune({ giveUp: ['3'] }), { message: /format version 9/ })
  t.deepEqual(fs.readFileSync(file), newer)
})
