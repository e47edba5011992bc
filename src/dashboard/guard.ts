/**
 * Who may talk to the dashboard: programs of this host that know the token. A page of another origin, or a name of somebody else that
 * points here (DNS rebinding), is refused before anything else is looked at.
 */
import { createHash, timingSafeEqual } from 'node:crypto'
import type { MiddlewareHandler } from 'hono'

const BODY_BYTES_MAX = 1024

/** Refuses other hosts, other origins, other methods and bodies: nothing here takes one. */
export function guardHost(port: () => number): MiddlewareHandler {
  return async (context, next) => {
    const names = ['127.0.0.1', 'localhost'].map((name) => `${name}:${port()}`)
    const host = context.req.header('host') ?? ''
    if (!names.includes(host)) return context.text('only as 127.0.0.1 or localhost\n', 403)
    const origin = context.req.header('origin')
    if (origin !== undefined && !names.some((name) => origin === `http://${name}`)) {
      return context.text('not for other origins\n', 403)
    }
    const site = context.req.header('sec-fetch-site')
    if (site !== undefined && site !== 'same-origin' && site !== 'none') {
      return context.text('not for other sites\n', 403)
    }
    const { method } = context.req
    if (method !== 'GET' && method !== 'HEAD' && method !== 'POST') return context.text('GET and POST only\n', 405)
    if (
      Number(context.req.header('content-length') ?? 0) > BODY_BYTES_MAX ||
      context.req.header('transfer-encoding') !== undefined
    ) {
      return context.text('too large\n', 413)
    }
    return next()
  }
}

/**
 * Asks for the token: in the address for what a browser fetches by itself, in a header of its own for what changes something (no
 * other page can send one without being asked for).
 */
export function guardToken(token: string): MiddlewareHandler {
  return async (context, next) => {
    const changes = context.req.method === 'POST'
    const given = context.req.header('x-isrfs-token') ?? (changes ? '' : (context.req.query('token') ?? ''))
    if (!isSame(given, token)) {
      return context.text('wrong token: open the address that isrfs dashboard has printed\n', 401)
    }
    return next()
  }
}

/** In a time that does not depend on where they differ. */
function isSame(given: string, wanted: string): boolean {
  const digest = (text: string): Buffer => createHash('sha256').update(text).digest()
  return timingSafeEqual(digest(given), digest(wanted))
}
