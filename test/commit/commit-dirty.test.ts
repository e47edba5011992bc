import test from 'ava'
import {
  BLOCK_BYTES,
  BLOCKS_PER_REGION,
  PAGE_BYTES,
  PAGES_PER_BLOCK,
  REGION_BYTES,
  ROOT_INODE,
  toInodeId,
  regionOf
} from '../../src/base/units.js'
import { contentMayDiffer, countDirtyBlocks, dirtyBlocks, firstDroppedBlock } from '../../src/commit/dirty.js'
import type { Inode } from '../../src/session/namespace-types.js'
import { type BaseInode, Namespace } from '../../src/session/namespace.js'
import { Random } from '../support/random.js'

const FILE = toInodeId(2)

class Live {
  readonly namespace: Namespace
  readonly inode: Inode

  constructor(sizeBytes: number) {
    const common = { mode: 0, uid: 0, gid: 0, atimeNs: 0n, mtimeNs: 0n, ctimeNs: 0n, rdev: 0, target: '' }
    const root: BaseInode = {
      ...common,
      id: ROOT_INODE,
      type: 'directory',
      parent: ROOT_INODE,
      name: '',
      sizeBytes: 0,
      base: undefined
    }
    const base = { sizeBytes, map: null, dataBlocks: 0 }
    const file: BaseInode = { ...common, id: FILE, type: 'file', parent: ROOT_INODE, name: 'disk', sizeBytes, base }
    this.namespace = new Namespace({ nextInode: 3, inodes: [root, file] })
    const inode = this.namespace.get(FILE)
    if (inode === undefined) throw new Error('no file')
    this.inode = inode
  }

  write(offset: number, length: number): void {
    this.namespace.markPages(this.inode, offset, offset + length)
    if (offset + length > this.inode.sizeBytes) this.resize(offset + length)
  }

  resize(sizeBytes: number): void {
    const baseLimitBytes = Math.min(this.inode.baseLimitBytes, sizeBytes)
    this.namespace.apply({ kind: 'size', inode: FILE, sizeBytes, baseLimitBytes })
  }

  punch(firstPage: number, pageCount: number): void {
    this.namespace.apply({ kind: 'punch', inode: FILE, firstPage, pageCount })
  }

  blocks(): number[] {
    return [...dirtyBlocks(this.inode)].map(({ block }) => block)
  }
}

test('a file as the base has it has nothing to send', (t) => {
  const { inode } = new Live(10 * BLOCK_BYTES + 5)
  t.false(contentMayDiffer(inode))
  t.is(countDirtyBlocks(inode), 0)
  t.is(firstDroppedBlock(inode), 11)
})

test('written pages make their block dirty, in ascending order over regions', (t) => {
  const live = new Live(3 * REGION_BYTES)
  live.write(2 * REGION_BYTES + 5 * BLOCK_BYTES + PAGE_BYTES, PAGE_BYTES)
  live.write(BLOCK_BYTES - PAGE_BYTES, 2 * PAGE_BYTES)
  t.true(contentMayDiffer(live.inode))
  t.deepEqual(live.blocks(), [0, 1, 2 * BLOCKS_PER_REGION + 5])
  const [first, second, third] = dirtyBlocks(live.inode)
  t.deepEqual([first?.valid, second?.valid, third?.valid], [[PAGES_PER_BLOCK - 1], [0], [1]])
  t.deepEqual([first?.punched, first?.baseBytes], [[], BLOCK_BYTES])
})

test('holes are dirty, and a page that is written afterwards is none any more', (t) => {
  const live = new Live(2 * BLOCK_BYTES)
  live.punch(PAGES_PER_BLOCK, 3)
  live.write(BLOCK_BYTES + PAGE_BYTES, PAGE_BYTES)
  const [block] = dirtyBlocks(live.inode)
  t.deepEqual([block?.block, block?.valid, block?.punched], [1, [1], [0, 2]])
})

test('a truncate makes the block dirty in which the base ends now, whether its region has pages or not', (t) => {
  const live = new Live(2 * REGION_BYTES)
  live.resize(3 * BLOCK_BYTES + 10)
  t.deepEqual(live.blocks(), [3])
  t.is([...dirtyBlocks(live.inode)][0]?.baseBytes, 10)
  t.is(firstDroppedBlock(live.inode), 4)
  live.write(REGION_BYTES, PAGE_BYTES)
  t.deepEqual(live.blocks(), [3, BLOCKS_PER_REGION], 'before the regions that come after it')
  live.write(0, PAGE_BYTES)
  t.deepEqual(live.blocks(), [0, 3, BLOCKS_PER_REGION], 'among the others of its region')
  live.resize(3 * BLOCK_BYTES)
  t.deepEqual(live.blocks(), [0], 'none at the end of a block')
})

test('what lies past the end of the file is not looked at', (t) => {
  const live = new Live(4 * BLOCK_BYTES)
  live.write(BLOCK_BYTES, 3 * BLOCK_BYTES)
  live.resize(BLOCK_BYTES + 1)
  t.deepEqual(live.blocks(), [1])
  live.resize(0)
  t.deepEqual(live.blocks(), [])
  t.true(contentMayDiffer(live.inode))
})

test('bytes above the base count from no base', (t) => {
  const live = new Live(BLOCK_BYTES + 10)
  live.write(4 * BLOCK_BYTES, PAGE_BYTES)
  t.deepEqual(
    [...dirtyBlocks(live.inode)].map(({ block, baseBytes }) => [block, baseBytes]),
    [[4, 0]]
  )
})

test('where a block lies in its region file', (t) => {
  t.deepEqual(regionOf(0), { region: 0, blockInRegion: 0, offset: 0 })
  t.deepEqual(regionOf(BLOCKS_PER_REGION + 2), { region: 1, blockInRegion: 2, offset: 2 * BLOCK_BYTES })
})

test('random changes: every page that may differ lies in a dirty block or above what the base keeps', (t) => {
  const random = new Random()
  t.log(`seed ${String(random.seed)}`)
  for (let round = 0; round < 50; round++) {
    const baseBytes = random.below(2 * REGION_BYTES)
    const live = new Live(baseBytes)
    const touched = new Set<number>()
    let lowest = baseBytes
    for (let step = 0; step < 8; step++) {
      const page = random.below((2 * REGION_BYTES) / PAGE_BYTES)
      const size = page * PAGE_BYTES + random.below(PAGE_BYTES)
      if (random.below(3) === 0) {
        live.resize(size)
        lowest = Math.min(lowest, size)
        for (const other of touched) if (other * PAGE_BYTES >= size) touched.delete(other)
      } else {
        live.write(page * PAGE_BYTES, PAGE_BYTES)
        touched.add(page)
      }
    }
    const expected = new Set([...touched].map((page) => Math.floor(page / PAGES_PER_BLOCK)))
    if (lowest < baseBytes && lowest % BLOCK_BYTES !== 0) expected.add(Math.floor(lowest / BLOCK_BYTES))
    t.deepEqual(
      live.blocks(),
      [...expected].sort((first, second) => first - second)
    )
    t.is(firstDroppedBlock(live.inode), Math.ceil(lowest / BLOCK_BYTES))
  }
})
