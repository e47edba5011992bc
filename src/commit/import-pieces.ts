/**
 * `--join-pieces`: a directory in the shape of the 2002 scripts, where `disk.vmdk` lies as `disk.vmdk.000`,
 * `disk.vmdk.001` and so on (16 MB each, the last one as long as it is), is seen as whole files.
 */
import { FailedError } from '../base/errors.js'
import { FILE_BYTES_MAX } from '../base/units.js'
import type { SourceEntry, SourceFile } from './import-scan.js'

const PIECE_NAME = /^(.+)\.(\d{3,})$/
const DIGITS = 3

interface Piece {
  readonly index: number
  readonly file: SourceFile
}

/** Replaces the pieces among a directory's own entries by whole files; entries of directories below stay. */
export function joinPieces(
  entries: readonly SourceEntry[],
  isSibling: (entry: SourceEntry) => boolean,
  directory: string
): SourceEntry[] {
  const groups = new Map<string, Piece[]>()
  const names = new Set<string>()
  for (const entry of entries) {
    if (!isSibling(entry)) continue
    names.add(entry.name)
    const piece = pieceOf(entry)
    if (piece !== undefined) groups.set(piece.whole, [...(groups.get(piece.whole) ?? []), piece])
  }
  for (const whole of groups.keys()) {
    if (!names.has(whole)) continue
    throw new FailedError(`${directory} has both ${whole} and pieces of it (${whole}.000)`, {
      hint: 'remove the one that is not wanted'
    })
  }
  return entries.flatMap((entry) => {
    const piece = isSibling(entry) ? pieceOf(entry) : undefined
    if (piece === undefined) return [entry]
    // The whole file stands where its first piece in the order of names stands.
    const pieces = groups.get(piece.whole) ?? []
    return pieces[0]?.file === entry ? [joined(piece.whole, pieces, directory)] : []
  })
}

function pieceOf(entry: SourceEntry): (Piece & { readonly whole: string }) | undefined {
  if (entry.type !== 'file') return undefined
  const [, whole, digits] = PIECE_NAME.exec(entry.name) ?? []
  if (whole === undefined || digits === undefined) return undefined
  const index = Number(digits)
  return String(index).padStart(DIGITS, '0') === digits ? { whole, index, file: entry } : undefined
}

function joined(whole: string, pieces: readonly Piece[], directory: string): SourceFile {
  const ordered = [...pieces].sort((first, second) => first.index - second.index)
  const [first] = ordered
  if (first === undefined) throw new Error('a file without pieces')
  for (const [position, { index }] of ordered.entries()) {
    if (index === position) continue
    throw new FailedError(
      `${directory}/${whole}.${String(position).padStart(DIGITS, '0')} is missing, but piece ${String(index).padStart(DIGITS, '0')} is there`,
      {
        hint: 'bring back the missing piece, or import without --join-pieces'
      }
    )
  }
  for (const [position, { file }] of ordered.entries()) {
    const isLast = position === ordered.length - 1
    const fits = isLast ? file.sizeBytes <= first.file.sizeBytes : file.sizeBytes === first.file.sizeBytes
    if (fits) continue
    throw new FailedError(
      `${directory}/${file.name} has ${file.sizeBytes} bytes, but every piece of ${whole} but the last has to have ${first.file.sizeBytes}`,
      {
        hint: 'a piece was cut off or belongs to another file; bring back the right one, or import without --join-pieces'
      }
    )
  }
  const files = ordered.map(({ file }) => file)
  const sizeBytes = files.reduce((sum, file) => sum + file.sizeBytes, 0)
  if (sizeBytes > FILE_BYTES_MAX) throw new FailedError(`the pieces of ${directory}/${whole} are more than 16 TiB`)
  const { relativePath } = first.file
  return {
    ...first.file,
    relativePath: relativePath.slice(0, relativePath.length - first.file.name.length) + whole,
    name: whole,
    otherPaths: [],
    sizeBytes,
    parts: files.flatMap((file) => file.parts),
    atimeNs: latest(files.map((file) => file.atimeNs)),
    mtimeNs: latest(files.map((file) => file.mtimeNs)),
    ctimeNs: latest(files.map((file) => file.ctimeNs))
  }
}

function latest(times: readonly bigint[]): bigint {
  return times.reduce((first, second) => (first > second ? first : second))
}
