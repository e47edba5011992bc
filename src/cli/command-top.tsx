/** isrfs top: a mount, live, in a terminal; `--once` prints what it would show and ends. */
import { render, renderToString } from 'ink'
import { FailedError } from '../base/errors.js'
import { isColourful } from './colour.js'
import { locateMountpoint } from './mountpoint.js'
import { notice, result } from './output.js'
import { silentDaemon, whyNoDaemon } from './silent-daemon.js'
import { App } from './top/app.js'
import { layoutFor, Screen } from './top/screen.js'
import { mountpointsHere, Watcher } from './top/watcher.js'

const ENTER_ALTERNATE_SCREEN = '\u001B[?1049h\u001B[H'
const LEAVE_ALTERNATE_SCREEN = '\u001B[?1049l'
const ONCE_COLUMNS = 80
const ONCE_ROWS = 24

export interface TopOptions {
  readonly once?: boolean
}

export async function topCommand(given: string | undefined, options: TopOptions): Promise<void> {
  const mountpoint = given === undefined ? undefined : locateMountpoint(given)
  const first = mountpoint ?? mountpointsHere()[0]
  if (first === undefined) {
    notice('nothing is mounted')
    return
  }
  if (options.once === true) {
    await printOnce(first)
    return
  }
  if (!process.stdout.isTTY || !process.stdin.isTTY) {
    throw new FailedError('isrfs top needs a terminal', { hint: 'isrfs top --once, or isrfs status --json' })
  }
  // what is wrong with it is better said on the screen that stays
  if (mountpoint !== undefined) await mustAnswer(mountpoint)
  let why = ''
  process.stdout.write(ENTER_ALTERNATE_SCREEN)
  try {
    const app = render(
      <App mountpoint={mountpoint} isColourful={isColourful(process.stdout)} onEnd={(text) => (why = text)} />,
      { patchConsole: false }
    )
    await app.waitUntilExit()
  } finally {
    process.stdout.write(LEAVE_ALTERNATE_SCREEN)
  }
  if (why !== '') notice(why)
}

async function printOnce(mountpoint: string): Promise<void> {
  const columns = process.stdout.columns || ONCE_COLUMNS
  const rows = process.stdout.rows || ONCE_ROWS
  const look = await new Watcher(mountpoint).look(layoutFor(columns, rows, 0))
  if (look === undefined) throw await whyNoDaemon(mountpoint)
  if (look.view === undefined) throw silentDaemon(mountpoint).error
  const screen = (
    <Screen
      look={look}
      columns={columns}
      rows={rows}
      isColourful={isColourful(process.stdout)}
      place=""
      isBright
      keys=""
    />
  )
  result(renderToString(screen, { columns }).trimEnd())
}

async function mustAnswer(mountpoint: string): Promise<void> {
  const look = await new Watcher(mountpoint).look(() => [])
  if (look === undefined) throw await whyNoDaemon(mountpoint)
}
