import fs from 'node:fs'
import path from 'node:path'
import test from 'ava'
import {
  isRemoved,
  removals,
  removeDirectoryLater,
  removeFileLater,
  sweepRemoved
} from '../../src/base/remove-later.js'
import { temporaryDirectory } from '../support/make-vm.js'

const FIRST = 'removed-00112233445566aa'
const SECOND = 'removed-00112233445566bb'

test.serial('names are free at once; what had them goes after that, whole', async (t) => {
  const directory = temporaryDirectory('remove')
  const file = path.join(directory, 'file')
  const below = path.join(directory, 'tree', 'below')
  fs.mkdirSync(below, { recursive: true })
  for (const name of [file, path.join(directory, 'tree', 'a'), path.join(below, 'b')]) fs.writeFileSync(name, 'x')
  removeFileLater(file)
  removeDirectoryLater(path.join(directory, 'tree'))
  t.true(fs.readdirSync(directory).every(isRemoved))
  fs.writeFileSync(file, 'new')
  await removals()
  t.deepEqual(fs.readdirSync(directory), ['file'])
  t.is(fs.readFileSync(file, 'utf8'), 'new')
})

test.serial('a file may go through another directory, and one that is not there is no error', async (t) => {
  const directory = temporaryDirectory('remove')
  const inner = path.join(directory, 'inner')
  fs.mkdirSync(inner)
  fs.writeFileSync(path.join(inner, 'file'), 'x')
  removeFileLater(path.join(inner, 'file'), directory)
  removeFileLater(path.join(inner, 'file'), directory)
  removeDirectoryLater(path.join(directory, 'nothing'))
  t.deepEqual(fs.readdirSync(inner), [])
  await removals()
  t.deepEqual(fs.readdirSync(directory), ['inner'])
})

test.serial('only so many files take space without being there', async (t) => {
  const directory = temporaryDirectory('remove')
  const files = Array.from({ length: 50 }, (_, index) => path.join(directory, String(index)))
  for (const file of files) fs.writeFileSync(file, 'x')
  for (const file of files) removeFileLater(file)
  t.is(fs.readdirSync(directory).length, 16)
  await removals()
  t.deepEqual(fs.readdirSync(directory), [])
})

test.serial('what a crash has left is removed later, by several at once if need be; nothing else is', async (t) => {
  const directory = temporaryDirectory('remove')
  fs.mkdirSync(path.join(directory, FIRST, 'below'), { recursive: true })
  fs.writeFileSync(path.join(directory, FIRST, 'below', 'file'), 'x')
  fs.writeFileSync(path.join(directory, SECOND), 'x')
  fs.writeFileSync(path.join(directory, 'mine'), 'x')
  fs.writeFileSync(path.join(directory, 'removed-by-me'), 'x')
  for (let times = 0; times < 2; times++) sweepRemoved(directory)
  await removals()
  t.deepEqual(fs.readdirSync(directory).sort(), ['mine', 'removed-by-me'])
})

test.serial('directories of other mounts are swept, and nothing but what they have removed', async (t) => {
  const directory = temporaryDirectory('remove')
  for (const place of ['12/0', '12/x', 'other/0', `12/0/deeper`]) {
    fs.mkdirSync(path.join(directory, place, FIRST), { recursive: true })
    fs.writeFileSync(path.join(directory, place, FIRST, 'file'), 'x')
  }
  fs.writeFileSync(path.join(directory, '12', '0', '7-1'), 'x')
  sweepRemoved(directory, /^12$/, /^\d$/)
  sweepRemoved(path.join(directory, 'nothing'), /./)
  await removals()
  t.deepEqual(fs.readdirSync(path.join(directory, '12', '0')).sort(), ['7-1', 'deeper'])
  for (const place of ['12/x', 'other/0', '12/0/deeper'])
    t.deepEqual(fs.readdirSync(path.join(directory, place)), [FIRST])
})

test.serial('where space is short (here because /proc has none) removing waits until it is done', (t) => {
  const directory = temporaryDirectory('remove')
  const file = path.join(directory, 'file')
  fs.writeFileSync(file, 'x')
  removeFileLater(file, '/proc')
  t.deepEqual(fs.readdirSync(directory), [])
})

test.serial('what cannot be removed keeps nothing else that was left', async (t) => {
  const directory = temporaryDirectory('remove')
  const { unlink } = fs.promises
  t.teardown(() => {
    fs.promises.unlink = unlink
  })
  const stuck = path.join(directory, 'a', FIRST)
  for (const file of [stuck, path.join(directory, 'a', SECOND), path.join(directory, 'b', FIRST)]) {
    fs.mkdirSync(path.dirname(file), { recursive: true })
    fs.writeFileSync(file, 'x')
  }
  fs.promises.unlink = (file) =>
    file === stuck ? Promise.reject(Object.assign(new Error('EIO'), { code: 'EIO' })) : unlink(file)
  sweepRemoved(directory, /^[ab]$/)
  await removals()
  t.deepEqual([fs.readdirSync(path.join(directory, 'a')), fs.readdirSync(path.join(directory, 'b'))], [[FIRST], []])
})
