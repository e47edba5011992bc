/** What the kernel tells of the process that serves a mount: its processor time, its memory, its context switches, its system calls. */
import { spawn } from 'node:child_process'
import fs from 'node:fs'
import path from 'node:path'
import type { Place } from './place.js'

/** /proc counts in these, whatever the kernel's own clock */
const TICKS_PER_SECOND = 100
const ATTACH_MS_MAX = 10_000

/** The process that was started with this path as a word of its own; the newest, when its starter is still there. */
export function processOf(mountpoint: string): number {
  const found = fs
    .readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name) && Number(name) !== process.pid)
    .map(Number)
    .filter((pid) => wordsOf(pid).includes(mountpoint) && !/fusermount|\/mount$/.test(wordsOf(pid)[0] ?? ''))
  if (found.length === 0) throw new Error(`nobody serves ${mountpoint}`)
  return Math.max(...found)
}

function wordsOf(pid: number): readonly string[] {
  try {
    return fs.readFileSync(`/proc/${pid}/cmdline`, 'utf8').split('\0')
  } catch {
    return [] // it has ended meanwhile
  }
}

/** One that has ended and that nobody has asked after does not count. */
export function isAlive(pid: number): boolean {
  try {
    return !/\) [ZX] /.test(fs.readFileSync(`/proc/${pid}/stat`, 'utf8'))
  } catch {
    return false
  }
}

/** User and system time of all its threads, also of those that have ended; to 10 ms. */
export function processorSeconds(pid: number): number {
  const fields = fs.readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ')[1]?.split(' ') ?? []
  return (Number(fields[11]) + Number(fields[12])) / TICKS_PER_SECOND
}

export function residentMegabytes(pid: number): number {
  return (statusLine(`/proc/${pid}/status`, 'VmRSS') * 1024) / 1e6
}

/** Of all threads that live, voluntary and not. */
export function contextSwitches(pid: number): number {
  let sum = 0
  for (const task of fs.readdirSync(`/proc/${pid}/task`)) {
    const file = `/proc/${pid}/task/${task}/status`
    try {
      sum += statusLine(file, 'voluntary_ctxt_switches') + statusLine(file, 'nonvoluntary_ctxt_switches')
    } catch {
      // the thread has ended meanwhile
    }
  }
  return sum
}

function statusLine(file: string, name: string): number {
  const [, figure] = new RegExp(`^${name}:\\s+(\\d+)`, 'm').exec(fs.readFileSync(file, 'utf8')) ?? []
  return Number(figure)
}

/** How often each system call was made by the process during the work, which strace slows down a lot. */
export async function systemCalls(
  place: Place,
  pid: number,
  work: () => Promise<unknown>
): Promise<ReadonlyMap<string, number>> {
  const file = path.join(place.directory('strace'), 'calls')
  const strace = spawn('strace', ['-c', '-f', '-o', file, '-p', String(pid)], { stdio: ['ignore', 'ignore', 'pipe'] })
  const ended = new Promise<void>((resolve) => strace.once('close', () => resolve()))
  try {
    await new Promise<void>((resolve, reject) => {
      const timer = setTimeout(() => reject(new Error('strace does not attach')), ATTACH_MS_MAX)
      strace.once('error', reject)
      strace.stderr.once('data', () => resolve()) // "Process N attached", when it is with all threads
      strace.once('close', () => reject(new Error('strace has ended')))
      void ended.then(() => clearTimeout(timer))
    })
    await work()
  } finally {
    strace.kill('SIGINT')
  }
  await ended
  const lines = [...fs.readFileSync(file, 'utf8').matchAll(/^ *[\d.]+ +[\d.]+ +\d+ +(\d+) (?: *\d+)? +(\w+)$/gm)]
  return new Map(
    lines.map(([, calls = '', name = '']) => [name, Number(calls)] as const).filter(([name]) => name !== 'total')
  )
}
