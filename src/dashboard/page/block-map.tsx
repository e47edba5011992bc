/** The blocks of a file as a picture: the whole of it, or as little of it as one likes, down to single blocks. */
import { useEffect, useRef, useState } from 'preact/hooks'
import { type Cells, getCells, type View } from './api.js'
import { type Colours, colours, css, STATE_TEXTS, type StateName } from './colours.js'
import { bytes } from './text.js'

const BLOCK_BYTES = 128 * 1024
const HEIGHT = 264
const CELL_PIXELS_MIN = 6
const CELL_PIXELS_MAX = 22
const LOOK_INTERVAL_MS = 1000
/** a cell in which something goes on shows at least so much of it */
const VISIBLE = 0.6

interface Range {
  readonly first: number
  readonly count: number
}

interface Props {
  readonly mount: string
  readonly files: View['files']
}

export function BlockMap({ mount, files }: Props) {
  const [chosen, setChosen] = useState<number>()
  const file = files.find(({ inode }) => inode === chosen) ?? files[0]
  const all = file === undefined ? 0 : Math.ceil(file.sizeBytes / BLOCK_BYTES)
  const [wanted, setWanted] = useState<Range>()
  const range = clamp(wanted ?? { first: 0, count: all }, all)
  const canvas = useRef<HTMLCanvasElement>(null)
  const [cells, setCells] = useState<Cells>()
  const [width, setWidth] = useState(800)
  const [pointed, setPointed] = useState('')
  const grid = gridFor(width, range.count)

  useEffect(() => {
    const element = canvas.current?.parentElement
    if (element == null) return undefined
    const observer = new ResizeObserver(() => setWidth(Math.max(240, element.clientWidth)))
    observer.observe(element)
    return () => observer.disconnect()
  }, [])

  const inode = file?.inode
  useEffect(() => {
    if (inode === undefined || range.count === 0) return undefined
    let isOver = false
    let timer = 0
    const look = async (): Promise<void> => {
      try {
        const answer = await getCells(mount, {
          inode,
          firstBlock: range.first,
          blocks: range.count,
          cells: grid.columns * grid.rows
        })
        if (!isOver && answer !== null) setCells(answer)
      } catch {
        // the file or the mount has gone; the next look tells
      }
      if (!isOver) timer = window.setTimeout(() => void look(), LOOK_INTERVAL_MS)
    }
    void look()
    return () => {
      isOver = true
      clearTimeout(timer)
    }
  }, [mount, inode, range.first, range.count, grid.columns, grid.rows])

  useEffect(() => {
    if (canvas.current !== null && cells !== undefined) draw(canvas.current, cells, grid)
  })

  if (file === undefined) return <p>The VM has no files with bytes.</p>

  const blockAt = (event: MouseEvent): number | undefined => {
    if (cells === undefined) return undefined
    const cell = Math.floor(event.offsetY / grid.pixels) * grid.columns + Math.floor(event.offsetX / grid.pixels)
    if (cell < 0 || cell >= cells.cells) return undefined
    return cells.firstBlock + Math.floor((cell * cells.blocks) / cells.cells)
  }
  const zoom = (factor: number, around: number): void => {
    const count = Math.max(16, Math.round(range.count * factor))
    const part = (around - range.first) / Math.max(1, range.count)
    setWanted(count >= all ? undefined : { first: Math.round(around - part * count), count })
  }
  const middle = range.first + range.count / 2
  const isWhole = range.count >= all

  return (
    <section class="panel wide">
      <header>
        <h2>Blocks</h2>
        <select
          aria-label="file"
          value={String(file.inode)}
          onChange={(event) => {
            setChosen(Number(event.currentTarget.value))
            setWanted(undefined)
            setCells(undefined)
          }}
        >
          {files.map(({ inode: id, path, sizeBytes }) => (
            <option key={id} value={String(id)}>{`${path} (${bytes(sizeBytes)})`}</option>
          ))}
        </select>
        <span class="buttons">
          <button type="button" onClick={() => zoom(1 / 2, middle)} aria-label="closer">
            +
          </button>
          <button type="button" onClick={() => zoom(2, middle)} disabled={isWhole} aria-label="further away">
            −
          </button>
          <button
            type="button"
            disabled={isWhole}
            onClick={() => setWanted({ first: range.first - range.count / 2, count: range.count })}
          >
            ◀
          </button>
          <button
            type="button"
            disabled={isWhole}
            onClick={() => setWanted({ first: range.first + range.count / 2, count: range.count })}
          >
            ▶
          </button>
          <button type="button" disabled={isWhole} onClick={() => setWanted(undefined)}>
            whole file
          </button>
        </span>
      </header>
      <div>
        <canvas
          ref={canvas}
          role="img"
          aria-label={`blocks ${range.first} to ${range.first + range.count - 1} of ${file.path}`}
          onWheel={(event) => {
            event.preventDefault()
            zoom(event.deltaY > 0 ? 1.5 : 1 / 1.5, blockAt(event) ?? middle)
          }}
          onClick={(event) => zoom(1 / 4, blockAt(event) ?? middle)}
          onMouseMove={(event) => setPointed(describe(cells, blockAt(event)))}
          onMouseLeave={() => setPointed('')}
        />
      </div>
      <p class="under">
        <span>
          {pointed === ''
            ? `blocks ${range.first} to ${range.first + range.count - 1} of ${all}, ${blocksPerCell(cells)} a cell; click or turn the wheel to look closer`
            : pointed}
        </span>
      </p>
      <ul class="legend">
        {STATE_TEXTS.map(([state, text]) => (
          <li key={state}>
            <Swatch colour={css(state)} /> {text}
          </li>
        ))}
      </ul>
    </section>
  )
}

