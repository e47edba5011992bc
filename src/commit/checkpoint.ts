/**
 * A checkpoint: the state of a running mount at one instant is published as a generation, and the session goes on.
 *
 *     send what has changed, again and again, while the guest runs -> the kernel writes out (sync, in a child process)
 *       -> send -> one instant: copy the rest and all names (writes are held before it only when the rest does not get small)
 *       -> send the rest -> maps -> session durable -> base pinned -> digest announced -> publish -> confirmed
 *
 * The session keeps everything and its old base (docs/architecture.md, "A checkpoint"). What it publishes later follows the
 * checkpoint (succession.ts).
 *
 * Invariants:
 * 1. The instant is one synchronous step of the thread that owns the session (sent-blocks.ts). It needs neither the share
 *    nor the kernel; nothing that it waits for can be waiting for it.
 * 2. Writes are held for at most HOLD_MS_MAX, then the checkpoint is given up. They wait and never fail.
 * 3. What the generation has is durable in the session before it is published: no later generation of this session has less.
 * 4. The digest is in the session, durable, before the generation is published: whatever a crash leaves, recovery knows it.
 * 5. Only bytes of a session that may publish are published; one that has lost its right stays as it is, and its suspend
 *    makes a branch.
 * 6. After stop() the session is not changed any more, and what a commit does comes after a publish that was under way.
 */
import { randomBytes } from 'node:crypto'
import { sha256Hex } from '../base/digest.js'
import { NotPublishedError } from '../base/errors.js'
import { BLOCK_BYTES, toGeneration } from '../base/units.js'
import type { PublishedGeneration } from '../format/generations.js'
import {
  encodeManifest,
  type Manifest,
  MANIFEST_FORMAT,
  manifestVersion,
  type ManifestEntry
} from '../format/manifest.js'
import type { ObjectPlace } from '../format/place.js'
import type { CheckpointReference } from '../session/identity.js'
import type { GenerationReference, HeldLease } from '../share/lease.js'
import { checkSent, refuseLoss, syncSession } from './before-publish.js'
import {
  type CheckpointLimits,
  type CheckpointProgress,
  CheckpointSender,
  LIMITS,
  type Surroundings
} from './checkpoint-send.js'
import type { DirtyLayers } from './dirty-source.js'
import { sameEntries } from './manifest-of.js'
import { type FileMap, rewriteMap } from './map-rewrite.js'
import { type Frozen, placesOf, type SentBlocks } from './sent-blocks.js'
import { findSuccession, referenceTo, type Succession } from './succession.js'

export interface CheckpointOptions extends DirtyLayers {
  readonly vmPath: string
  readonly base: PublishedGeneration
  readonly held: Pick<HeldLease, 'number' | 'token'>
  readonly client: { readonly id: string; readonly host: string }
  /** from now on writes of the guest wait; call what it returns to let them go on */
  readonly holdWrites: () => () => void
  /** keeps the session's base from being pruned; before the first publish */
  readonly pinBase: () => Promise<void>
  readonly limits?: Partial<CheckpointLimits>
}

export interface CheckpointRun {
  /** everything that the kernel has is written to this process */
  readonly flush: () => Promise<void>
  readonly onProgress: (progress: CheckpointProgress) => void
}

export interface CheckpointResult {
  /** undefined: nothing differs from `head` */
  readonly published: PublishedGeneration | undefined
  /** the newest generation of this session's line */
  readonly head: GenerationReference
  readonly changedBytes: number
  readonly sentBytes: number
  /** how long no request was answered, and writes before that were held */
  readonly holdMs: number
}

export class Checkpoint {
  readonly #options: CheckpointOptions
  readonly #how: CheckpointRun
  readonly #around: Surroundings
  readonly #sender: CheckpointSender

  constructor(options: CheckpointOptions, how: CheckpointRun, sent: SentBlocks, around: Surroundings) {
    const limits = { ...LIMITS, ...options.limits }
    this.#options = options
    this.#how = how
    this.#around = around
    this.#sender = new CheckpointSender(options, limits, sent, around, how.onProgress)
  }

