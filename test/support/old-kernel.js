/** node --import: as if the direct transport needed a newer kernel than any there is. What it says to the kernel stays real. */
import { register } from 'node:module'

const hooks = `export async function load(url, context, next) {
  const loaded = await next(url, context)
  if (loaded.format !== 'module' || url.includes('/node_modules/')) return loaded // in dist/ many modules are one file
  const source = String(loaded.source).replace('PROTOCOL_MINOR_MIN = 31', 'PROTOCOL_MINOR_MIN = 99')
  return { ...loaded, source }
}`
register(`data:text/javascript,${encodeURIComponent(hooks)}`)
