/**
 * Which VM a slot of the cache was last used for: the path that it was mounted from. Tells where that VM may lie; whether it does is asked
 * there.
 */
import fs from 'node:fs'
import path from 'node:path'
import * as z from 'zod'

const NAME = 'origin.json'
const ORIGIN_BYTES_MAX = 16 * 1024
const originSchema = z.object({ vm: z.string() })

/** Not being able to is harmless. */
export function noteOrigin(slot: string, vmPath: string): void {
  const file = path.join(slot, NAME)
  const text = `${JSON.stringify({ vm: vmPath })}\n`
  try {
    if (fs.existsSync(file) && fs.readFileSync(file, 'utf8') === text) return
    fs.writeFileSync(`${file}.new`, text, { mode: 0o600 })
    fs.renameSync(`${file}.new`, file)
  } catch {
    // the cache is disposable, and so is what is known of it
  }
}

export async function readOrigin(slot: string): Promise<string | undefined> {
  try {
    const file = path.join(slot, NAME)
    if ((await fs.promises.stat(file)).size > ORIGIN_BYTES_MAX) return undefined
    return originSchema.parse(JSON.parse(await fs.promises.readFile(file, 'utf8'))).vm
  } catch {
    return undefined
  }
}
