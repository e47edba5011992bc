/**
 * Walks the plain directory that is imported: what is there, with its attributes, parents before children, siblings by
 * name. Nothing is read but directories. What cannot be carried is refused (names) or skipped with a warning (sockets).
 */
import { dataExtents, type Extent } from './import-holes.js'
import fs from 'node:fs'
import path from 'node:path'
import { FailedError, messageOf } from '../base/errors.js'
import { FILE_BYTES_MAX, LINKS_MAX, toFileTime } from '../base/units.js'
import { whyNameIsRefused } from '../format/manifest.js'
import { joinPieces } from './import-pieces.js'

/** names that libfuse gives to files that were removed while open */
const HIDDEN_PREFIX = '.fuse_hidden'
const REFUSED_NAMES_SHOWN_MAX = 5

/** A plain file, or one piece of a file, as it was when it was found. */
export interface SourcePart {
  readonly path: string
  readonly sizeBytes: number
  readonly device: bigint
  readonly inode: bigint
  readonly mtimeNs: bigint
  /** the file system has no byte of it on its disk: all zero, although the size says otherwise */
  readonly isHole: boolean
  /** where its data is, when that is known: everything else is zero */
  readonly data?: readonly Extent[] | undefined
}

interface SourceAttributes {
  /** relative to the imported directory, '' for the directory itself: what an update recognises a file by */
  readonly relativePath: string
  readonly name: string
  readonly mode: number
  readonly uid: number
  readonly gid: number
  readonly atimeNs: bigint
  readonly mtimeNs: bigint
  readonly ctimeNs: bigint
  /** hard links: further paths of the same file, found after it */
  readonly otherPaths: string[]
}

export type SourceFile = SourceAttributes & {
  readonly type: 'file'
  readonly sizeBytes: number
  /** more than one: pieces that are joined */
  readonly parts: readonly SourcePart[]
}

export type SourceEntry =
  | SourceFile
  | (SourceAttributes & { readonly type: 'directory' | 'fifo' })
  | (SourceAttributes & { readonly type: 'symlink'; readonly target: string })
  | (SourceAttributes & { readonly type: 'character-device' | 'block-device'; readonly rdev: number })

/** What has several names, as it was when the first of them was found. */
interface FirstPath {
  readonly absolute: string
  readonly stat: fs.BigIntStats
  readonly otherPaths: string[]
}

export interface ScanOptions {
  /** absolute path of an existing directory */
  readonly source: string
  readonly joinPieces: boolean
  readonly onWarning: (message: string) => void
}

/** Everything below `source`, itself first. */
export function scanDirectory(options: ScanOptions): SourceEntry[] {
  return new Scan(options).run()
}

class Scan {
  readonly #options: ScanOptions
  readonly #entries: SourceEntry[] = []
  readonly #refused: string[] = []
  /** what has several names, by device and inode */
  readonly #linked = new Map<string, FirstPath>()
  readonly #trusted = new Map<bigint, boolean>()

  constructor(options: ScanOptions) {
    this.#options = options
  }

  run(): SourceEntry[] {
    this.#visit('', '')
    if (this.#refused.length > 0) {
      const more = this.#refused.length - REFUSED_NAMES_SHOWN_MAX
      const shown = this.#refused.slice(0, REFUSED_NAMES_SHOWN_MAX).join('; ')
      throw new FailedError(`names that cannot be imported: ${shown}${more > 0 ? `; and ${more} more` : ''}`, {
        hint: 'rename them (names have to be valid UTF-8) and repeat the import'
      })
    }
    return this.#entries
  }

  #visit(relativePath: string, name: string): void {
    const absolute = path.join(this.#options.source, relativePath)
    const stat = this.#try(absolute, () => fs.lstatSync(absolute, { bigint: true }))
    const attributes = attributesOf(relativePath, name, stat)
    if (stat.isDirectory()) {
      this.#entries.push({ ...attributes, type: 'directory' })
      this.#visitChildren(relativePath, absolute)
    } else if (stat.nlink > 1n && !stat.isSocket() && this.#isKnown(attributes, absolute, stat)) {
      return
    } else if (stat.isFile()) {
      this.#entries.push(this.#file(attributes, absolute, stat))
    } else if (stat.isSymbolicLink()) {
      this.#symlink(attributes, absolute)
    } else if (stat.isFIFO()) {
      this.#entries.push({ ...attributes, type: 'fifo' })
    } else if (stat.isCharacterDevice() || stat.isBlockDevice()) {
      const type = stat.isBlockDevice() ? 'block-device' : 'character-device'
      this.#entries.push({ ...attributes, type, rdev: Number(stat.rdev) })
    } else {
      this.#options.onWarning(`${absolute} is a socket: skipped, since only its maker can answer on it`)
    }
  }

  #visitChildren(relativePath: string, absolute: string): void {
    const raw = this.#try(absolute, () => fs.readdirSync(absolute, { encoding: 'buffer' }))
    const names = raw.flatMap((bytes) => this.#checkName(bytes, absolute)).sort()
    const before = this.#entries.length
    for (const name of names) this.#visit(relativePath === '' ? name : `${relativePath}/${name}`, name)
    if (!this.#options.joinPieces) return
    const isSibling = (entry: SourceEntry): boolean => path.join(relativePath, entry.name) === entry.relativePath
    this.#entries.splice(before, Infinity, ...joinPieces(this.#entries.slice(before), isSibling, absolute))
  }

  /** The name as text, or nothing when it is skipped or refused. */
  #checkName(bytes: Buffer, directory: string): string[] {
    const name = bytes.toString('utf8')
    const why = Buffer.from(name).equals(bytes) ? whyNameIsRefused(name) : 'is not valid UTF-8'
    if (why !== undefined) {
      this.#refused.push(`${directory}/${printable(bytes)} ${why}`)
      return []
    }
    if (!name.startsWith(HIDDEN_PREFIX)) return [name]
    this.#options.onWarning(`${directory}/${name} is a file that was removed while open: skipped`)
    return []
  }

