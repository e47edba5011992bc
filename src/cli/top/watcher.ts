/** Looks at mounts again and again, and never waits long for a daemon that does not answer. */
import { askCells, askView, SilentError } from '../../daemon/control-client.js'
import type { Cells, View } from '../../daemon/messages.js'
import { MOUNT_TYPE, readMountTable } from '../../daemon/mount-table.js'
import { SAMPLE_COLUMNS, type SampleColumn } from '../../daemon/samples.js'
import { findSockets } from '../../daemon/socket-path.js'

/** so that a daemon which hangs is told of within two seconds */
const ANSWER_MS_MAX = 1500
const ROWS_MAX = 600

export interface FilePicture {
  readonly path: string
  readonly sizeBytes: number
  readonly cells: Cells
}

export interface Look {
  readonly mountpoint: string
  /** the last that was seen; undefined: nothing yet */
  readonly view: View | undefined
  readonly pictures: readonly FilePicture[]
  /** what the mount did lately, oldest first: change per second of each counter */
  readonly rates: Readonly<Record<SampleColumn, readonly number[]>>
  /** since when there was no answer; undefined: it answers */
  readonly silentSinceMs: number | undefined
}

/** How many cells there are for each of the files that are shown, largest first. */
export type Layout = (
  files: View['files']
) => readonly { readonly file: View['files'][number]; readonly cells: number }[]

export class Watcher {
  readonly mountpoint: string
  #socketPath: string | undefined
  #rows: (readonly number[])[] = []
  #next = 0
  #look: Look

  constructor(mountpoint: string) {
    this.mountpoint = mountpoint
    this.#look = { mountpoint, view: undefined, pictures: [], rates: ratesOf([]), silentSinceMs: undefined }
  }

  /** What there is to see now; undefined when the mount has ended. Never rejects because of the daemon. */
  async look(layout: Layout): Promise<Look | undefined> {
    try {
      const view = await this.#ask()
      if (view === undefined) return undefined
      this.#keep(view)
      const pictures = await this.#pictures(layout(view.files))
      const rates = ratesOf(this.#rows)
      this.#look = { mountpoint: this.mountpoint, view, pictures, rates, silentSinceMs: undefined }
    } catch (error) {
      if (!(error instanceof SilentError)) throw error
      this.#look = { ...this.#look, silentSinceMs: this.#look.silentSinceMs ?? Date.now() - ANSWER_MS_MAX }
    }
    return this.#look
  }

  async #ask(): Promise<View | undefined> {
    const known = this.#socketPath === undefined ? [] : [this.#socketPath]
    for (const socketPath of [...known, ...findSockets(this.mountpoint)]) {
      const view = await askView(socketPath, this.#next, ANSWER_MS_MAX)
      if (view === undefined) continue
      this.#socketPath = socketPath
      return view
    }
    return undefined
  }

  #keep({ samples: { first, rows } }: View): void {
    if (first !== this.#next) this.#rows = [] // another mount, or nobody has looked for long
    this.#rows = [...this.#rows, ...rows].slice(-ROWS_MAX)
    this.#next = first + rows.length
  }

  async #pictures(wanted: ReturnType<Layout>): Promise<FilePicture[]> {
    const socketPath = this.#socketPath
    const pictures: FilePicture[] = []
    for (const { file, cells } of wanted) {
      if (socketPath === undefined) break
      const range = { inode: file.inode, firstBlock: 0, blocks: Number.MAX_SAFE_INTEGER, cells }
      const answer = await askCells(socketPath, range, ANSWER_MS_MAX).catch((error: unknown) => {
        if (error instanceof SilentError) throw error
        return undefined // the file has just been removed
      })
      if (answer !== undefined) pictures.push({ path: file.path, sizeBytes: file.sizeBytes, cells: answer })
    }
    return pictures
  }
}

/** Mountpoints of isrfs on this host, in the order of the mount table. */
export function mountpointsHere(): string[] {
  return readMountTable()
    .filter(({ fileSystemType }) => fileSystemType === MOUNT_TYPE)
    .map(({ mountpoint }) => mountpoint)
    .filter((mountpoint) => findSockets(mountpoint).length > 0)
}

/** Change per sample of each column. */
export function ratesOf(rows: readonly (readonly number[])[]): Record<SampleColumn, number[]> {
  const rates = SAMPLE_COLUMNS.map((column, index) => {
    const values = rows.slice(1).map((row, at) => Math.max(0, (row[index] ?? 0) - (rows[at]?.[index] ?? 0)))
    return [column, values] as const
  })
  return Object.fromEntries(rates) as Record<SampleColumn, number[]> // all of SAMPLE_COLUMNS
}
