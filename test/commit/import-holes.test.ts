import fs from 'node:fs'
import path from 'node:path'
import test from 'ava'
import { dataExtents, isInHole } from '../../src/commit/import-holes.js'
import { temporaryDirectory } from '../support/make-vm.js'

const MIB = 1024 * 1024

test('the data of a sparse file is found without reading it', (t) => {
  const file = path.join(temporaryDirectory('holes'), 'disk')
  const fd = fs.openSync(file, 'w')
  fs.ftruncateSync(fd, 200 * 1024 * MIB)
  fs.writeSync(fd, 'data', 64 * 1024 * MIB + 100)
  fs.writeSync(fd, 'more', 200 * 1024 * MIB - 4)
  fs.closeSync(fd)
  const { size, blocks } = fs.statSync(file)
  const extents = dataExtents(file, size, blocks * 512)
  t.is(extents?.length, 2)
  t.true(isInHole(extents ?? [], 0, 64 * 1024 * MIB))
  t.false(isInHole(extents ?? [], 64 * 1024 * MIB, 64 * 1024 * MIB + MIB))
  t.true(isInHole(extents ?? [], 65 * 1024 * MIB, 199 * 1024 * MIB))
  t.false(isInHole(extents ?? [], size - 1, size))
})

test('nothing is said of small, full or missing files', (t) => {
  const file = path.join(temporaryDirectory('holes'), 'disk')
  fs.writeFileSync(file, 'small')
  t.is(dataExtents(file, 5, 4096), undefined)
  t.is(dataExtents(file, 100 * MIB, 100 * MIB), undefined)
  t.is(dataExtents(`${file}-missing`, 100 * MIB, 0), undefined)
  fs.truncateSync(file, 100 * MIB)
  t.true(isInHole(dataExtents(file, 100 * MIB, 4096) ?? [[0, 1]], 50 * MIB, 100 * MIB))
})
