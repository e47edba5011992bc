/** `isrfs top` while it runs: looks once a second, and listens to a few keys. */
import { useApp, useInput, useStdout } from 'ink'
import { type ReactNode, useEffect, useRef, useState } from 'react'
import { layoutFor, Screen } from './screen.js'
import { type Look, mountpointsHere, Watcher } from './watcher.js'

const LOOK_INTERVAL_MS = 1000
const KEYS = 'q: quit'

export interface AppProps {
  /** undefined: any mount of this user */
  readonly mountpoint: string | undefined
  readonly isColourful: boolean
  /** told why it ends, when it was not asked to */
  readonly onEnd: (why: string) => void
}

export function App({ mountpoint, isColourful, onEnd }: AppProps): ReactNode {
  const { exit } = useApp()
  const { columns, rows } = useSize()
  const [look, setLook] = useState<Look>()
  const [chosen, setChosen] = useState(0)
  const [skip, setSkip] = useState(0)
  const [isBright, setBright] = useState(true)
  const [mountpoints, setMountpoints] = useState<readonly string[]>([])
  const watchers = useRef(new Map<string, Watcher>())
  const looked = useRef({ chosen, skip, columns, rows })
  looked.current = { chosen, skip, columns, rows }

  useInput((input, key) => {
    if (input === 'q' || key.escape) exit()
    if (key.rightArrow || key.tab) setChosen((now) => now + 1)
    if (key.leftArrow) setChosen((now) => Math.max(0, now - 1))
    if (key.downArrow) setSkip((now) => now + 1)
    if (key.upArrow) setSkip((now) => Math.max(0, now - 1))
  })

  useEffect(() => {
    let timer: NodeJS.Timeout | undefined
    let isOver = false
    const end = (why: string): void => {
      onEnd(why)
      exit()
    }
    const lookOnce = async (): Promise<void> => {
      const here = mountpoint === undefined ? mountpointsHere() : [mountpoint]
      const at = looked.current
      const one = here[at.chosen % Math.max(1, here.length)]
      if (one === undefined) {
        end('nothing is mounted')
        return
      }
      const watcher = watchers.current.get(one) ?? new Watcher(one)
      watchers.current.set(one, watcher)
      const seen = await watcher.look(layoutFor(at.columns, at.rows, at.skip))
      if (isOver) return
      if (seen === undefined && mountpoint !== undefined) {
        end(`the mount on ${one} has ended`)
        return
      }
      setMountpoints(here)
      setLook(seen)
      setBright((now) => !now)
    }
    const loop = async (): Promise<void> => {
      try {
        await lookOnce()
      } catch (error) {
        end(error instanceof Error ? error.message : String(error))
      }
      if (!isOver) timer = setTimeout(() => void loop(), LOOK_INTERVAL_MS)
    }
    void loop()
    return () => {
      isOver = true
      clearTimeout(timer)
    }
  }, [mountpoint, chosen, skip, columns, rows])

  const place =
    mountpoints.length > 1 ? `  ${(chosen % mountpoints.length) + 1}/${mountpoints.length} (left, right)` : ''
  return (
    <Screen
      look={look}
      columns={columns}
      rows={rows}
      isColourful={isColourful}
      place={place}
      isBright={isBright}
      keys={KEYS}
    />
  )
}

/** One less than the terminal has lines: a full one would scroll. */
function useSize(): { columns: number; rows: number } {
  const { stdout } = useStdout()
  const read = (): { columns: number; rows: number } => ({
    columns: stdout.columns || 80,
    rows: (stdout.rows || 24) - 1
  })
  const [size, setSize] = useState(read)
  useEffect(() => {
    const onResize = (): void => setSize(read())
    stdout.on('resize', onResize)
    return () => void stdout.off('resize', onResize)
  }, [stdout])
  return size
}
