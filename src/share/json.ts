/** JSON of the share's own small files (leases, pins): parsed against a schema, or IntegrityError. */
import type { z } from 'zod'
import { IntegrityError } from '../base/errors.js'

export function parseShareJson<Schema extends z.ZodType>(bytes: Buffer, schema: Schema, what: string): z.infer<Schema> {
  let value: unknown
  try {
    value = JSON.parse(bytes.toString('utf8'))
  } catch (error) {
    throw new IntegrityError(`${what} is damaged: it is not JSON`, { cause: error })
  }
  const result = schema.safeParse(value)
  if (result.success) return result.data
  const issue = result.error.issues[0]
  const where = issue === undefined || issue.path.length === 0 ? '' : ` at ${issue.path.join('.')}`
  throw new IntegrityError(`${what} is damaged: ${issue?.message ?? 'not what it should be'}${where}`)
}

export function toShareJson(value: unknown): Buffer {
  return Buffer.from(`${JSON.stringify(value, undefined, 1)}\n`)
}
