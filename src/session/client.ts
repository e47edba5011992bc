/**
 * Who this client is: a random id in its directory, bound to this machine and to this very directory. A copied or
 * restored directory is noticed by its device and inode, becomes a new client, and its sessions are set aside: two
 * clients must never both go on with one session. Device numbers count within one boot of the machine only: btrfs,
 * LVM and disks that are found in another order have other ones after a restart, and a session that survived a power
 * cut must not be mistaken for a copy.
 */
import { randomBytes } from 'node:crypto'
import fs from 'node:fs'
import path from 'node:path'
import * as z from 'zod'
import { errnoOf, FailedError, messageOf } from '../base/errors.js'
import { currentBootId } from './boot.js'
import { readIfThere, replaceFileDurably } from './durable-file.js'

export interface Client {
  readonly id: string
  readonly directory: string
  /** the directory was made or given an id now */
  readonly isNew: boolean
  /** it came from somewhere else: new id, sessions set aside */
  readonly wasCopied: boolean
}

const clientSchema = z.object({
  format: z.literal('isrfs-client'),
  version: z.literal(1),
  id: z.string().regex(/^[0-9a-f]{32}$/),
  machine: z.string().max(64),
  device: z.string(),
  inode: z.string(),
  /** boot of the machine in which it was last used; the device's number is of this boot */
  boot: z.string().max(64).optional()
})

type Place = Pick<z.infer<typeof clientSchema>, 'machine' | 'device' | 'inode'> & { readonly boot: string }

/** Opens the client directory, creating it (0700) if missing. */
export function openClient(directory: string): Client {
  try {
    fs.mkdirSync(directory, { recursive: true, mode: 0o700 })
    const { dev, ino, uid, mode } = fs.statSync(directory, { bigint: true })
    if (uid !== BigInt(process.geteuid?.() ?? uid)) {
      throw new FailedError(`the client directory ${directory} belongs to another user`, {
        hint: 'use another --client-dir'
      })
    }
    if ((mode & 0o077n) !== 0n) fs.chmodSync(directory, 0o700)
    return identify(directory, {
      machine: machineId(),
      device: String(dev),
      inode: String(ino),
      boot: currentBootId()
    })
  } catch (error) {
    if (error instanceof FailedError) throw error
    throw new FailedError(`cannot use the client directory ${directory}: ${messageOf(error)}`, {
      hint: 'give a directory that you can write to: --client-dir DIR, or ISRFS_CLIENT_DIR',
      cause: error
    })
  }
}

function identify(directory: string, here: Place): Client {
  const file = path.join(directory, 'client.json')
  const bytes = readIfThere(file)
  const known = bytes === undefined ? undefined : parse(bytes, file)
  if (known !== undefined && isSamePlace(known, here)) {
    if (known.device !== here.device || known.boot !== here.boot) write(file, known.id, here)
    return { id: known.id, directory, isNew: false, wasCopied: false }
  }
  const id = randomBytes(16).toString('hex')
  if (known !== undefined) setSessionsAside(directory, known.id)
  write(file, id, here)
  return { id, directory, isNew: known === undefined, wasCopied: known !== undefined }
}

function isSamePlace(known: z.infer<typeof clientSchema>, here: Place): boolean {
  const sameDevice = known.device === here.device || known.boot !== here.boot
  return known.machine === here.machine && known.inode === here.inode && sameDevice
}

function write(file: string, id: string, here: Place): void {
  const content = { format: 'isrfs-client', version: 1, id, ...here }
  replaceFileDurably(file, Buffer.from(`${JSON.stringify(content, undefined, 1)}\n`))
}

function setSessionsAside(directory: string, oldId: string): void {
  try {
    fs.renameSync(path.join(directory, 'sessions'), path.join(directory, `sessions-of-${oldId}-${String(Date.now())}`))
  } catch (error) {
    if (errnoOf(error) !== 'ENOENT') throw error
  }
}

function parse(bytes: Buffer, file: string): z.infer<typeof clientSchema> {
  try {
    return clientSchema.parse(JSON.parse(bytes.toString('utf8')))
  } catch (error) {
    throw new FailedError(`${file} is damaged`, {
      hint: `its sessions may hold changes that are nowhere else: keep ${path.dirname(file)}, and use another --client-dir meanwhile`,
      cause: error
    })
  }
}

function machineId(): string {
  return readIfThere('/etc/machine-id')?.toString('latin1').trim() ?? 'unknown'
}

/** For whoever looks for sessions in a directory that has just become a new client. */
export function copiedNotice(directory: string): string {
  return `${directory} is a copy of another client's directory: it is a new client now, and sessions in it were set aside (sessions-of-*). The original may still publish them; to recover one here all the same: isrfs recover <vm> --from <directory>`
}
