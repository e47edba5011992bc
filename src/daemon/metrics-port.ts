/**
 * Metrics over HTTP, for this host only: GET /metrics on the loopback address, and nothing else. A port that cannot be had stops no
 * mount.
 */
import http from 'node:http'
import type { AddressInfo } from 'node:net'
import { messageOf } from '../base/errors.js'
import { event } from './log-events.js'
import type { Log } from './log.js'

const ADDRESS = '127.0.0.1'
const REQUEST_MS_MAX = 10_000
const CONNECTIONS_MAX = 16
const CONTENT_TYPE = 'text/plain; version=0.0.4; charset=utf-8'

export interface MetricsPort {
  readonly port: number
  close(): void
}

/** undefined when the port is taken; that is a notice and a line in the log. */
export async function serveMetrics(
  port: number,
  text: () => Promise<string>,
  log: Log,
  notice: (text: string) => void
): Promise<MetricsPort | undefined> {
  const server = http.createServer({ requestTimeout: REQUEST_MS_MAX, maxHeaderSize: 8192 }, (request, response) => {
    void answer(request, response, text).catch((error: unknown) => {
      log.error(event('request-failed', { operation: 'metrics', why: messageOf(error) }), 'metrics failed')
      response.destroy()
    })
  })
  server.maxConnections = CONNECTIONS_MAX
  try {
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject)
      server.listen(port, ADDRESS, resolve)
    })
  } catch (error) {
    const why = messageOf(error)
    log.warn(event('metrics-port', { port, why }), 'no metrics on a port')
    notice(`no metrics on port ${String(port)}: ${why} (isrfs metrics has them, too)`)
    return undefined
  }
  server.unref()
  server.on('error', (error) => log.warn(event('metrics-port', { port, why: error.message }), 'metrics'))
  const { port: used } = server.address() as AddressInfo // of a TCP server that listens
  log.info(event('metrics-port', { port: used }), `metrics on http://${ADDRESS}:${String(used)}/metrics`)
  return {
    port: used,
    close: () => {
      server.close()
      server.closeAllConnections()
    }
  }
}

async function answer(
  request: http.IncomingMessage,
  response: http.ServerResponse,
  text: () => Promise<string>
): Promise<void> {
  request.resume()
  if (!isLocalName(request.headers.host)) refuse(response, 403, 'only as localhost or 127.0.0.1')
  else if (request.url !== '/metrics') refuse(response, 404, 'there is /metrics')
  else if (request.method !== 'GET' && request.method !== 'HEAD') refuse(response, 405, 'GET only')
  else {
    const body = await text()
    response.writeHead(200, { 'content-type': CONTENT_TYPE, 'cache-control': 'no-store' })
    response.end(request.method === 'HEAD' ? '' : body)
  }
}

/** A page from elsewhere that has made its own name point here asks with that name. */
function isLocalName(host: string | undefined): boolean {
  return /^(localhost|127\.0\.0\.1)(:\d+)?$/i.test(host ?? '')
}

function refuse(response: http.ServerResponse, code: number, why: string): void {
  response.writeHead(code, { 'content-type': 'text/plain; charset=utf-8' }).end(`${why}\n`)
}
