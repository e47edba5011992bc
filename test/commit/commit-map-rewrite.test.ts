import test from 'ava'
import { sha256, sha256Hex } from '../../src/base/digest.js'
import { BLOCKS_PER_MAP_PAGE } from '../../src/base/units.js'
import { BaseMaps } from '../../src/cache/base-maps.js'
import { type FileMap, type MapChanges, rewriteMap } from '../../src/commit/map-rewrite.js'
import type { BlockPlace, ObjectPlace } from '../../src/format/place.js'

const NO_MAP: FileMap = { map: null, dataBlocks: 0 }
const EVERYTHING = Number.MAX_SAFE_INTEGER

/** Map objects in memory. */
class Objects {
  readonly written: number[] = []
  loads = 0
  readonly #objects = new Map<string, Buffer>()
  maps = this.#fresh()

  write = (objects: readonly Buffer[]): Promise<ObjectPlace[]> => {
    this.written.push(objects.length)
    return Promise.resolve(
      objects.map((bytes) => {
        const digest = sha256Hex(bytes)
        this.#objects.set(digest, bytes)
        const { length } = bytes
        return { encoding: 'raw', chunk: digest, offset: 0, storedBytes: length, plainBytes: length, digest }
      })
    )
  }

  async rewrite(old: FileMap, changes: Partial<MapChanges>): Promise<FileMap> {
    this.written.length = 0
    this.maps = this.#fresh()
    return rewriteMap(old, { blocks: new Map(), firstDroppedBlock: EVERYTHING, ...changes }, this.maps, this.write)
  }

  /** Blocks of a map, and that it counts them right. */
  async blocks({ map, dataBlocks }: FileMap): Promise<Map<number, BlockPlace>> {
    const blocks = new Map<number, BlockPlace>()
    const maps = this.#fresh()
    for (const page of map === null ? [] : (await maps.root(map)).keys()) {
      for (let index = page * BLOCKS_PER_MAP_PAGE; index < (page + 1) * BLOCKS_PER_MAP_PAGE; index++) {
        const place = await maps.place(map, index)
        if (place !== undefined) blocks.set(index, place)
      }
    }
    if (blocks.size !== dataBlocks) throw new Error(`${String(dataBlocks)} blocks instead of ${String(blocks.size)}`)
    return blocks
  }

  #fresh(): BaseMaps {
    return new BaseMaps(({ digest }) => {
      this.loads++
      const bytes = this.#objects.get(digest)
      return bytes === undefined ? Promise.reject(new Error('no such object')) : Promise.resolve(bytes)
    })
  }
}

function place(seed: number): BlockPlace {
  const digest = sha256(Buffer.from(String(seed)))
  return { encoding: 'zstd', chunk: digest.toString('hex'), offset: seed, storedBytes: 100, digest }
}

test('a map is made of the blocks of a new file, and of nothing when all of them are zero', async (t) => {
  const objects = new Objects()
  const made = await objects.rewrite(NO_MAP, { blocks: new Map([[3, place(3)]]), firstDroppedBlock: 0 })
  t.deepEqual(await objects.blocks(made), new Map([[3, place(3)]]))
  t.deepEqual(objects.written, [1, 1])
  t.deepEqual(await objects.rewrite(NO_MAP, { blocks: new Map([[3, undefined]]), firstDroppedBlock: 0 }), NO_MAP)
  t.deepEqual(objects.written, [])
  t.is(await objects.rewrite(NO_MAP, {}), NO_MAP)
})

test('only pages that a change touches are read and written', async (t) => {
  const objects = new Objects()
  const far = 5 * BLOCKS_PER_MAP_PAGE
  const old = await objects.rewrite(NO_MAP, {
    blocks: new Map([
      [0, place(1)],
      [7, place(2)],
      [far, place(3)]
    ])
  })
  objects.loads = 0
  const changed = await objects.rewrite(old, { blocks: new Map([[7, place(9)]]) })
  t.deepEqual(
    await objects.blocks(changed),
    new Map([
      [0, place(1)],
      [7, place(9)],
      [far, place(3)]
    ])
  )
  t.deepEqual(objects.written, [1, 1])
})

test('the same places give the old map back and write nothing', async (t) => {
  const objects = new Objects()
  const old = await objects.rewrite(NO_MAP, { blocks: new Map([[7, place(2)]]) })
  t.is(await objects.rewrite(old, { blocks: new Map([[7, place(2)]]) }), old)
  t.deepEqual(objects.written, [])
  t.is(await objects.rewrite(old, { blocks: new Map([[9, undefined]]) }), old)
  t.is(await objects.rewrite(old, { firstDroppedBlock: 8 }), old)
})

test('a truncate drops blocks in its page and whole pages behind it, but not what was written again', async (t) => {
  const objects = new Objects()
  const far = 3 * BLOCKS_PER_MAP_PAGE
  const old = await objects.rewrite(NO_MAP, {
    blocks: new Map([
      [0, place(1)],
      [7, place(2)],
      [8, place(3)],
      [far, place(4)],
      [far + 1, place(5)]
    ])
  })
  const cut = await objects.rewrite(old, { firstDroppedBlock: 7, blocks: new Map([[far + 1, place(6)]]) })
  t.deepEqual(
    await objects.blocks(cut),
    new Map([
      [0, place(1)],
      [far + 1, place(6)]
    ])
  )
  t.deepEqual(await objects.rewrite(old, { firstDroppedBlock: 0 }), NO_MAP)
})

test('the last block that becomes zero takes its page with it', async (t) => {
  const objects = new Objects()
  const old = await objects.rewrite(NO_MAP, {
    blocks: new Map([
      [1, place(1)],
      [BLOCKS_PER_MAP_PAGE, place(2)]
    ])
  })
  const one = await objects.rewrite(old, { blocks: new Map([[BLOCKS_PER_MAP_PAGE, undefined]]) })
  t.deepEqual([...(await objects.blocks(one)).keys()], [1])
  t.deepEqual(objects.written, [1], 'a root')
  t.deepEqual(await objects.rewrite(one, { blocks: new Map([[1, undefined]]) }), NO_MAP)
})

test('many pages are written in batches', async (t) => {
  const objects = new Objects()
  const blocks = new Map(Array.from({ length: 300 }, (_, page) => [page * BLOCKS_PER_MAP_PAGE, place(page)]))
  t.is((await objects.blocks(await objects.rewrite(NO_MAP, { blocks }))).size, 300)
  t.deepEqual(objects.written, [128, 128, 44, 1])
})

test('a writer that answers less than it was given is not believed', async (t) => {
  const objects = new Objects()
  const changes = { blocks: new Map([[0, place(1)]]), firstDroppedBlock: EVERYTHING }
  await t.throwsAsync(
    rewriteMap(NO_MAP, changes, objects.maps, () => Promise.resolve([])),
    { message: /map page was not written/ }
  )
})