/** An SVG rectangle: the page's policy allows no styles in its text. */
export function Swatch({ colour }: { readonly colour: string }) {
  return (
    <svg width="12" height="12" aria-hidden="true">
      <rect width="12" height="12" fill={colour} />
    </svg>
  )
}

interface Grid {
  readonly columns: number
  readonly rows: number
  readonly pixels: number
}

/** Cells as large as their number allows. */
function gridFor(width: number, blocks: number): Grid {
  for (let pixels = CELL_PIXELS_MAX; ; pixels--) {
    const columns = Math.floor(width / pixels)
    const rows = Math.floor(HEIGHT / pixels)
    if (pixels <= CELL_PIXELS_MIN || columns * rows < blocks * 2) {
      if (pixels <= CELL_PIXELS_MIN || columns * rows >= blocks) return { columns, rows, pixels }
    } else if (pixels === CELL_PIXELS_MAX) return { columns, rows, pixels }
  }
}

function clamp({ first, count }: Range, all: number): Range {
  const most = Math.min(Math.max(1, Math.round(count)), all)
  return { first: Math.round(Math.min(Math.max(0, first), all - most)), count: most }
}

function blocksPerCell(cells: Cells | undefined): string {
  if (cells === undefined || cells.cells === 0) return '...'
  const each = cells.blocks / cells.cells
  return each >= 10 ? String(Math.round(each)) : String(Number(each.toFixed(1)))
}

function describe(cells: Cells | undefined, block: number | undefined): string {
  if (cells === undefined || block === undefined) return ''
  const cell = Math.ceil(((block - cells.firstBlock) * cells.cells) / cells.blocks)
  const shares = sharesOf(cells)
  const parts = STATE_TEXTS.flatMap(([state, text]) => {
    const share = state === 'absent' ? absentShare(shares, cell) : (shares[state][cell] ?? 0) / 255
    return share > 0 ? [`${Math.round(share * 100)} % ${text.replace(/:.*/, '')}`] : []
  })
  return `block ${block}, ${bytes(block * BLOCK_BYTES)} into the file: ${parts.join(', ')}`
}

type Shares = Record<keyof Cells['states'], Uint8Array>

function sharesOf({ states }: Cells): Shares {
  const decode = (text: string): Uint8Array => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0))
  return Object.fromEntries(Object.entries(states).map(([state, text]) => [state, decode(text)])) as Shares // same keys
}

function absentShare(shares: Shares, cell: number): number {
  let others = 0
  for (const state of Object.values(shares)) others += (state[cell] ?? 0) / 255
  return others > 0.995 ? 0 : 1 - others
}

function draw(canvas: HTMLCanvasElement, cells: Cells, { columns, pixels }: Grid): void {
  const scale = window.devicePixelRatio
  const rows = Math.ceil(cells.cells / columns)
  canvas.width = columns * pixels * scale
  canvas.height = rows * pixels * scale
  canvas.style.width = `${columns * pixels}px`
  canvas.style.height = `${rows * pixels}px`
  const context = canvas.getContext('2d')
  if (context === null) return
  context.scale(scale, scale)
  const shares = sharesOf(cells)
  const isBright = Math.floor(Date.now() / LOOK_INTERVAL_MS) % 2 === 0
  const palette = colours()
  for (let cell = 0; cell < cells.cells; cell++) {
    context.fillStyle = colourOf(shares, cell, isBright ? palette : { ...palette, inFlight: palette.absent })
    const x = (cell % columns) * pixels
    const y = Math.floor(cell / columns) * pixels
    context.fillRect(x, y, pixels - 1, pixels - 1)
  }
}

/** The colours of its states, mixed by their shares; what goes on stands out. */
function colourOf(shares: Shares, cell: number, palette: Colours): string {
  const parts: [StateName, number][] = []
  let rest = 1
  for (const state of ['inFlight', 'dirty', 'sent', 'foretold', 'present', 'empty'] as const) {
    const share = (shares[state][cell] ?? 0) / 255
    if (share === 0) continue
    const stands = state === 'inFlight' || state === 'dirty' || state === 'sent'
    const part = Math.min(rest, stands ? Math.max(VISIBLE, share) : share)
    parts.push([state, part])
    rest -= part
  }
  parts.push(['absent', Math.max(0, rest)])
  const mixed = [0, 1, 2].map((channel) =>
    parts.reduce((sum, [state, part]) => sum + (palette[state][channel] ?? 0) * part, 0)
  )
  return `rgb(${mixed.map(Math.round).join(' ')})`
}
