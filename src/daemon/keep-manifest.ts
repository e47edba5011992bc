/**
 * Keeps a copy of the manifest of a generation that this client shows or has published, for the day on which the share has lost
 * it: a session cannot go on without its base (session/kept-manifests.ts, `check --repair`).
 */
import type { SharePool } from '../fetch/share-pool.js'
import { keepManifest } from '../session/kept-manifests.js'
import type { GenerationReference } from '../share/lease.js'
import { withinMs } from './within.js'

const KEEP_MS_MAX = 10_000

export interface Keeping {
  readonly pool: SharePool
  readonly clientDirectory: string
  readonly vmId: string
}

/** `name` is that of a branch. A full disk, or a share that does not answer just now, costs the copy and nothing else. */
export async function keepCopy(
  { pool, clientDirectory, vmId }: Keeping,
  { number, digest, name }: GenerationReference & { readonly name?: string }
): Promise<void> {
  try {
    const input = { name: name ?? String(number), digest }
    const kept = pool.run('manifest', input, { what: 'keeping a copy of the manifest' }).then((bytes) => {
      if (bytes !== undefined) keepManifest(clientDirectory, vmId, bytes)
    })
    await withinMs(kept, KEEP_MS_MAX)
  } catch {
    // the next mount keeps it
  }
}
