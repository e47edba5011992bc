/** Values of settings, as they stand in a configuration file or (always text) in the environment. */
import * as z from 'zod'
import { parseDuration, parseSize } from '../../base/units.js'
import type { Kind } from './settings.js'

export type Value = string | number | boolean

const PORT_MAX = 65_535

/** The value as it was written when it is right. The message of an issue ends with how to write it. */
export function schemaOf(kind: Kind): z.ZodType<Value> {
  switch (kind) {
    case 'path':
      return z
        .string({ error: 'is not a path: write it in quotes' })
        .refine((text) => /^(\/|~\/)/.test(text), 'is not an absolute path: begin with / or ~/')
    case 'size':
      return written((text) => (parseSize(text) ?? 0) > 0, 'is not a size: write bytes, or "512M", "20G", "1T"')
    case 'duration':
      return written(
        (text) => (parseDuration(text) ?? 0) > 0,
        'is not a duration: write seconds, or "500ms", "30s", "2m", "24h"'
      )
    case 'count':
      return written((text) => /^[1-9]\d{0,8}$/.test(text), 'is not a number: write 1 or more')
    case 'port':
      return written(
        (text) => /^\d{1,5}$/.test(text) && Number(text) <= PORT_MAX,
        `is not a port: write 1 to ${String(PORT_MAX)}, or 0 for none`
      )
    case 'boolean':
      return z.boolean({ error: 'is neither true nor false (without quotes)' })
    case 'text':
      return z.string({ error: 'is not text: write it in quotes' }).min(1, 'is empty')
    default:
      return z.enum(kind, { error: `is unknown: write one of ${kind.map((word) => `"${word}"`).join(', ')}` })
  }
}

/** What stands in the environment, as it would stand in a file. */
export function fromEnvironment(kind: Kind, text: string): Value {
  if (kind !== 'boolean') return text
  if (/^(1|true|yes|on)$/i.test(text)) return true
  if (/^(0|false|no|off)$/i.test(text)) return false
  return text
}

function written(isRight: (text: string) => boolean, error: string): z.ZodType<Value> {
  return z.union([z.string(), z.number()], { error }).refine((value) => isRight(String(value)), error)
}
