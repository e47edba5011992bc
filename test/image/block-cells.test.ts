/** The picture of a file's blocks against a model that looks at each block by itself. */
import test from 'ava'
import { setBit } from '../../src/base/bits.js'
import { BLOCK_BYTES, BLOCKS_PER_REGION } from '../../src/base/units.js'
import { blockCells, CELL_STATES, type CellState, changedBlocks } from '../../src/image/block-cells.js'
import { Random } from '../support/random.js'

const REGIONS = 12
const BLOCKS = REGIONS * BLOCKS_PER_REGION - 17

interface Model {
  readonly states: (CellState | 'absent')[]
  readonly inode: any
  readonly sources: any
}

/** A file whose blocks have random states; some have marks of several, of which the first counts. */
function randomFile(random: Random): Model {
  const states: (CellState | 'absent')[] = []
  const regions = new Map<number, { valid: Uint32Array; punched: undefined }>()
  const cached = new Map<number, any>()
  const inFlight = new Map<number, Uint32Array>()
  const uploaded = new Map<number, object>()
  const empty = new Set<number>()
  const trickled = new Set<number>()
  const bits = () => new Uint32Array(BLOCKS_PER_REGION / 32)
  for (let block = 0; block < BLOCKS; block++) {
    const region = Math.floor(block / BLOCKS_PER_REGION)
    const index = block % BLOCKS_PER_REGION
    if (region === 3) {
      states.push('absent') // nobody has ever looked at this region
      continue
    }
    const known = cached.get(region) ?? { present: bits(), foretold: bits(), kept: bits(), zero: undefined }
    cached.set(region, known)
    const marks = CELL_STATES.filter(() => random.below(5) === 0)
    const isTrickled = random.below(3) === 0
    if (isTrickled) trickled.add(block)
    if (marks.includes('dirty')) {
      const pages = regions.get(region) ?? { valid: new Uint32Array(BLOCKS_PER_REGION), punched: undefined }
      regions.set(region, pages)
      pages.valid[index] = 1 << random.below(32)
    }
    if (marks.includes('inFlight')) {
      inFlight.set(region, inFlight.get(region) ?? bits())
      setBit(inFlight.get(region)!, index)
    }
    if (marks.includes('foretold')) {
      setBit(known.foretold, index)
      setBit(known.present, index)
    }
    if (marks.includes('present')) setBit(random.below(2) === 0 ? known.present : known.kept, index)
    if (marks.includes('sent')) uploaded.set(block, {})
    if (marks.includes('empty')) empty.add(block)
    const first = CELL_STATES.find((state) => marks.includes(state)) ?? 'absent'
    states.push(first === 'dirty' && isTrickled ? 'sent' : first)
  }
  const sizeBytes = BLOCKS * BLOCK_BYTES - 5
  const page = (index: number) => ({ isZero: (block: number) => empty.has(index * 1024 + block) })
  return {
    states,
    inode: { id: 7, sizeBytes, baseLimitBytes: sizeBytes, base: { map: {} }, regions, uploaded },
    sources: {
      cache: {
        knownRegion: (_inode: number, region: number) => cached.get(region),
        kept: (_inode: number, _region: number, known: any) => known.kept
      },
      maps: { knownPage: (_map: object, index: number) => page(index) },
      inFlight,
      isSent: (block: number) => trickled.has(block)
    }
  }
}

test('any stretch in any number of cells has the shares that the blocks of each cell have', (t) => {
  const random = new Random()
  t.log(`seed ${random.seed}`)
  for (let round = 0; round < 60; round++) {
    const { states, inode, sources } = randomFile(random)
    const firstBlock = random.below(BLOCKS)
    const wanted = { firstBlock, blocks: 1 + random.below(2 * BLOCKS), cells: 1 + random.below(300) }
    const seen = blockCells(inode, wanted, sources)
    t.is(seen.blocks, Math.min(wanted.blocks, BLOCKS - firstBlock))
    t.is(seen.cells, Math.min(wanted.cells, seen.blocks))
    for (let cell = 0; cell < seen.cells; cell++) {
      const from = firstBlock + Math.floor((cell * seen.blocks) / seen.cells)
      const end = firstBlock + Math.floor(((cell + 1) * seen.blocks) / seen.cells)
      for (const state of CELL_STATES) {
        const count = states.slice(from, end).filter((one) => one === state).length
        t.is(seen.states[state][cell], Math.ceil((255 * count) / (end - from)), `${state} of cell ${cell}`)
      }
    }
    const { changed, unsent } = changedBlocks(inode, sources.isSent)
    t.is(unsent, states.filter((state) => state === 'dirty').length)
    t.is(changedBlocks(inode, () => false).unsent, changed)
    t.true(changed > unsent)
  }
})

test('an empty file, a file beyond its base, and a map that is not known', (t) => {
  const sources = { ...randomFile(new Random()).sources, inFlight: new Map() }
  const nothing = { id: 8, sizeBytes: 0, baseLimitBytes: 0, base: undefined, regions: new Map(), uploaded: new Map() }
  t.is(blockCells(nothing as any, { firstBlock: 0, blocks: 10, cells: 10 }, sources).cells, 0)
  const none = { ...sources, cache: { knownRegion: () => undefined }, maps: { knownPage: () => undefined } }
  const grown = { ...nothing, sizeBytes: 4 * BLOCK_BYTES, baseLimitBytes: 2 * BLOCK_BYTES }
  const { states } = blockCells(grown as any, { firstBlock: 0, blocks: 4, cells: 4 }, none)
  t.deepEqual([...states.empty], [0, 0, 255, 255], 'what the file has grown by has no bytes')
})
