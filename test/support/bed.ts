/**
 * A test bed for whole cycles: temporary share, client directories and mountpoints, the real command line in child
 * processes, and a teardown that leaves no mount and no daemon behind. The test process may touch the mountpoints;
 * the daemon never does.
 */
import { type ChildProcess, execFile, spawn } from 'node:child_process'
import fs from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { askStatus } from '../../src/daemon/control-client.js'
import { findSockets } from '../../src/daemon/socket-path.js'

/** the command line as users have it */
export const CLI = fileURLToPath(new URL('../../../dist/cli/main.js', import.meta.url))
/** the same as compiled for the tests, so that it and its daemons are part of the coverage */
const COVERED_CLI = fileURLToPath(new URL('../../src/cli/main.js', import.meta.url))

/** ISRFS_TEST_TRANSPORT lets every mount of the end-to-end tests use another transport than the default one. */
const transport = process.env['ISRFS_TEST_TRANSPORT']

const run = promisify(execFile)

/** of one kind, per test process */
const COVERED_CALLS = 1
/** shown of each log when a call fails */
const LOG_LINES = 12
const callsOfKind = new Map<string, number>()

export interface Result {
  readonly code: number
  readonly stdout: string
  readonly stderr: string
}

export interface StatusJson {
  readonly pid: number
  readonly state: string
  readonly generation: number
  readonly dirtyBytes: number
  readonly log: string
  readonly presentBytes: number
  readonly totalBytes: number
  readonly fetchedBytes: number
  readonly fetchedBlocks: number
  readonly aheadBlocks: number
  readonly aheadUsedBlocks: number
  readonly profileBlocks: number
  readonly profileUsedBlocks: number
  readonly uploadedBytes: number
  readonly trickledBytes: number
  readonly shareErrors: number
}

export class Bed {
  readonly root: string
  readonly #mountpoints = new Set<string>()
  readonly #children = new Set<ChildProcess>()

  constructor(name: string) {
    this.root = fs.mkdtempSync(path.join(os.tmpdir(), `isrfs-test-${name}-`))
    fs.mkdirSync(path.join(this.root, 'share'))
  }

  path(...parts: string[]): string {
    return path.join(this.root, ...parts)
  }

  /** Path of a VM on the bed's share. */
  vm(name = 'testvm'): string {
    return this.path('share', name)
  }

  makeDirectory(...parts: string[]): string {
    const directory = this.path(...parts)
    fs.mkdirSync(directory, { recursive: true })
    return directory
  }

  /** Runs isrfs as client `client`; never rejects for an exit code. */
  async isrfs(client: string, ...args: string[]): Promise<Result> {
    const [cli, env] = isCovered(args) ? [COVERED_CLI, {}] : [CLI, { env: { ...process.env, NODE_V8_COVERAGE: '' } }]
    return this.command(
      process.execPath,
      [cli, '--client-dir', this.path(`client-${client}`), ...withTransport(args)],
      env
    )
  }

  /** Like isrfs, but an exit code other than 0 is an error that shows what was printed. */
  async mustIsrfs(client: string, ...args: string[]): Promise<Result> {
    const result = await this.isrfs(client, ...args)
    if (result.code !== 0) {
      const { code, stdout, stderr } = result
      throw new Error(`isrfs ${args.join(' ')} ended with ${code}\n${stdout}${stderr}${this.#logsOf(client)}`)
    }
    return result
  }