  #file(attributes: SourceAttributes, absolute: string, stat: fs.BigIntStats): SourceFile {
    const sizeBytes = Number(stat.size)
    if (sizeBytes > FILE_BYTES_MAX) {
      throw new FailedError(`${absolute} has ${sizeBytes} bytes, more than the 16 TiB that a file may have`)
    }
    const part: SourcePart = {
      path: absolute,
      sizeBytes,
      device: stat.dev,
      inode: stat.ino,
      mtimeNs: stat.mtimeNs,
      isHole: stat.blocks === 0n && sizeBytes > 0 && this.#countsBlocks(absolute, stat.dev),
      data: this.#countsBlocks(absolute, stat.dev)
        ? dataExtents(absolute, sizeBytes, Number(stat.blocks) * 512)
        : undefined
    }
    return { ...attributes, type: 'file', sizeBytes, parts: [part] }
  }

  /**
   * Whether it is another name of what was found before. Numbers alone do not decide: file systems are known that give one
   * to two files, and a file that changes meanwhile is not to take another's place.
   */
  #isKnown(attributes: SourceAttributes, absolute: string, stat: fs.BigIntStats): boolean {
    const key = `${stat.dev}:${stat.ino}`
    const first = this.#linked.get(key)
    if (first === undefined) {
      this.#linked.set(key, { absolute, stat, otherPaths: attributes.otherPaths })
      return false
    }
    const why = this.#whyApart(first, stat)
    if (why === undefined) {
      first.otherPaths.push(attributes.relativePath)
      return true
    }
    this.#options.onWarning(
      `${absolute} is another name of ${first.absolute}, but ${why}: imported as a file of its own`
    )
    return false
  }

  #whyApart({ stat, otherPaths }: FirstPath, other: fs.BigIntStats): string | undefined {
    if (!SAME_FILE.every((field) => stat[field] === other[field])) return 'it is not the same file any more'
    if (otherPaths.length >= LINKS_MAX - 1) return `that one has ${LINKS_MAX} names already`
    if (stat.isFile() && this.#options.joinPieces) return 'pieces are joined' // one of them may become part of another file
    return undefined
  }

  #symlink(attributes: SourceAttributes, absolute: string): void {
    const bytes = this.#try(absolute, () => fs.readlinkSync(absolute, { encoding: 'buffer' }))
    const target = bytes.toString('utf8')
    if (!Buffer.from(target).equals(bytes)) {
      this.#refused.push(`${absolute} points to ${printable(bytes)}, which is not valid UTF-8`)
      return
    }
    const resolved = path.posix.join(path.posix.dirname(attributes.relativePath), target)
    if (path.posix.isAbsolute(target) || resolved === '..' || resolved.startsWith('../')) {
      this.#options.onWarning(
        `${absolute} is a symbolic link that leads outside of the directory, to ${target}: imported as it is`
      )
    }
    this.#entries.push({ ...attributes, type: 'symlink', target })
  }

  /**
   * Whether st_blocks and SEEK_HOLE tell the truth about bytes that were written a moment ago. Others (ZFS, NFS, FUSE)
   * may show a hole where data still waits to be written: there, holes are found by reading zeros.
   */
  #countsBlocks(absolute: string, device: bigint): boolean {
    const known = this.#trusted.get(device)
    if (known !== undefined) return known
    const trusted = COUNTING_FILE_SYSTEMS.has(this.#try(absolute, () => fs.statfsSync(absolute).type))
    this.#trusted.set(device, trusted)
    return trusted
  }

  #try<Result>(absolute: string, call: () => Result): Result {
    try {
      return call()
    } catch (error) {
      throw new FailedError(`cannot read ${absolute}: ${messageOf(error)}`, { cause: error })
    }
  }
}

/** what two names of one file have in common, beside its number */
const SAME_FILE = ['mode', 'uid', 'gid', 'size', 'nlink', 'rdev', 'mtimeNs', 'ctimeNs'] as const

/** f_type of ext2 to 4, XFS, Btrfs and tmpfs (statfs(2)). */
const COUNTING_FILE_SYSTEMS: ReadonlySet<number> = new Set([0xef53, 0x58465342, 0x9123683e, 0x01021994])

function attributesOf(relativePath: string, name: string, stat: fs.BigIntStats): SourceAttributes {
  return {
    relativePath,
    name,
    mode: Number(stat.mode) & 0o7777,
    uid: Number(stat.uid),
    gid: Number(stat.gid),
    atimeNs: toFileTime(stat.atimeNs),
    mtimeNs: toFileTime(stat.mtimeNs),
    ctimeNs: toFileTime(stat.ctimeNs),
    otherPaths: []
  }
}

/** Bytes that are no text, for a message: everything outside of ASCII as \xNN. */
function printable(bytes: Buffer): string {
  return [...bytes]
    .map((byte) =>
      byte >= 0x20 && byte < 0x7f ? String.fromCharCode(byte) : `\\x${byte.toString(16).padStart(2, '0')}`
    )
    .join('')
}
