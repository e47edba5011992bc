/**
 * The dashboard's server: one page on the loopback address that shows the mounts of this user and has buttons for them. All it knows
 * it asks of the daemons through their control sockets; what the share has to be asked for is asked in processes of their own.
 *
 * Nothing is changed by GET. Everything but the page's own modules wants the token (dashboard/guard.ts).
 */
import { randomBytes } from 'node:crypto'
import type { Server } from 'node:http'
import { serve } from '@hono/node-server'
import { type Context, Hono } from 'hono'
import { NONCE, secureHeaders, type SecureHeadersVariables } from 'hono/secure-headers'
import { stream, streamSSE } from 'hono/streaming'
import * as z from 'zod'
import { FailedError, messageOf } from '../base/errors.js'
import { askCells, askView } from '../daemon/control-client.js'
import type { View } from '../daemon/messages.js'
import { act, type ActionParts } from './actions.js'
import { indexPage, loadAssets } from './assets.js'
import { guardHost, guardToken } from './guard.js'
import { ACTIONS } from './messages.js'
import { ANSWER_MS_MAX, findMount, knownMounts, seeMounts } from './mounts.js'

const ADDRESS = '127.0.0.1'
const LOOK_INTERVAL_MS = 1000
const LOG_LINES = 60
const CONNECTIONS_MAX = 64
const TOKEN_BYTES = 24

export interface DashboardParts extends ActionParts {
  /** the last lines of a log, one JSON object each */
  readonly lastLines: (logFile: string, count: number) => string[]
  /** the generations of a VM as `isrfs log --json` prints them; rejects when the share does not answer */
  readonly generations: (vm: string) => Promise<unknown>
}

export interface Dashboard {
  /** with the token */
  readonly address: string
  close(): void
}

const cellsQuery = z.object({
  inode: z.coerce.number().int().positive(),
  firstBlock: z.coerce.number().int().nonnegative(),
  blocks: z.coerce.number().int().positive(),
  cells: z.coerce.number().int().positive().max(65_536)
})

/** Rejects with FailedError when the port cannot be had; 0 takes a free one. */
export async function serveDashboard(port: number, parts: DashboardParts): Promise<Dashboard> {
  const token = randomBytes(TOKEN_BYTES).toString('base64url')
  let used = port
  const app = createApp(token, () => used, parts)
  const server = await new Promise<Server>((resolve, reject) => {
    const options = { fetch: app.fetch, port, hostname: ADDRESS }
    const listening = serve(options, (info) => {
      used = info.port
      resolve(listening as Server) // http: nothing else was asked for
    })
    listening.once('error', (error) =>
      reject(
        new FailedError(`the dashboard cannot listen on port ${port}: ${messageOf(error)}`, {
          hint: 'take another one: --port, or 0 for any that is free'
        })
      )
    )
  })
  server.maxConnections = CONNECTIONS_MAX
  return {
    address: `http://${ADDRESS}:${used}/?token=${token}`,
    close: () => {
      server.close()
      server.closeAllConnections()
    }
  }
}

type App = Hono<{ Variables: SecureHeadersVariables }>

/** For serveDashboard. */
function createApp(token: string, port: () => number, parts: DashboardParts): App {
  const app: App = new Hono()
  const assets = loadAssets()
  app.use(guardHost(port))
  app.use(
    secureHeaders({
      referrerPolicy: 'no-referrer',
      xFrameOptions: 'DENY',
      strictTransportSecurity: false,
      contentSecurityPolicy: {
        defaultSrc: ["'none'"],
        scriptSrc: ["'self'", NONCE],
        styleSrc: ["'self'"],
        connectSrc: ["'self'"],
        imgSrc: ["'self'", 'data:'],
        frameAncestors: ["'none'"],
        formAction: ["'none'"],
        baseUri: ["'none'"]
      }
    })
  )
  app.use(async (context, next) => {
    await next()
    context.header('cache-control', 'no-store')
  })
  app.onError((error, context) => context.json({ message: messageOf(error) }, error instanceof FailedError ? 404 : 500))
  app.notFound((context) => context.text('there is nothing here\n', 404))
  for (const [address, { type, bytes }] of assets) {
    app.get(address, (context) =>
      context.body(new Uint8Array(bytes), 200, { 'content-type': `${type}; charset=utf-8` })
    )
  }
  app.use(guardToken(token))
  app.get('/', (context) => context.html(indexPage(context.get('secureHeadersNonce') ?? '')))
  app.get('/api/events', (context) => streamEvents(context))
  app.get('/api/mounts/:id/cells', async (context) => {
    const query = cellsQuery.safeParse(context.req.query())
    if (!query.success) return context.json({ message: 'wanted: inode, firstBlock, blocks, cells' }, 400)
    const socketPath = knownMounts().find(({ id }) => id === context.req.param('id'))?.socketPath
    const cells = socketPath === undefined ? undefined : await askCells(socketPath, query.data, ANSWER_MS_MAX)
    return context.json(cells ?? null) // null: the mount has ended
  })
  app.get('/api/mounts/:id/log', async (context) => {
    const view = await viewOf(context.req.param('id'), Number.MAX_SAFE_INTEGER)
    return context.json({ lines: view === undefined ? [] : parts.lastLines(view.status.log, LOG_LINES) })
  })
  app.get('/api/mounts/:id/generations', async (context) => {
    const view = await viewOf(context.req.param('id'), Number.MAX_SAFE_INTEGER)
    return context.json({ generations: view === undefined ? [] : await parts.generations(view.status.vm) })
  })
  for (const action of ACTIONS) {
    app.post(`/api/mounts/:id/${action}`, (context) => {
      const { mountpoint } = findMount(context.req.param('id'))
      context.header('content-type', 'application/x-ndjson')
      return stream(context, async (lines) => {
        const controller = new AbortController()
        lines.onAbort(() => controller.abort())
        const tell = (line: object): void => void lines.write(`${JSON.stringify(line)}\n`)
        await act(action, mountpoint, tell, parts, controller.signal)
      })
    })
  }
  return app
}

/** Once a second: all mounts, and more of the one that is looked at. */
function streamEvents(context: Context): Response {
  const chosen = context.req.query('mount')
  return streamSSE(context, async (events) => {
    let since = 0
    while (!events.aborted) {
      const mounts = await seeMounts()
      const isHere = chosen !== undefined && mounts.some(({ id, status }) => id === chosen && status !== null)
      const view = isHere ? await viewOf(chosen, since) : undefined
      if (view !== undefined) since = view.samples.first + view.samples.rows.length
      await events.writeSSE({ event: 'look', data: JSON.stringify({ mounts, view: view ?? null }) })
      await events.sleep(LOOK_INTERVAL_MS)
    }
  })
}

/** undefined when the mount has ended, or its daemon does not answer. */
async function viewOf(id: string, since: number): Promise<View | undefined> {
  const known = knownMounts().find((mount) => mount.id === id)
  if (known === undefined) return undefined
  try {
    return await askView(known.socketPath, since, ANSWER_MS_MAX)
  } catch (error) {
    if (error instanceof FailedError) return undefined // seeMounts() tells
    throw error
  }
}
