/** publish-generation.js VM NUMBER SESSION: publishes the newest generation's content again; prints "won" or "lost". */
import { NotPublishedError } from '../../src/base/errors.js'
import { publishGeneration, readNewestGeneration } from '../../src/format/generations.js'
import { Share } from '../../src/share/share.js'

const [root = '', number = '', session = ''] = process.argv.slice(2)
const share = new Share(root)
const newest = readNewestGeneration(share)
try {
  publishGeneration(share, {
    ...newest.manifest,
    generation: Number(number),
    parent: { generation: 1, digest: newest.digest },
    session
  })
  process.stdout.write('won\n')
} catch (error) {
  if (!(error instanceof NotPublishedError)) throw error
  process.stdout.write('lost\n')
}