  async run(): Promise<CheckpointResult> {
    refuseLoss(this.#options)
    await this.#succession() // before anything is sent
    await this.#sender.sendRounds()
    this.#sender.report('flush')
    await this.#how.flush()
    this.#around.requireRunning()
    await this.#sender.sendRounds()
    const { frozen, holdMs } = await this.#sender.freeze()
    await this.#sender.sendRest(frozen)
    const { maps, objects } = await this.#map(frozen)
    const entries = withMaps(frozen.entries, maps)
    const all = withMaps(frozen.entriesWithLocks, maps)
    const results = frozen.files.flatMap((file) => [...file.results.values()])
    const changedBytes = results.filter(({ state }) => state !== 'same').length * BLOCK_BYTES
    const { head } = await this.#succession()
    if ([all, entries].some((shown) => sameEntries(shown, head.manifest?.entries ?? []))) {
      return {
        published: undefined,
        head: referenceTo(head),
        changedBytes: 0,
        sentBytes: this.#sender.sentBytes,
        holdMs
      }
    }
    this.#sender.report('verify')
    await checkSent(this.#around.pool, { places: placesOf(results), objects }, false, () => {
      this.#around.requireRunning()
      this.#sender.report('verify')
    })
    this.#sender.report('publish')
    this.#around.requireRunning()
    await syncSession(this.#options)
    this.#around.requireRunning()
    await this.#around.pin()
    this.#around.requireRunning()
    const publishing = this.#publish((next) => this.#manifest(next, frozen, entries, changedBytes))
    this.#around.publishing(publishing)
    const published = await publishing
    return { published, head: referenceTo(published), changedBytes, sentBytes: this.#sender.sentBytes, holdMs }
  }

  /** Throws NotPublishedError when this session may not make the next generation any more. */
  async #succession(): Promise<Succession> {
    const succession = await findSuccession(this.#around.pool, this.#options)
    this.#around.requireRunning()
    if (succession.lost === undefined) return succession
    throw new NotPublishedError(succession.lost, {
      hint: 'nothing is lost: unmount it, and the changes are kept as a branch of the VM'
    })
  }

  /** New maps over those of the base. */
  async #map(frozen: Frozen): Promise<{ maps: Map<number, FileMap>; objects: ObjectPlace[] }> {
    const objects: ObjectPlace[] = []
    const maps = new Map<number, FileMap>()
    this.#sender.report('maps')
    for (const { inode, firstDroppedBlock, results } of frozen.files) {
      const old: FileMap = { map: inode.base?.map ?? null, dataBlocks: inode.base?.dataBlocks ?? 0 }
      const blocks = new Map(
        [...results].flatMap(([block, result]) =>
          result.state === 'same' ? [] : [[block, result.state === 'placed' ? result.place : undefined] as const]
        )
      )
      const map = await rewriteMap(old, { blocks, firstDroppedBlock }, this.#options.maps, async (plain) => {
        const places = await this.#sender.sendObjects(plain)
        objects.push(...places)
        return places
      })
      maps.set(inode.id, map)
    }
    return { maps, objects }
  }

  /**
   * Invariants 4 and 5. An earlier try, of which nobody knew whether it came through, may have the number: then the next
   * one is this session's.
   */
  async #publish(manifestFor: (head: GenerationReference) => Manifest): Promise<PublishedGeneration> {
    const { session } = this.#options
    for (let { head } = await this.#succession(); ;) {
      const manifest = manifestFor(head)
      const reference: CheckpointReference = {
        generation: manifest.generation,
        digest: sha256Hex(encodeManifest(manifest)),
        sequence: manifest.checkpoint?.sequence ?? 1
      }
      session.announceCheckpoint(reference)
      try {
        const published = await this.#around.pool.run('publish', { manifest })
        this.#confirm(reference)
        return published
      } catch (error) {
        if (!(error instanceof NotPublishedError)) throw error
        const next = await findSuccession(this.#around.pool, this.#options)
        if (next.lost !== undefined || next.head.number <= head.number) throw error
        head = next.head
      }
    }
  }

  #confirm(reference: CheckpointReference): void {
    try {
      this.#options.session.confirmCheckpoint(reference)
    } catch {
      // a full disk: it was announced, which says as much to the next look at the share
    }
  }

  #manifest(
    head: GenerationReference,
    { nextInode }: Frozen,
    entries: ManifestEntry[],
    changedBytes: number
  ): Manifest {
    const { session, base, client } = this.#options
    const sequence = Math.max(0, ...session.ownGenerations.map((own) => own.sequence)) + 1
    return {
      format: MANIFEST_FORMAT,
      version: manifestVersion(entries),
      vm: base.manifest.vm,
      generation: toGeneration(head.number + 1),
      parent: { generation: head.number, digest: head.digest },
      session: randomBytes(16).toString('hex'), // the session itself is published by its suspend
      created: new Date().toISOString(),
      client: { id: client.id, host: client.host },
      changedBytes,
      sentBytes: this.#sender.sentBytes,
      checkpoint: { session: session.identity.sessionId, sequence },
      nextInode,
      entries
    }
  }
}

function withMaps(entries: readonly ManifestEntry[], maps: ReadonlyMap<number, FileMap>): ManifestEntry[] {
  return entries.map((entry) => {
    const map = maps.get(entry.inode)
    return entry.type === 'file' && map !== undefined ? { ...entry, ...map } : entry
  })
}
