/** A session of a VM with one empty file, and what a crash or a power cut makes of it. */
import fs from 'node:fs'
import path from 'node:path'
import { isRemoved } from '../../src/base/remove-later.js'
import { ROOT_INODE, toInodeId } from '../../src/base/units.js'
import type { BaseImage, BaseInode } from '../../src/session/namespace.js'
import type { Inode } from '../../src/session/namespace-types.js'
import { Session, type SessionIdentity, type SessionOptions } from '../../src/session/session.js'
import { temporaryDirectory } from './make-vm.js'

export const FILE = toInodeId(2)
export const identity: SessionIdentity = {
  sessionId: 'fedcba9876543210',
  vmId: '0123456789abcdef',
  client: '00112233445566778899aabbccddeeff',
  baseGeneration: 1,
  baseDigest: 'ab'.repeat(32),
  createdIso: '2026-11-23T00:00:00.000Z',
  leaseNumber: 1,
  discard: false
}

const inode = (id: number, name: string, type: BaseInode['type']): BaseInode => ({
  id: toInodeId(id),
  type,
  mode: 0o755,
  uid: 0,
  gid: 0,
  atimeNs: 1n,
  mtimeNs: 2n,
  ctimeNs: 3n,
  rdev: 0,
  target: '',
  parent: ROOT_INODE,
  name,
  sizeBytes: 0,
  base: type === 'file' ? { sizeBytes: 0, map: null, dataBlocks: 0 } : undefined
})
export const base: BaseImage = { nextInode: 3, inodes: [inode(1, '', 'directory'), inode(2, 'disk', 'file')] }

export function create(options: SessionOptions = {}): { directory: string; session: Session; file: Inode } {
  const directory = temporaryDirectory('session')
  const session = Session.create(directory, identity, base, options)
  return { directory, session, file: fileOf(session) }
}

export function fileOf(session: Session): Inode {
  const file = session.namespace.get(FILE)
  if (file === undefined) throw new Error('no file')
  return file
}

/** Without what is being removed meanwhile. */
export function copyOfSession(directory: string, copy: string): void {
  fs.cpSync(directory, copy, { recursive: true, filter: (from) => !isRemoved(path.basename(from)) })
}

/** A copy of the session as a crash would leave it: the process is gone, the page cache is not. */
export function crash(directory: string): string {
  const copy = path.join(temporaryDirectory('crashed'), 'session')
  copyOfSession(directory, copy)
  return copy
}

/** The same after a reboot. */
export function powerCut(directory: string): string {
  const copy = crash(directory)
  const file = path.join(copy, 'session.json')
  const content = JSON.parse(fs.readFileSync(file, 'utf8')) as object
  fs.writeFileSync(file, JSON.stringify({ ...content, boot: 'another boot' }))
  return copy
}
