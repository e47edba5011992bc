/**
 * Runs one scenario of test/support/nfs/ in a guest with a real NFS server and two clients, and hands back what it has
 * seen. A scenario that cannot run fails: the bed's own failures are told apart from those of isrfs, and a guest that did
 * not come up is started once more.
 */
import { spawn } from 'node:child_process'
import fs from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { fileURLToPath } from 'node:url'
import PQueue from 'p-queue'
import { CLI, type Result } from './bed.js'

const SCENARIOS = path.resolve('test/support/nfs')
/** test/support/nfs/guest: the guest did not come up or did not end in time; the server in it did not start */
const BED_FAILED = [124, 125]
const LIMIT_S = 420

/** one guest keeps one processor busy */
const guests = new PQueue({ concurrency: Math.min(2, os.availableParallelism()) })

/** What a scenario prints on stdout is `facts`, on stderr `log`. */
export interface Seen<Facts> {
  readonly facts: Facts
  readonly log: string
}

/** Exit code and output of one isrfs command in the guest. */
export type Ended = Pick<Result, 'code'> & { readonly text: string }

export async function runScenario<Facts>(scenario: string, seed: number): Promise<Seen<Facts>> {
  return (await guests.add(async () => {
    const first = await boot<Facts>(scenario, seed)
    if (typeof first !== 'string') return first
    const second = await boot<Facts>(scenario, seed)
    if (typeof second !== 'string') return second
    throw new Error(`the NFS bed failed twice, which says nothing about isrfs:\n${first}\n${second}`)
  })) as Seen<Facts> // a queue that is never cleared
}

/** A string says why there was no bed to run it in. */
async function boot<Facts>(scenario: string, seed: number): Promise<Seen<Facts> | string> {
  const directory = fs.mkdtempSync(path.join(os.tmpdir(), 'isrfs-test-nfs-'))
  const read = (name: string): string => {
    const file = path.join(directory, name)
    return fs.existsSync(file) ? fs.readFileSync(file, 'utf8') : ''
  }
  try {
    fs.writeFileSync(path.join(directory, 'command'), commandFor(scenario, seed))
    const { code, text } = await guest(directory)
    const log = read('log')
    const ran = fs.existsSync(path.join(directory, 'started'))
    if (BED_FAILED.includes(code) && !ran) return `exit code ${String(code)}\n${text}${read('output')}`
    if (code !== 0) {
      const why = code === 124 ? 'hung until the guest was ended' : `ended with ${String(code)}`
      throw new Error(`${scenario} (seed ${String(seed)}) ${why}:\n${log}${read('output')}`)
    }
    return { facts: JSON.parse(read('facts')) as Facts, log } // the scenario and its test agree on the shape
  } finally {
    fs.rmSync(directory, { recursive: true, force: true })
  }
}

function commandFor(scenario: string, seed: number): string {
  return [
    `export ISRFS_NODE='${process.execPath}' ISRFS_CLI='${CLI}' ISRFS_TEST_SEED=${String(seed)}`,
    `export ISRFS_TAKE_LEASE='${fileURLToPath(new URL('./take-lease.js', import.meta.url))}' PYTHONDONTWRITEBYTECODE=1`,
    'touch /run/host/started',
    `cd '${SCENARIOS}' && python3 ${scenario} >/run/host/facts 2>/run/host/log`,
    ''
  ].join('\n')
}

async function guest(directory: string): Promise<Ended> {
  const child = spawn(path.join(SCENARIOS, 'guest'), [directory], {
    env: { ...process.env, LIMIT_S: String(LIMIT_S) },
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
