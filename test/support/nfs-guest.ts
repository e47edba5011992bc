/**
 * Guests with a real NFS server and two clients (test/support/nfs/guest), each of which runs some scenarios of
 * test/support/nfs/ one after another and hands back what they have seen. A scenario that cannot run fails: the bed's own
 * failures are told apart from those of isrfs, and a guest that did not come up is started once more.
 */
import { spawn } from 'node:child_process'
import fs from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { fileURLToPath } from 'node:url'
import { CLI, type Result } from './bed.js'

const SCENARIOS = path.resolve('test/support/nfs')
/** for guests that share two processors with other tests; alone they need a quarter of it */
const LIMIT_S = 1000

/** Exit code and output of one isrfs command in the guest. */
export type Ended = Pick<Result, 'code'> & { readonly text: string }

/** `facts` is what a scenario has printed, `log` what it says that it did. */
export interface Seen<Facts> {
  readonly facts: Facts
  readonly log: string
}

/** What is in the directory that a guest shares with its host, by name, after the guest has ended. */
type Outcome = ReadonlyMap<string, string>

export class NfsGuest {
  readonly #scenarios: readonly string[]
  readonly #seed: number
  readonly #limitS: number
  #outcome: Promise<Outcome> | undefined

  /** The first scenario that is asked for boots the guest, and all run. */
  constructor(seed: number, scenarios: readonly string[], limitS = LIMIT_S) {
    this.#seed = seed
    this.#limitS = limitS
    this.#scenarios = scenarios
  }

  async seen<Facts>(scenario: string): Promise<Seen<Facts>> {
    const outcome = await (this.#outcome ??= this.#run())
    const number = String(this.#scenarios.indexOf(scenario))
    const log = outcome.get(`${number}.log`)
    const what = `${scenario} (seed ${String(this.#seed)})`
    if (log === undefined) throw new Error(`${what} was not begun: another scenario of the same guest has failed`)
    const code = outcome.get(`${number}.code`)?.trim() ?? 'nothing: it hung until the guest was ended'
    if (code !== '0') throw new Error(`${what} ended with ${code}\n${log}`)
    return { facts: JSON.parse(outcome.get(`${number}.facts`) ?? '') as Facts, log } // a scenario and its test agree on the shape
  }

  async #run(): Promise<Outcome> {
    const first = await this.#boot()
    if (typeof first !== 'string') return first
    const second = await this.#boot()
    if (typeof second !== 'string') return second
    throw new Error(`the NFS bed failed twice, which says nothing about isrfs:\n${first}\n${second}`)
  }

  /** A string says why there was no guest to run anything in. */
  async #boot(): Promise<Outcome | string> {
    const directory = fs.mkdtempSync(path.join(os.tmpdir(), 'isrfs-test-nfs-'))
    try {
      fs.writeFileSync(path.join(directory, 'command'), this.#command())
      const { code, text } = await guest(directory, this.#limitS)
      const names = fs.readdirSync(directory, { withFileTypes: true }).filter((entry) => entry.isFile())
      const outcome = new Map(names.map(({ name }) => [name, fs.readFileSync(path.join(directory, name), 'utf8')]))
      if (outcome.has('0.log')) return outcome
      return `exit code ${String(code)}: ${text}${outcome.get('output') ?? ''}`
    } finally {
      fs.rmSync(directory, { recursive: true, force: true })
    }
  }

  /** A scenario that fails may leave the server in any state, so none follows it. */
  #command(): string {
    return [
      `export ISRFS_NODE='${process.execPath}' ISRFS_CLI='${CLI}' ISRFS_TEST_SEED=${String(this.#seed)}`,
      `export ISRFS_TAKE_LEASE='${fileURLToPath(new URL('./take-lease.js', import.meta.url))}' PYTHONDONTWRITEBYTECODE=1`,
      `cd '${SCENARIOS}'`,
      'set -e',
      ...this.#scenarios.flatMap((scenario, number) => [
        'rm -rf /srv/export/*',
        `python3 ${scenario} >/run/host/${String(number)}.facts 2>/run/host/${String(number)}.log || code=$?`,
        `echo "\${code:-0}" >/run/host/${String(number)}.code`,
        '[ -z "${code:-}" ]'
      ]),
      ''
    ].join('\n')
  }
}

async function guest(directory: string, limitS: number): Promise<Ended> {
  const child = spawn(path.join(SCENARIOS, 'guest'), [directory], {
    env: { ...process.env, LIMIT_S: String(limitS) },
    stdio: ['ignore', 'pipe', 'pipe']
  })
  let text = ''
  for (const stream of [child.stdout, child.stderr]) stream.on('data', (bytes: Buffer) => (text += bytes.toString()))
  const code = await new Promise<number>((resolve, reject) => {
    child.once('error', reject)
    child.once('close', (ended) => {
      resolve(ended ?? 124)
    })
  })
  return { code, text }
}
