/** The newest generation of each VM that this client has seen: `seen/<vm id>.json`, written durably. Advice for a guard. */
import fs from 'node:fs'
import path from 'node:path'
import * as z from 'zod'
import { readIfThere, replaceFileDurably } from './durable-file.js'

const seenSchema = z.object({
  generation: z.number().int().positive(),
  digest: z.string().regex(/^[0-9a-f]{64}$/)
})

export type SeenGeneration = z.infer<typeof seenSchema>

/** undefined when none was seen, or when the file cannot be understood: it only guards, and must not lock anybody out. */
export function readSeen(clientDirectory: string, vmId: string): SeenGeneration | undefined {
  try {
    const bytes = readIfThere(fileOf(clientDirectory, vmId))
    return bytes === undefined ? undefined : seenSchema.parse(JSON.parse(bytes.toString('utf8')))
  } catch {
    return undefined
  }
}

export function writeSeen(clientDirectory: string, vmId: string, { generation, digest }: SeenGeneration): void {
  const file = fileOf(clientDirectory, vmId)
  fs.mkdirSync(path.dirname(file), { recursive: true, mode: 0o700 })
  replaceFileDurably(file, Buffer.from(`${JSON.stringify({ generation, digest })}\n`))
}

function fileOf(clientDirectory: string, vmId: string): string {
  return path.join(clientDirectory, 'seen', `${vmId}.json`)
}
