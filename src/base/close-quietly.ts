import fs from 'node:fs'

/** Closes a descriptor of which all that matters was made durable, or can be lost: the descriptor is gone in any case. */
export function closeQuietly(descriptor: number): void {
  try {
    fs.closeSync(descriptor)
  } catch {
    // what close could report has no user
  }
}