  /** The ends of the logs of the client's daemons: they are removed with the bed. */
  #logsOf(client: string): string {
    const directory = this.path(`client-${client}`, 'log')
    const names = fs.existsSync(directory) ? fs.readdirSync(directory) : []
    return names.map((name) => `${name}:\n${lastLines(path.join(directory, name))}\n`).join('')
  }

  async command(
    program: string,
    args: readonly string[],
    options: { cwd?: string; input?: string; env?: NodeJS.ProcessEnv } = {}
  ): Promise<Result> {
    try {
      const child = run(program, args, {
        maxBuffer: 64 * 1024 * 1024,
        ...(options.cwd === undefined ? {} : { cwd: options.cwd }),
        ...(options.env === undefined ? {} : { env: options.env })
      })
      child.child.stdin?.on('error', () => undefined).end(options.input ?? '') // it may end without reading
      const { stdout, stderr } = await child
      return { code: 0, stdout, stderr }
    } catch (error) {
      const failed = error as { code?: unknown; stdout?: string; stderr?: string; message: string } // what execFile rejects with
      if (typeof failed.code !== 'number') throw error
      return { code: failed.code, stdout: failed.stdout ?? '', stderr: failed.stderr ?? failed.message }
    }
  }

  async mount(client: string, vm: string, mountName: string, ...options: string[]): Promise<string> {
    const mountpoint = this.makeDirectory(mountName)
    this.#mountpoints.add(mountpoint)
    await this.mustIsrfs(client, 'mount', vm, mountpoint, ...options)
    return mountpoint
  }

  async unmount(client: string, mountpoint: string): Promise<Result> {
    return this.mustIsrfs(client, 'unmount', mountpoint)
  }

  /** What `isrfs status --json` prints, asked for in this process: a command line of its own takes half a second each time. */
  async status(client: string, mountpoint: string): Promise<StatusJson> {
    for (const socketPath of findSockets(mountpoint)) {
      const status = await askStatus(socketPath).catch(() => undefined)
      if (status !== undefined) return status
    }
    const { stdout } = await this.mustIsrfs(client, 'status', mountpoint, '--json') // which says why nobody answers
    return JSON.parse(stdout) as StatusJson // the shape is what design and docs/operations.md promise
  }

  /** Kills the daemon as a crash would, and removes the dead mount, as the next mount does for its own mountpoint. */
  async killDaemon(client: string, mountpoint: string): Promise<void> {
    const { pid } = await this.status(client, mountpoint)
    process.kill(pid, 'SIGKILL')
    await waitFor(() => !isAlive(pid), `process ${String(pid)} to end`)
  }

  spawn(program: string, args: readonly string[]): ChildProcess {
    const child = spawn(program, args, { stdio: ['ignore', 'pipe', 'pipe'] })
    this.#children.add(child)
    return child
  }

  rememberMount(mountpoint: string): void {
    this.#mountpoints.add(mountpoint)
  }

  async destroy(): Promise<void> {
    for (const child of this.#children) child.kill('SIGKILL')
    for (const mountpoint of this.#mountpoints) {
      if (isMounted(mountpoint)) await this.command('fusermount3', ['-uz', mountpoint])
    }
    await waitFor(() => this.#daemons().length === 0, 'daemons to end', 20_000).catch(() => {
      for (const pid of this.#daemons()) process.kill(pid, 'SIGKILL')
    })
    fs.rmSync(this.root, { recursive: true, force: true })
  }

  /** Processes of this bed that are still there: their command line names its directory. */
  #daemons(): number[] {
    return fs
      .readdirSync('/proc')
      .filter((name) => /^\d+$/.test(name) && Number(name) !== process.pid)
      .filter((name) => {
        try {
          const commandLine = fs.readFileSync(`/proc/${name}/cmdline`, 'utf8')
          return commandLine.includes(this.root) && commandLine.includes('daemon')
        } catch {
          return false
        }
      })
      .map(Number)
  }
}

function lastLines(file: string): string {
  return fs.readFileSync(file, 'utf8').trimEnd().split('\n').slice(-LOG_LINES).join('\n')
}

export function isMounted(mountpoint: string): boolean {
  return fs
    .readFileSync('/proc/self/mountinfo', 'utf8')
    .split('\n')
    .some((line) => line.split(' ')[4]?.replaceAll('\\040', ' ') === mountpoint)
}

/** What the descriptors of a process show at this moment: files, sockets, pipes. */
export function openFiles(pid: number): string[] {
  const directory = `/proc/${String(pid)}/fd`
  return fs.readdirSync(directory).flatMap((name) => {
    try {
      return [fs.readlinkSync(path.join(directory, name))]
    } catch {
      return [] // closed meanwhile
    }
  })
}

export function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0)
    return !fs.readFileSync(`/proc/${String(pid)}/stat`, 'utf8').includes(') Z ')
  } catch {
    return false
  }
}

export async function waitFor(
  condition: () => boolean | Promise<boolean>,
  what: string,
  limitMs = 60_000
): Promise<void> {
  const end = Date.now() + limitMs
  while (!(await condition())) {
    if (Date.now() > end) throw new Error(`waited too long for ${what}`)
    await new Promise((resolve) => setTimeout(resolve, 50))
  }
}

/**
 * Whether the coverage of this call, and of the daemon that it starts, counts. Only of the first call of a kind: each costs twice
 * the time of one of the program that users have, and thousands of alike ones show nothing new.
 */
function isCovered(args: readonly string[]): boolean {
  const kind = [args[0], ...args.filter((arg) => arg.startsWith('--'))].join(' ')
  const calls = callsOfKind.get(kind) ?? 0
  callsOfKind.set(kind, calls + 1)
  return calls < COVERED_CALLS
}

function withTransport(args: readonly string[]): readonly string[] {
  if (args[0] !== 'mount' || transport === undefined || args.includes('--transport')) return args
  return ['mount', '--transport', transport, ...args.slice(1)]
}
