/**
 * Worker threads for commits, imports and exports: as many as there are cores, started by the first task and ended by
 * `close`, so that a mount that suspends once a day does not carry them.
 */
import os from 'node:os'
import { Piscina } from 'piscina'
import { FailedError, fromPlainError, type PlainError } from '../base/errors.js'
import { threadProgram } from '../base/program-files.js'
import type { CommitTaskInput, CommitTaskName, CommitTaskOutput } from './commit-tasks.js'
import type { BlockResult, EncodeOutput, KnownPlaces } from './encode.js'

export class CommitPool {
  /** how many tasks run at once; keep a few more than this in flight to keep the threads busy */
  readonly threads: number
  readonly vmPath: string
  /** what has to be at `vmPath` (Share.belongTo); undefined: a VM that is being made */
  readonly vmId: string | undefined
  /** what earlier tries have sent */
  readonly known: KnownPlaces
  #pool: Piscina | undefined
  #isClosed = false

  /** `known` is what an earlier try has sent. It goes to each thread once: with every unit it would be quadratic. */
  constructor(
    vmPath: string,
    options: { readonly vmId?: string | undefined; readonly threads?: number; readonly known?: KnownPlaces } = {}
  ) {
    this.vmPath = vmPath
    this.vmId = options.vmId
    this.known = options.known ?? []
    this.threads = options.threads ?? os.availableParallelism()
  }

  /** Runs one task in a thread. Rejects with the task's IsrfsError, and when the pool is closed. */
  async run<Name extends CommitTaskName>(name: Name, input: CommitTaskInput<Name>): Promise<CommitTaskOutput<Name>> {
    if (this.#isClosed) throw new FailedError('the threads of this commit have ended')
    this.#pool ??= new Piscina({
      ...threadProgram('commit/commit-worker.js'),
      minThreads: 1,
      maxThreads: this.threads,
      workerData: { vmPath: this.vmPath, vmId: this.vmId, known: this.known }
    })
    const answer = (await this.#pool.run({ name, input })) as { ok: CommitTaskOutput<Name> } | { error: PlainError } // what commit-worker.ts returns for this name
    if ('error' in answer) throw fromPlainError(answer.error)
    return name === 'encode' ? (withBuffers(answer.ok as EncodeOutput) as typeof answer.ok) : answer.ok // the output of 'encode' is an EncodeOutput
  }

  async close(): Promise<void> {
    this.#isClosed = true
    await this.#pool?.destroy()
  }
}

/** A thread hands Buffers over as Uint8Arrays; a BlockPlace has a Buffer. */
function withBuffers(output: EncodeOutput): EncodeOutput {
  return { ...output, results: output.results.map(withBuffer) }
}

function withBuffer(result: BlockResult): BlockResult {
  if (result.state !== 'placed') return result
  const { digest } = result.place
  return {
    ...result,
    place: { ...result.place, digest: Buffer.from(digest.buffer, digest.byteOffset, digest.byteLength) }
  }
}
