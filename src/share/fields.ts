/** Fields that the JSON files on a share have in common, as schemas: bounded, and harmless on a terminal. */
import * as z from 'zod'

/** SHA-256 in lower-case hex */
export const digestHex = z.string().regex(/^[0-9a-f]{64}$/)
/** a random id */
export const identifier = z.string().regex(/^[0-9a-f]{8,64}$/)
export const count = z.number().int().nonnegative().max(Number.MAX_SAFE_INTEGER)
export const positive = z.number().int().positive().max(Number.MAX_SAFE_INTEGER)
/** UTC, as Date.toISOString writes it */
export const timestamp = z.string().regex(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?Z$/)

/**
 * A name for people (of a host, a user, a directory), at most `charactersMax` long. Somebody else wrote it and it will
 * be printed, so control characters, which steer terminals, are read as "?".
 */
export function label(charactersMax: number): z.ZodType<string> {
  return z
    .string()
    .max(charactersMax)
    .transform((text) => text.replace(/[\p{Cc}\p{Cf}]/gu, '?'))
}
