/** What the page asks of its server. The token came with the page's own address. */
import type { Cells, Status, View } from '../../daemon/messages.js'
import type { Action, ActionLine } from '../messages.js'

export type { Action, ActionLine, Cells, Status, View }

export interface SeenMount {
  readonly id: string
  readonly mountpoint: string
  readonly status: Status | null
  /** why there is no status */
  readonly why: string
}

export interface Look {
  readonly mounts: readonly SeenMount[]
  readonly view: View | null
}

export interface GenerationName {
  readonly generation: number
  readonly branch?: string
}

export interface GenerationEntry extends GenerationName {
  readonly created: string
  readonly host: string
  readonly changedBytes: number
  readonly sentBytes: number
  readonly totalBytes: number
  readonly files: number
}

/** It was pruned, or cannot be read. */
export type LostGeneration = GenerationName & ({ readonly pruned: string } | { readonly damage: string })

export interface CellRange {
  readonly inode: number
  readonly firstBlock: number
  readonly blocks: number
  readonly cells: number
}

const token = new URLSearchParams(location.search).get('token') ?? ''

export function listen(
  mount: string | undefined,
  onLook: (look: Look) => void,
  onState: (isOpen: boolean) => void
): () => void {
  const query = new URLSearchParams({ token, ...(mount === undefined ? {} : { mount }) })
  const source = new EventSource(`/api/events?${query.toString()}`)
  source.addEventListener('look', (event: MessageEvent<string>) => {
    onState(true)
    onLook(JSON.parse(event.data) as Look) // what server.ts sends
  })
  source.addEventListener('error', () => onState(false))
  return () => source.close()
}

/** Rejects with the server's message. */
async function get(address: string, query: Record<string, string> = {}): Promise<unknown> {
  const response = await fetch(`${address}?${new URLSearchParams({ ...query, token }).toString()}`)
  if (response.ok) return response.json()
  throw new Error(await whyOf(response))
}

async function whyOf(response: Response): Promise<string> {
  const text = await response.text()
  try {
    return (JSON.parse(text) as { message: string }).message
  } catch {
    return text
  }
}

/** null: the mount has ended. */
export async function getCells(mount: string, { inode, firstBlock, blocks, cells }: CellRange): Promise<Cells | null> {
  const query = { inode: String(inode), firstBlock: String(firstBlock), blocks: String(blocks), cells: String(cells) }
  return (await get(`/api/mounts/${mount}/cells`, query)) as Cells | null
}

export async function getLog(mount: string): Promise<string[]> {
  return ((await get(`/api/mounts/${mount}/log`)) as { lines: string[] }).lines
}

export async function getGenerations(mount: string): Promise<(GenerationEntry | LostGeneration)[]> {
  const answer = await get(`/api/mounts/${mount}/generations`)
  return (answer as { generations: (GenerationEntry | LostGeneration)[] }).generations // as isrfs log --json
}

/** Calls `onLine` until it is over; the last line is `done` or `failed`. */
export async function act(mount: string, action: Action, onLine: (line: ActionLine) => void): Promise<void> {
  const failed = (text: string): void => onLine({ kind: 'failed', text, hint: undefined })
  try {
    const response = await fetch(`/api/mounts/${mount}/${action}`, {
      method: 'POST',
      headers: { 'x-isrfs-token': token }
    })
    if (!response.ok || response.body === null) {
      failed(await whyOf(response))
      return
    }
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader()
    let rest = ''
    for (;;) {
      const { value, done } = await reader.read()
      if (done) return
      const lines = (rest + value).split('\n')
      rest = lines.pop() ?? ''
      for (const line of lines) onLine(JSON.parse(line) as ActionLine) // what actions.ts tells
    }
  } catch {
    failed('the dashboard has gone away; what it had asked for goes on')
  }
}
