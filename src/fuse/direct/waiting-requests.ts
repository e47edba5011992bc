/**
 * READs, LSEEKs and WRITEs that wait for the share, and programs that are killed before it answers. The kernel lets nobody
 * go whose request the daemon has taken: at best it sends INTERRUPT, and for asynchronous requests (O_DIRECT) it just
 * waits (fs/fuse/file.c, fuse_direct_IO). So the daemon looks whether who asked is dying, and answers EINTR then. Nobody
 * else is interrupted: programs do not expect EINTR of a file. What was given up changes nothing any more.
 */
import fs from 'node:fs'

const SIGKILL_BIT = 1n << 8n
const LOOK_MS = 500

interface WaitingRequest {
  /** of the thread that asked; 0: in another pid namespace */
  readonly pid: number
  readonly giveUp: () => void
}

export class WaitingRequests {
  /** by the request's unique number */
  readonly #requests = new Map<bigint, WaitingRequest>()
  #timer: NodeJS.Timeout | undefined

  add(unique: bigint, pid: number, giveUp: () => void): void {
    this.#requests.set(unique, { pid, giveUp })
    this.#timer ??= this.#lookLater()
  }

  /** The request is done, or has failed. False when it was given up before: it has its answer. */
  remove(unique: bigint): boolean {
    return this.#requests.delete(unique)
  }

  has(unique: bigint): boolean {
    return this.#requests.has(unique)
  }

  #lookLater(): NodeJS.Timeout {
    return setTimeout(() => {
      this.#look()
      this.#timer = this.#requests.size > 0 ? this.#lookLater() : undefined
    }, LOOK_MS).unref()
  }

  #look(): void {
    const dying = new Map<number, boolean>()
    for (const [unique, { pid, giveUp }] of this.#requests) {
      const isDying = dying.get(pid) ?? isBeingKilled(pid)
      dying.set(pid, isDying)
      if (isDying && this.#requests.delete(unique)) giveUp()
    }
  }
}

/** Whether SIGKILL is pending for the thread (proc(5), SigPnd). */
function isBeingKilled(pid: number): boolean {
  if (pid === 0) return false
  try {
    const status = fs.readFileSync(`/proc/${String(pid)}/status`, 'latin1')
    const pending = /^SigPnd:\s*([0-9a-f]+)$/m.exec(status)?.[1]
    return pending !== undefined && (BigInt(`0x${pending}`) & SIGKILL_BIT) !== 0n
  } catch {
    return false // it has gone already
  }
}
