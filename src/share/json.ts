/** JSON of the small files on a share: parsed against a schema, or IntegrityError. */
import * as z from 'zod'
import { IntegrityError } from '../base/errors.js'

/** What a JSON file says about itself before anything else in it is looked at. */
export interface JsonFormat<Schema extends z.ZodType> {
  readonly format: string
  /** what can be read */
  readonly version: number | readonly number[]
  readonly schema: Schema
}

/** Made by a newer isrfs: nothing is damaged, and nothing may be treated as if it were. */
export class UnknownVersionError extends IntegrityError {}

export function parseShareJson<Schema extends z.ZodType>(bytes: Buffer, schema: Schema, what: string): z.infer<Schema> {
  return check(parse(bytes, what), schema, what)
}

/** Parses JSON that names its format and version. A version of another isrfs is said to be one, not called damage. */
export function parseVersioned<Schema extends z.ZodType>(
  bytes: Buffer,
  expected: JsonFormat<Schema>,
  what: string
): z.infer<Schema> {
  const value = parse(bytes, what)
  const { version } = check(value, z.object({ format: z.literal(expected.format), version: z.number().int() }), what)
  const readable = [expected.version].flat()
  if (!readable.includes(version)) {
    throw new UnknownVersionError(
      `${what} has format version ${String(version)}; this isrfs reads version ${readable.join(' and ')}`,
      { hint: 'use a newer isrfs' }
    )
  }
  return check(value, expected.schema, what)
}

export function toShareJson(value: unknown): Buffer {
  return Buffer.from(`${JSON.stringify(value, undefined, 1)}\n`)
}

function parse(bytes: Buffer, what: string): unknown {
  try {
    return JSON.parse(bytes.toString('utf8'))
  } catch (error) {
    throw new IntegrityError(`${what} is damaged: it is not JSON`, { cause: error })
  }
}

function check<Schema extends z.ZodType>(value: unknown, schema: Schema, what: string): z.infer<Schema> {
  const result = schema.safeParse(value)
  if (result.success) return result.data
  const issue = result.error.issues[0]
  const where = issue === undefined || issue.path.length === 0 ? '' : ` at ${issue.path.join('.')}`
  throw new IntegrityError(`${what} is damaged: ${issue?.message ?? 'not what it should be'}${where}`)
}
